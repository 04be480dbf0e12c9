"""Bundle manifests at a real log agent: one in force at a time, told to who follows, offered by mirrors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hgfleet.adapters.agent_bundles import BundleClient, BundleDigests, BundlesChanged
from hgfleet.adapters.bundle_offers import offers_stamp, read_offer
from hgfleet.bundles.turn import Turn, TurnOptions
from hgfleet.errors import RejectedError
from hgfleet.model.bundle_manifest import BundleType, ManifestEntry
from hgfleet.model.bundle_state import BundleSet, BundleState, Made, Retired
from hgfleet.model.ids import NO_DIGEST, Digest, HostName, Node, RepoId, Seq, new_repo_id
from hgfleet.replication.mirror_bundles import BundleOffers
from tests.support.agents import AgentPlace, create_repository, push, running_agent, short_directory
from tests.support.waiting import wait_until

WHO = {"identity": "host:mirror1"}


def entry(number: int) -> ManifestEntry:
    return ManifestEntry(
        url=f"https://bundles.example/{number}.hg",
        kind=BundleType.ZSTD,
        spec="zstd-v2",
        size_bytes=number,
        sha256=Digest(f"{number:064x}"),
        store="own",
        attributes={"cdn": "true"},
    )


def state(*numbers: int, seq: int = 1) -> BundleState:
    made = Made(Seq(seq), Node("a" * 40), 3, 1000.5)
    return BundleState(
        current=BundleSet(tuple(entry(number) for number in numbers), made),
        previous=BundleSet((entry(99),), None),
        retired=(Retired("own", "old.hg", 5.0),),
    )


@pytest.fixture
def place() -> Iterator[AgentPlace]:
    with short_directory() as directory:
        place = AgentPlace(directory)
        log = place.open_log()
        with running_agent(place.options(log, log.log_id)):
            yield place
        log.close()


@pytest.fixture
def client(place: AgentPlace) -> Iterator[BundleClient]:
    with BundleClient(place.socket) as client:
        yield client


@pytest.fixture
def repository(client: BundleClient) -> RepoId:
    return create_repository(client)


def test_there_is_none_before_the_first(client: BundleClient, repository: RepoId) -> None:
    none = client.bundles(repository)

    assert (none.state, none.digest, none.seq) == (BundleState(), NO_DIGEST, 0)


def test_what_is_put_in_force_is_read_back_whole(client: BundleClient, repository: RepoId) -> None:
    put = client.append_bundles(repository, state(1, 2), Seq(1), NO_DIGEST, trace="a", **WHO)

    assert client.bundles(repository) == put
    assert (put.state, put.seq) == (state(1, 2), 1)
    assert client.status()["bundles"] == {"repositories": 1, "oldest_at": 1000.5}


def test_of_two_that_replace_the_same_manifest_one_is_refused(
    client: BundleClient, repository: RepoId
) -> None:
    first = client.append_bundles(repository, state(1), Seq(1), NO_DIGEST, trace="a", **WHO)
    client.append_bundles(repository, state(2), Seq(1), first.digest, trace="b", **WHO)

    with pytest.raises(RejectedError) as refused:
        client.append_bundles(repository, state(3), Seq(1), first.digest, trace="c", **WHO)

    assert refused.value.code == "bundles.replaced"
    assert client.bundles(repository).state == state(2)


def test_putting_the_same_in_force_again_finds_that_it_is(client: BundleClient, repository: RepoId) -> None:
    first = client.append_bundles(repository, state(1), Seq(1), NO_DIGEST, trace="a", **WHO)

    assert client.append_bundles(repository, state(1), Seq(1), NO_DIGEST, trace="a", **WHO) == first


@pytest.mark.parametrize("seq", [0, 9])
def test_nothing_is_said_of_a_state_that_the_log_does_not_have(
    client: BundleClient, repository: RepoId, seq: int
) -> None:
    with pytest.raises(RejectedError) as refused:
        client.append_bundles(repository, state(1), Seq(seq), NO_DIGEST, trace="a", **WHO)
    assert refused.value.code == "bundles.unknown-state"


def test_a_repository_that_is_gone_has_none_and_gets_none(client: BundleClient, repository: RepoId) -> None:
    put = client.append_bundles(repository, state(1), Seq(1), NO_DIGEST, trace="a", **WHO)
    client.delete("team/app", identity="alice", trace="delete")

    assert client.bundles(repository).digest == NO_DIGEST
    for gone in (repository, new_repo_id()):
        with pytest.raises(RejectedError) as refused:
            client.append_bundles(gone, state(1), Seq(1), put.digest, trace="b", **WHO)
        assert refused.value.code == "repo.unknown"


def test_a_follower_hears_of_all_that_is_in_force_and_then_of_changes(
    client: BundleClient, repository: RepoId
) -> None:
    first = client.append_bundles(repository, state(1), Seq(1), NO_DIGEST, trace="a", **WHO)
    with client.bundles_follow() as events:
        assert events.next_event(5.0) == BundleDigests({repository: first.digest})
        second = client.append_bundles(repository, state(2), Seq(1), first.digest, trace="b", **WHO)
        assert events.next_event(5.0) == BundlesChanged(repository, second.digest)
        client.delete("team/app", identity="alice", trace="delete")
        assert events.next_event(5.0) == BundlesChanged(repository, NO_DIGEST)


def test_what_was_in_force_still_is_after_the_agents_next_start(tmp_path: Path) -> None:
    with short_directory() as directory:
        place = AgentPlace(directory)
        log = place.open_log()
        options = place.options(log, log.log_id)
        with running_agent(options), BundleClient(place.socket) as client:
            repository = create_repository(client)
            put = client.append_bundles(repository, state(1), Seq(1), NO_DIGEST, trace="a", **WHO)
        with running_agent(options), BundleClient(place.socket) as client:
            assert client.bundles(repository) == put
        log.close()


# ---- what a mirror offers


@pytest.fixture
def repositories(tmp_path: Path, place: AgentPlace) -> Iterator[Path]:
    """A mirror's copies, while its offers are kept level."""
    repositories = tmp_path / "repos"
    stop = threading.Event()
    offers = BundleOffers(repositories, place.socket, stop)
    offers.start()
    yield repositories
    stop.set()
    offers.join(10)
    assert not offers.is_alive()


