"""What happens to a fleet of several hosts: hosts cut off, lost, added, drained; brokers out of reach.

Each test ends with every host healthy and its repository compared, the last one with all repositories.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts_fleet import HostsFleet, Surroundings
from tests.support.invariants import check_everything, check_repository
from tests.support.repositories import WorkingCopy
from tests.support.traffic import pushing, reading

LEASE_SECONDS = 14
# A little more than the defaults: on two cores a dozen daemons and three brokers stand still now and then.
MEMBERSHIP = f"""
[membership]
lease = "{LEASE_SECONDS}s"
self_stale = "7s"
"""


@pytest.fixture(scope="module")
def fleet(hosts_site: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsFleet]:
    directory = tmp_path_factory.mktemp("hosts-faults") / "fleet"
    fleet = HostsFleet(
        directory, hosts_site, name="faults", config=MEMBERSHIP, coordinators=("mirror1", "mirror2")
    )
    try:
        yield fleet.start()
        wait_all_in_service(fleet)
        check_everything(fleet)
    finally:
        fleet.close()


@pytest.fixture
def work(fleet: HostsFleet, repository: str, tmp_path: Path) -> Iterator[WorkingCopy]:
    """A clone of a repository that everybody can read; at the end all must be well again."""
    fleet.create(repository)
    work = WorkingCopy.init(fleet.client(), tmp_path / "work")
    work.commit("first")
    work.push(fleet.ssh_url(repository)).ok()
    yield work
    fleet.site.network.heal()
    wait_all_in_service(fleet)
    check_repository(fleet, repository)


def is_ready(fleet: HostsFleet, mirror: str) -> bool:
    """Ask a mirror itself, on its own host: no link is in between."""
    try:
        host = fleet.host(mirror)
        reply = fleet.fetch_from(host, fleet.mirror_url(mirror, "-/readyz"))
    except OSError:
        return False
    return reply.status == 200


def wait_all_in_service(fleet: HostsFleet) -> None:
    def are_in_service() -> bool:
        rows = fleet.cli("mirror", "list", "--json")
        return rows.status == 0 and rows.out.count('"serving"') == len(fleet.site.mirrors)

    fleet.wait(are_in_service, "every mirror is in service", 120)
    fleet.wait(lambda: all(is_ready(fleet, name) for name in fleet.site.mirrors), "every mirror is ready", 60)


def test_a_mirror_that_is_cut_off_leaves_the_pool_and_comes_back_by_itself(
    fleet: HostsFleet, repository: str, work: WorkingCopy
) -> None:
    cut = fleet.host("mirror3")
    with reading(fleet, repository) as reads:
        with pushing(fleet, work, repository) as pushes:
            fleet.site.network.cut(cut)
            fleet.wait(lambda: not is_ready(fleet, "mirror3"), "it says that it is not ready", 60)
            fleet.wait(lambda: is_visible_without(pushes.outcomes[-1].text, 2), "pushes wait for two", 90)
        pushes.assert_fine(3)
        fleet.site.network.heal(cut)
        wait_all_in_service(fleet)
    reads.assert_fine(10)


def is_visible_without(text: str, mirrors: int) -> bool:
    return f"visible on all {mirrors} mirrors" in text


@pytest.mark.parametrize("hears", [False, True])
def test_a_mirror_that_is_cut_one_way_does_no_harm(
    fleet: HostsFleet, repository: str, work: WorkingCopy, hears: bool
) -> None:
    """It sends and hears nothing, or the reverse: nobody is taken back, no push is lost or waits for ever."""
    cut = fleet.host("mirror3")
    with reading(fleet, repository) as reads, pushing(fleet, work, repository) as pushes:
        fleet.site.network.cut(cut, hears=hears, sends=not hears)
        fleet.wait(lambda: not is_ready(fleet, "mirror3"), "it says that it is not ready", 60)
        fleet.wait(lambda: is_visible_without(pushes.outcomes[-1].text, 2), "pushes wait for two", 90)
    pushes.assert_fine(3)
    reads.assert_fine(10)


def test_with_two_of_three_brokers_out_of_reach_pushes_are_refused_and_reads_go_on(
    fleet: HostsFleet, repository: str, work: WorkingCopy
) -> None:
    with reading(fleet, repository) as reads:
        for name in fleet.site.brokers[1:]:
            fleet.site.network.cut(fleet.host(name))
        work.commit("second")
        fleet.wait(lambda: is_refused(fleet, work, repository), "a push is refused", 90)
        fleet.site.network.heal()
        fleet.wait(lambda: work.push(fleet.ssh_url(repository)).status in {0, 1}, "a push is accepted", 120)
    reads.assert_fine(10)


def is_refused(fleet: HostsFleet, work: WorkingCopy, repository: str) -> bool:
    pushed = work.push(fleet.ssh_url(repository))
    assert pushed.status != 0, pushed
    assert "Traceback" not in pushed.text
    return "nothing was changed" in pushed.text


def test_the_loss_of_the_active_coordinators_host_delays_a_push_by_at_most_the_lease(
    fleet: HostsFleet, repository: str, work: WorkingCopy
) -> None:
    active = fleet.cli_json("status")["coordinator"]["host"]
    assert active in {"mirror1", "mirror2"}
    with reading(fleet, repository) as reads, pushing(fleet, work, repository) as pushes:
        fleet.wait(lambda: pushes.outcomes, "pushes are on their way")
        fleet.kill_host(active)
        fleet.wait(
            lambda: is_visible_without(pushes.outcomes[-1].text, 2),
            "the other coordinator lets pushes be seen on the mirrors that are left",
            2 * LEASE_SECONDS + 30,
        )
        assert fleet.cli_json("status")["coordinator"]["host"] != active
    pushes.assert_fine(2)
    reads.assert_fine(10)
    fleet.start_host(active)


def test_a_mirror_with_an_empty_disk_joins_under_way_and_serves_only_once_it_has_everything(
    fleet: HostsFleet, repository: str, work: WorkingCopy, tmp_path: Path
) -> None:
    fleet.kill_host("mirror3")
    shutil.rmtree(fleet.directory / "hosts" / "mirror3")
    with reading(fleet, repository) as reads, pushing(fleet, work, repository) as pushes:
        for change in ("new", "renamed", "deleted"):
            fleet.cli("repo", "create", f"{repository}-{change}").ok()
        fleet.start_host("mirror3")
        fleet.cli("repo", "rename", f"{repository}-renamed", f"{repository}-other").ok()
        fleet.cli("repo", "delete", f"{repository}-deleted", "--yes").ok()
        fleet.wait(lambda: is_ready(fleet, "mirror3"), "the new mirror is in service", 120)
        assert fleet.fetch(fleet.mirror_url("mirror3", f"{repository}?cmd=heads")).status == 200
    pushes.assert_fine(2)
    reads.assert_fine(10)


def test_draining_and_resuming_a_mirror_costs_no_request(
    fleet: HostsFleet, repository: str, work: WorkingCopy
) -> None:
    with reading(fleet, repository) as reads, reading(fleet, repository) as others:
        for name in ("mirror1", "mirror2"):
            fleet.cli("mirror", "drain", name).ok()
            assert fleet.fetch(fleet.mirror_url(name, f"{repository}?cmd=heads")).status == 502
            fleet.cli("mirror", "resume", name).ok()
    reads.assert_fine(10)
    others.assert_fine(10)
