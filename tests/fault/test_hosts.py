"""What happens to a fleet of several hosts: hosts cut off, lost, added, drained; brokers out of reach.

Each test ends with every host healthy and its repository compared, the last one with all repositories.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hgfleet.adapters.haproxy_config import STALE_HEADER
from hgfleet.adapters.ssh_key_files import ensure_key_pair
from tests.support.clients import Outcome
from tests.support.hosts_fleet import ACCOUNT, HostsFleet, Run, Surroundings
from tests.support.invariants import check_everything, check_repository, wait_converged
from tests.support.openssh import Sshd
from tests.support.repositories import WorkingCopy
from tests.support.traffic import pushing, reading

PRIMARY = Run("primary", "primary")
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


def test_openssh_is_the_front_behind_the_load_balancer_as_the_embedded_server_is(
    fleet: HostsFleet, repository: str, work: WorkingCopy
) -> None:
    ensure_key_pair(fleet.directory / "account" / "stranger", "stranger")
    with openssh_front(fleet):
        work.commit("through sshd")
        pushed = work.push(fleet.ssh_url(repository)).ok()
        assert is_visible_without(pushed.text, 3), pushed
        cloned = work.directory.parent / "cloned"
        WorkingCopy.clone(fleet.client(), fleet.ssh_url(repository), cloned)
        refused = fleet.ssh("id")
        assert (refused.status, refused.out, len(refused.err.strip().splitlines())) == (1, "", 1), refused
        unknown = work.push(fleet.ssh_url("no/such"))
        assert (unknown.status, "no/such" in unknown.text) == (255, True), unknown
        locked_out = fleet.ssh("id", key_file=fleet.directory / "account" / "stranger")
        assert (locked_out.status, "Permission denied" in locked_out.text) == (255, True), locked_out
        logs = "".join(path.read_text() for path in fleet.directory.glob("logs/primary/*.log"))
        assert f'"client_address": "{fleet.host("client").address}"' in logs


@contextmanager
def openssh_front(fleet: HostsFleet) -> Iterator[None]:
    """Have the primary's connections served by real sshds for a while."""
    path = fleet.directory / "hgfleet.toml"
    embedded = path.read_text()
    sshd = Sshd(fleet.directory / "sshd")
    sshd.accounts.write([ACCOUNT])
    wrapper = sshd.write_wrapper()
    path.write_text(
        embedded.replace("[ssh]\n", '[ssh]\nkind = "openssh"\n') + f'\n[openssh]\nprogram = "{wrapper}"\n'
    )
    try:
        restart_primary(fleet, b"SSH-2.0-OpenSSH")
        yield
    finally:
        path.write_text(embedded)
        restart_primary(fleet, b"SSH-2.0-")


def restart_primary(fleet: HostsFleet, banner: bytes) -> None:
    """Start the primary with its configuration as it is now; wait until its front is reached."""
    fleet.stop_run(PRIMARY)
    fleet.start_run(PRIMARY)
    fleet.wait(lambda: fleet.ssh_banner().startswith(banner), f"{banner!r} is answered", 120)
    fleet.wait(lambda: fleet.cli("status").status == 0, "the primary serves", 60)


@pytest.mark.parametrize("hears", [False, True])
def test_a_primary_that_is_cut_one_way_does_no_harm(
    fleet: HostsFleet, repository: str, work: WorkingCopy, hears: bool
) -> None:
    """First from the brokers: an append goes out and no answer comes, or the reverse. Then from everybody."""
    network, primary = fleet.site.network, fleet.host("primary")
    with reading(fleet, repository) as reads:
        for broker in map(fleet.host, fleet.site.brokers):
            network.cut(primary, from_=broker, hears=hears, sends=not hears)
        work.commit("second")
        assert_told_the_truth(work.push(fleet.ssh_url(repository)))
        network.heal()
        wait_accepted(fleet, work, repository)
        network.cut(primary, hears=hears, sends=not hears)
        work.commit("third")
        pushed = work.push(fleet.ssh_url(repository))
        assert pushed.status != 0, pushed
        network.heal()
        wait_accepted(fleet, work, repository)
    reads.assert_fine(10)


def test_with_brokers_that_hang_a_push_ends_in_bounded_time_and_is_settled_by_itself(
    fleet: HostsFleet, repository: str, work: WorkingCopy
) -> None:
    hanging = fleet.site.kafka.brokers[1:]
    with reading(fleet, repository) as reads:
        for broker in hanging:
            broker.pause()
        try:
            for number in range(2):
                work.commit(f"while they hang {number}")
                assert_told_the_truth(work.push(fleet.ssh_url(repository)))
        finally:
            for broker in hanging:
                broker.resume()
        wait_accepted(fleet, work, repository)
    reads.assert_fine(10)


def assert_told_the_truth(pushed: Outcome) -> None:
    """A push that found the log away is refused or in doubt, and says which."""
    assert pushed.status != 0, pushed
    assert "Traceback" not in pushed.text
    assert "nothing was changed" in pushed.text or "not confirmed" in pushed.text, pushed


def wait_accepted(fleet: HostsFleet, work: WorkingCopy, repository: str) -> None:
    """Push until all is there; 1: it is already."""
    fleet.wait(lambda: work.push(fleet.ssh_url(repository)).status in {0, 1}, "a push is accepted", 120)


def test_reads_go_on_when_all_but_the_mirrors_is_gone_and_say_when_they_may_be_old(
    fleet: HostsFleet, repository: str, work: WorkingCopy
) -> None:
    """Log, directory, blob store, coordinators and primary at once (F3)."""
    wait_converged(fleet, repository)
    coordinators = [each for each in fleet.runs() if each.role == "coordinator"]
    with reading(fleet, repository) as reads:
        for name in ("stores", *fleet.site.brokers):
            fleet.site.network.cut(fleet.host(name))
        for each in coordinators:
            fleet.stop_run(each)
        work.commit("second")
        assert_told_the_truth(work.push(fleet.ssh_url(repository)))
        fleet.kill_host("primary")
        fleet.wait(lambda: is_stale(fleet, repository), "the last resort answers and says so", 60)
        page = fleet.fetch(fleet.https_url(repository))
        assert (page.status, b"may be older" in page.body) == (200, True), page
        cloned = fleet.client().run("clone", fleet.https_url(repository), work.directory.parent / "clone")
        assert cloned.status == 0, cloned
        refused = work.push(fleet.ssh_url(repository))
        assert refused.status != 0, refused
        assert "Traceback" not in refused.text
        fleet.site.network.heal()
        for each in (PRIMARY, *coordinators):
            fleet.start_run(each)
        wait_accepted(fleet, work, repository)
        wait_all_in_service(fleet)
        fleet.wait(lambda: not is_stale(fleet, repository), "answers are not marked any more", 60)
    reads.assert_fine(20)


def is_stale(fleet: HostsFleet, repository: str) -> bool:
    """Ask through the load balancer; whatever the answer is marked as, it has to be one."""
    reply = fleet.fetch(fleet.https_url(f"{repository}?cmd=heads"))
    assert reply.status == 200, reply
    return STALE_HEADER.lower() in reply.headers
