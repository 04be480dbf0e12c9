"""Paths, ids, partitions and epochs."""

from collections.abc import Mapping

import pytest

from hgfleet.errors import RejectedError
from hgfleet.model.acceptance import PartitionReader, Verdict
from hgfleet.model.catalogue import (
    WEB_COMMANDS,
    Catalogue,
    bind_body,
    epoch_body,
    rename_body,
    site_body,
    unbind_body,
)
from hgfleet.model.ids import CATALOGUE, Digest, Epoch, HostName, Offset, Partition, RepoId, RepoPath
from hgfleet.model.message import Json, Kind, Message
from hgfleet.model.settlement import Appends, Outcome, handed_over
from tests.support.messages import R1, R2, R3, Chain, epoch, message

ONE, TWO = HostName("one"), HostName("two")


def bid(number: int, host: HostName = ONE, life: str = "a") -> dict[str, Json]:
    return epoch_body(Epoch(number), host, life)


def bind(path: str, repository: RepoId, partition: int = 0) -> dict[str, Json]:
    return bind_body(RepoPath(path), repository, Partition(partition))


def unbind(path: str, repository: RepoId) -> dict[str, Json]:
    return unbind_body(RepoPath(path), repository)


def rename(path: str, new_path: str, repository: RepoId) -> dict[str, Json]:
    return rename_body(RepoPath(path), RepoPath(new_path), repository)


class Book:
    """A catalogue and the chain of the primary that writes it."""

    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.chain = Chain(CATALOGUE)

    def take(self, m: Message) -> Verdict:
        return self.catalogue.take(m, Offset(self.catalogue.position.offset + 1))

    def write(self, kind: Kind, body: Mapping[str, Json]) -> Verdict:
        m = self.chain.peek(kind, body)
        verdict = self.take(m)
        if verdict in {Verdict.COUNTS, Verdict.EPOCH}:
            self.chain.next(kind, body)
        return verdict

    def paths(self) -> dict[str, str]:
        return {binding.path: binding.repository for binding in self.catalogue.bindings()}


@pytest.fixture
def book() -> Book:
    book = Book()
    assert book.write(Kind.EPOCH, bid(1)) is Verdict.EPOCH
    return book


def test_a_path_exists_from_bind_to_unbind(book: Book) -> None:
    assert book.write(Kind.BIND, bind("team/app", R1, 3)) is Verdict.COUNTS
    binding = book.catalogue.resolve("team/app")
    assert (binding.repository, binding.partition) == (R1, 3)
    assert book.catalogue.path_of(R1) == "team/app"
    assert book.write(Kind.UNBIND, unbind("team/app", R1)) is Verdict.COUNTS
    with pytest.raises(RejectedError) as unknown:
        book.catalogue.resolve("team/app")
    assert unknown.value.code == "repo.unknown"
    assert book.catalogue.path_of(R1) is None
    assert book.catalogue.partition_of(R1) == 3


def test_a_name_that_cannot_be_one_is_said_as_such(book: Book) -> None:
    with pytest.raises(RejectedError) as bad:
        book.catalogue.resolve("../etc")
    assert bad.value.code == "repo.bad-path"


def test_a_rename_moves_the_path_and_nothing_else(book: Book) -> None:
    book.write(Kind.BIND, bind("a", R1, 5))
    assert book.write(Kind.RENAME, rename("a", "b/c", R1)) is Verdict.COUNTS
    assert book.paths() == {"b/c": R1}
    assert book.catalogue.resolve("b/c").partition == 5