def await_offer(directory: Path, exposed: int, *entries: ManifestEntry) -> None:
    wait_until(lambda: read_offer(directory, Seq(exposed)) == entries, what=f"{len(entries)} entries offered")


def test_a_mirror_offers_what_it_exposes_and_until_then_what_was_before(
    client: BundleClient, repository: RepoId, repositories: Path
) -> None:
    directory = repositories / repository
    first = client.append_bundles(repository, state(1), Seq(1), NO_DIGEST, trace="a", **WHO)
    (directory / "current").mkdir(parents=True)  # the copy comes later
    await_offer(directory, 1, entry(1))
    push(client, repository, "more")
    client.append_bundles(repository, state(2, seq=2), Seq(2), first.digest, trace="b", **WHO)

    await_offer(directory, 2, entry(2))
    assert read_offer(directory, Seq(1)) == (entry(1),)


def test_what_is_disabled_or_deleted_is_offered_no_more(
    client: BundleClient, repository: RepoId, repositories: Path
) -> None:
    directory = repositories / repository
    (directory / "current").mkdir(parents=True)
    put = client.append_bundles(repository, state(1), Seq(1), NO_DIGEST, trace="a", **WHO)
    await_offer(directory, 1, entry(1))

    off = replace(put.state, is_disabled=True)
    put = client.append_bundles(repository, off, Seq(1), put.digest, trace="b", **WHO)
    wait_until(lambda: offers_stamp(directory) == 0, what="nothing is offered")
    client.append_bundles(repository, state(1), Seq(1), put.digest, trace="c", **WHO)
    await_offer(directory, 1, entry(1))

    client.delete("team/app", identity="alice", trace="delete")
    wait_until(lambda: offers_stamp(directory) == 0, what="nothing is offered")


# ---- whose turn it is


def turn(place: AgentPlace, host: str, lease_seconds: float) -> tuple[Turn, threading.Event]:
    stop = threading.Event()
    options = TurnOptions(HostName(host), [HostName("a"), HostName("b")], place.socket, lease_seconds)
    started = Turn(options, stop)
    started.start()
    return started, stop


def test_the_first_bundler_works_and_the_next_takes_over_when_it_leaves(place: AgentPlace) -> None:
    first, stop_first = turn(place, "a", 600.0)
    second, stop_second = turn(place, "b", 600.0)
    try:
        assert first.is_ours
        assert not second.is_ours
        stop_first.set()
        first.join(10)
        wait_until(lambda: second.is_ours, what="the second takes over")
        first, stop_first = turn(place, "a", 600.0)
        wait_until(lambda: not second.is_ours, what="the second stands by again")
    finally:
        stop_first.set()
        stop_second.set()


def test_a_bundler_that_falls_silent_is_stepped_in_for(place: AgentPlace) -> None:
    second, stop = turn(place, "b", 0.2)
    try:
        wait_until(lambda: second.is_ours, what="the second takes over")
    finally:
        stop.set()


def test_a_bundler_whose_host_leads_leaves_the_work_to_those_with_a_replica(place: AgentPlace) -> None:
    stop, bundlers = threading.Event(), [HostName("a"), HostName("b")]
    leading = Turn(TurnOptions(HostName("a"), bundlers, place.socket, 600.0, may_lead=True), stop)
    second, stop_second = turn(place, "b", 600.0)
    leading.start()
    try:
        wait_until(lambda: second.is_ours, what="the second works")
        assert not leading.is_ours
    finally:
        stop.set()
        stop_second.set()


def test_an_only_bundler_waits_for_nobody(place: AgentPlace) -> None:
    alone = Turn(TurnOptions(HostName("a"), [HostName("a")], place.socket, 600.0), threading.Event())
    nowhere = Turn(TurnOptions(HostName("mirror1"), [], place.socket, 600.0), threading.Event())

    assert alone.is_ours
    assert nowhere.is_ours
