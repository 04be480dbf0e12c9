"""The catalogue on a mirror: read ahead, served up to the watermark, the same after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgfleet.adapters.agent_answers import LoggedMessage
from hgfleet.adapters.mirror_catalogue import MirrorCatalogue
from hgfleet.model.catalogue import bind_body, epoch_body, rename_body, unbind_body
from hgfleet.model.ids import CATALOGUE, Epoch, HostName, Offset, Partition, Position, RepoPath, Seq
from hgfleet.model.message import Kind, Message, encode_message
from hgfleet.replication.mirror_paths import MirrorPaths
from tests.support.messages import R1, R2, R3, Chain

APP, LIB, NEW = RepoPath("team/app"), RepoPath("lib"), RepoPath("new")
P = Partition(0)


@pytest.fixture
def file(tmp_path: Path) -> MirrorCatalogue:
    return MirrorCatalogue(tmp_path / "catalogue.sqlite")


def _logged(*messages: Message) -> tuple[LoggedMessage, ...]:
    return tuple(
        LoggedMessage(m.envelope.seq, Position(Offset(m.envelope.seq), Epoch(1)), encode_message(m))
        for m in messages
    )


def _messages() -> tuple[LoggedMessage, ...]:
    chain = Chain(CATALOGUE)
    return _logged(
        chain.next(Kind.EPOCH, epoch_body(Epoch(1), HostName("one"), "a")),
        chain.next(Kind.BIND, bind_body(APP, R1, P)),
        chain.next(Kind.BIND, bind_body(LIB, R2, P)),
        chain.next(Kind.RENAME, rename_body(APP, NEW, R1)),
        chain.next(Kind.UNBIND, unbind_body(LIB, R2)),
    )


def _always(_repository: object) -> bool:
    return True


def test_paths_are_served_up_to_the_watermark_and_no_further(file: MirrorCatalogue) -> None:
    paths = MirrorPaths(file)
    paths.take(_messages())
    assert (paths.read_seq, paths.exposed, file.paths()) == (5, 0, {})
    assert paths.expose(Seq(3), _always)
    assert (paths.exposed, file.paths()) == (3, {APP: R1, LIB: R2})
    assert not paths.expose(Seq(3), _always)
    assert paths.expose(Seq(9), _always)
    assert (paths.exposed, file.exposed_seq(), file.paths()) == (5, 5, {NEW: R1})


def test_a_new_path_waits_for_something_to_show(file: MirrorCatalogue) -> None:
    paths = MirrorPaths(file)
    paths.take(_messages())
    assert paths.expose(Seq(5), lambda repository: repository != R2)
    assert (paths.exposed, file.paths()) == (2, {APP: R1})
    assert paths.expose(Seq(5), _always)
    assert file.paths() == {NEW: R1}


def test_a_repository_is_needed_until_its_unbinding_is_served(file: MirrorCatalogue) -> None:
    paths = MirrorPaths(file)
    paths.take(_messages())
    paths.expose(Seq(4), _always)
    assert paths.is_needed(R2)
    paths.expose(Seq(5), _always)
    assert not paths.is_needed(R2)
    assert paths.is_needed(R1)


def test_after_a_restart_nothing_falls_back_and_the_file_is_put_right(file: MirrorCatalogue) -> None:
    before = MirrorPaths(file)
    before.take(_messages())
    before.expose(Seq(4), _always)
    file.expose([NEW], {RepoPath("wrong"): R2}, Seq(4))
    paths = MirrorPaths(file)
    messages = _messages()
    paths.take(messages[:2])
    assert not paths.expose(Seq(5), _always), "not before it has read as far as it served"
    assert paths.exposed == 4
    paths.take(messages[2:])
    assert not paths.expose(Seq(4), _always), "nothing new"
    assert file.paths() == {NEW: R1, LIB: R2}
    assert paths.expose(Seq(5), _always)
    assert file.paths() == {NEW: R1}


def test_messages_that_were_taken_or_do_not_follow_are_ignored(file: MirrorCatalogue) -> None:
    paths = MirrorPaths(file)
    messages = _messages()
    paths.take(messages[:3])
    paths.take(messages[:3])
    paths.take(messages[4:])
    assert paths.read_seq == 3


def test_a_message_that_cannot_be_read_ends_the_reading_and_is_named(file: MirrorCatalogue) -> None:
    paths = MirrorPaths(file)
    good = _messages()
    bad = LoggedMessage(Seq(3), good[2].position, b"hgfleet/9 1\nx")
    paths.take((*good[:2], bad, *good[3:]))
    assert paths.read_seq == 2
    assert paths.parked.startswith("message.too-new")


def test_what_a_full_disk_refused_is_served_with_the_next_attempt(
    file: MirrorCatalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hgfleet.errors import TransientError

    paths = MirrorPaths(file)
    paths.take(_messages())
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise TransientError("mirror.catalogue", "full")

        patch.setattr(file, "expose", refuse)
        with pytest.raises(TransientError):
            paths.expose(Seq(3), _always)
    assert paths.exposed == 0
    assert paths.is_needed(R2), "nobody is let go for something that is not served yet"
    assert paths.expose(Seq(3), _always)
    assert file.paths() == {APP: R1, LIB: R2}


def test_a_lost_catalogue_is_served_on_beside_what_the_new_one_says(file: MirrorCatalogue) -> None:
    before = MirrorPaths(file)
    before.take(_messages()[:3])
    before.expose(Seq(3), _always)
    chain = Chain(CATALOGUE)
    first = chain.next(Kind.EPOCH, epoch_body(Epoch(1), HostName("one"), "b"))
    second = chain.next(Kind.BIND, bind_body(NEW, R3, P))
    for paths in (before, MirrorPaths(file)):  # the agent came back with it, or the applier began after that
        paths.begin_again(Seq(1))
        assert paths.applied >= paths.exposed
        paths.take(_logged(first))
        paths.expose(Seq(0), _always)
        assert (paths.exposed, file.exposed_seq()) == (1, 1)
        assert file.paths() == {APP: R1, LIB: R2}
    paths.take(_logged(second))
    paths.expose(Seq(2), _always)
    assert file.paths() == {APP: R1, LIB: R2, NEW: R3}


def test_a_catalogue_of_the_same_length_that_says_something_else_is_another_one(
    file: MirrorCatalogue,
) -> None:
    paths = MirrorPaths(file)
    paths.take(_messages()[:2])
    paths.expose(Seq(2), _always)
    chain = Chain(CATALOGUE)
    others = _logged(
        chain.next(Kind.EPOCH, epoch_body(Epoch(1), HostName("one"), "b")),
        chain.next(Kind.BIND, bind_body(NEW, R3, P)),
        chain.next(Kind.RENAME, rename_body(NEW, LIB, R3)),
    )
    paths.begin_again(Seq(3))
    paths.take(others)
    paths.expose(Seq(3), _always)
    assert not paths.parked
    assert file.paths() == {APP: R1, LIB: R3}


def test_the_same_catalogue_read_again_changes_nothing(file: MirrorCatalogue) -> None:
    paths = MirrorPaths(file)
    paths.take(_messages())
    paths.expose(Seq(4), _always)
    paths.begin_again(Seq(5))
    assert (paths.applied, paths.exposed) == (4, 4)
    assert paths.is_needed(R2), "nobody is let go before it is read"
    paths.take(_messages())
    assert paths.expose(Seq(5), _always)
    assert file.paths() == {NEW: R1}