def test_a_deleted_path_can_be_created_again_as_another_repository(book: Book) -> None:
    book.write(Kind.BIND, bind("a", R1))
    book.write(Kind.UNBIND, unbind("a", R1))
    assert book.write(Kind.BIND, bind("a", R2)) is Verdict.COUNTS
    assert book.paths() == {"a": R2}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.BIND, bind("a", R2)),
        (Kind.BIND, bind("z", R1)),
        (Kind.BIND, bind("z", R3)),
        (Kind.UNBIND, unbind("a", R2)),
        (Kind.UNBIND, unbind("z", R1)),
        (Kind.UNBIND, unbind("c", R3)),
        (Kind.RENAME, rename("a", "b", R1)),
        (Kind.RENAME, rename("a", "a", R1)),
        (Kind.RENAME, rename("a", "z", R2)),
        (Kind.EPOCH, bid(1)),
    ],
)
def test_what_does_not_fit_the_state_changes_nothing(
    book: Book, kind: Kind, body: Mapping[str, Json]
) -> None:
    book.write(Kind.BIND, bind("a", R1))
    book.write(Kind.BIND, bind("b", R2))
    book.write(Kind.BIND, bind("c", R3))
    book.write(Kind.UNBIND, unbind("c", R3))
    before = book.paths(), book.catalogue.seq, book.catalogue.digest
    assert book.write(kind, body) is Verdict.IGNORED
    assert (book.paths(), book.catalogue.seq, book.catalogue.digest) == before
    assert book.write(Kind.BIND, bind("d", RepoId("4" * 32))) is Verdict.COUNTS


def test_of_two_changes_made_at_once_one_counts(book: Book) -> None:
    first, second = book.chain.peek(Kind.BIND, bind("a", R1)), book.chain.peek(Kind.BIND, bind("a", R2))
    assert [book.take(first), book.take(second)] == [Verdict.COUNTS, Verdict.IGNORED]
    assert book.paths() == {"a": R1}


def test_of_two_bids_the_one_that_counts_has_won(book: Book) -> None:
    book.chain.epoch = 2
    mine, other = book.chain.peek(Kind.EPOCH, bid(2, ONE, "x")), book.chain.peek(Kind.EPOCH, bid(2, TWO, "y"))
    appends = Appends()
    appends.begin(handed_over(mine))
    verdict = book.take(other)
    settled = appends.observe(other, verdict, book.catalogue.newest_epoch)
    assert [one.outcome for one in settled] == [Outcome.REFUSED]
    assert book.take(mine) is Verdict.IGNORED
    assert (book.catalogue.owner.host, book.catalogue.owner.life) == ("two", "y")


def test_a_bid_sent_twice_is_settled_once(book: Book) -> None:
    mine = message(Kind.EPOCH, CATALOGUE, 2, book.catalogue.digest, epoch=2, body=bid(2))
    appends = Appends()
    appends.begin(handed_over(mine))
    settled = appends.observe(mine, book.take(mine), book.catalogue.newest_epoch)
    assert [one.outcome for one in settled] == [Outcome.ACCEPTED]
    assert book.take(mine) is Verdict.IGNORED


def test_behind_a_newer_epoch_the_older_primary_changes_nothing(book: Book) -> None:
    zombie = book.chain.peek(Kind.BIND, bind("a", R1))
    newer = message(Kind.EPOCH, CATALOGUE, 2, book.catalogue.digest, epoch=2, body=bid(2, TWO))
    assert book.take(newer) is Verdict.EPOCH
    late = message(Kind.BIND, CATALOGUE, 3, newer.digest, epoch=1, body=bind("a", R1))
    assert [book.take(zombie), book.take(late)] == [Verdict.IGNORED, Verdict.IGNORED]
    assert book.catalogue.newest_epoch == 2
    assert book.catalogue.position.epoch == 2


def test_a_host_reopens_what_it_owns_and_a_standby_only_on_failover(book: Book) -> None:
    assert book.catalogue.may_open_epoch(ONE)
    assert not book.catalogue.may_open_epoch(TWO)
    assert book.catalogue.may_open_epoch(TWO, is_failover=True)
    assert Catalogue().may_open_epoch(TWO)


@pytest.mark.parametrize(
    "odd",
    [
        message(Kind.BIND, CATALOGUE, 3, epoch=1, body=bind("a", R1)),
        message(Kind.BIND, CATALOGUE, 2, Digest("f" * 64), epoch=1, body=bind("a", R1)),
        message(Kind.EPOCH, CATALOGUE, 5, epoch=2, body=bid(2)),
    ],
)
def test_a_gap_or_fork_stops_the_catalogue_where_it_is(book: Book, odd: Message) -> None:
    assert book.take(odd) is Verdict.PARKED
    assert book.catalogue.parked
    assert book.write(Kind.BIND, bind("a", R1)) is Verdict.PARKED
    assert book.catalogue.seq == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.PUSH, {}),
        (Kind.BIND, {}),
        (Kind.BIND, {"path": "..", "repository": R1, "partition": 0}),
        (Kind.BIND, {"path": "a", "repository": "x", "partition": 0}),
        (Kind.BIND, {"path": "a", "repository": R1, "partition": -1}),
        (Kind.BIND, {"path": "a", "repository": R1, "partition": True}),
        (Kind.BIND, {"path": "a", "repository": CATALOGUE, "partition": 0}),
        (Kind.UNBIND, {"path": 1, "repository": R1}),
        (Kind.SITE, {"settings": []}),
        (Kind.EPOCH, {"number": 0, "host": "one", "life": "a"}),
        (Kind.EPOCH, {"number": 9, "host": "one", "life": "a"}),
        (Kind.EPOCH, {"number": 1, "host": "-", "life": "a"}),
    ],
)
def test_a_body_that_is_not_what_it_should_be_stops_it_too(
    book: Book, kind: Kind, body: dict[str, Json]
) -> None:
    assert book.write(kind, body) is Verdict.PARKED
    assert book.catalogue.seq == 1


def test_an_unreadable_record_stops_it(book: Book) -> None:
    assert book.catalogue.take_unreadable(Offset(9), "too new") is Verdict.PARKED
    assert book.catalogue.parked == "too new"
    assert book.catalogue.position.offset == 9


def test_site_settings_are_merged_and_none_removes(book: Book) -> None:
    book.write(Kind.SITE, site_body({"is_readonly": True, "creators": ["scm"]}))
    book.write(Kind.SITE, site_body({"is_readonly": None}))
    assert book.catalogue.site == {"creators": ["scm"]}


def code_for(catalogue: Catalogue, path: str) -> str:
    try:
        catalogue.check_new_path(RepoPath(path))
    except RejectedError as error:
        return error.code
    return ""


def test_a_new_path_is_free_and_hides_no_page(book: Book) -> None:
    book.write(Kind.BIND, bind("a", R1))
    book.write(Kind.BIND, bind("x/file", R2))
    assert code_for(book.catalogue, "a") == "repo.exists"
    for path in ("b", "a/b", "a/b/rev", "aa/rev", "file", "rev", "x/y", "x/file/z"):
        assert code_for(book.catalogue, path) == "", path
    for path in ("a/rev", "a/rev/b", "a/json-pushes", "a/raw-file", "a/my-log", "x"):
        assert code_for(book.catalogue, path) == "repo.reserved", path


def test_every_page_name_of_hgweb_and_pushlog_is_reserved() -> None:
    assert {"rev", "file", "log", "pushlog", "pushloghtml", "pushes", "archive", "static"} <= WEB_COMMANDS


def test_completion_finds_what_is_created_and_not_bound(book: Book) -> None:
    reader = PartitionReader()
    bound, unbound, deleted = Chain(R1), Chain(R2), Chain(R3)
    messages = [
        epoch(1),
        bound.next(Kind.CREATED),
        unbound.next(Kind.CREATED),
        deleted.next(Kind.CREATED),
        deleted.next(Kind.DELETED),
    ]
    for number, m in enumerate(messages):
        reader.take(m, Offset(number + 1))
    book.write(Kind.BIND, bind("a", R1))
    assert book.catalogue.unfinished(reader) == [R2]
    reader.take(unbound.next(Kind.DELETED), Offset(9))
    assert book.catalogue.unfinished(reader) == []
    book.write(Kind.UNBIND, unbind("a", R1))
    assert book.catalogue.unfinished(reader) == [R1]
