"""What would go around the log is refused in one line; what an administrator may do is replicated."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hgfleet.hgext import apply, recovery, state_digest
from hgfleet.hgext.copies import Copy
from hgfleet.model.ids import Partition
from hgfleet.model.message import decode_message
from tests.support.clients import CURRENT_HG, run
from tests.support.local_copies import assert_identical, ui
from tests.support.stdio_host import StdioHost, stdio_host


@pytest.fixture(scope="module")
def host() -> Iterator[StdioHost]:
    with stdio_host() as host:
        work = host.pusher("first")
        work.commit("one")
        work.commit("two")
        work.push(host.url).ok()
        yield host


def check_replica(host: StdioHost, tmp_path: Path) -> None:
    """Replay the log beside and compare with the primary's copy."""
    replica, primary = Copy(ui("mirror"), tmp_path / host.repository), Copy(ui("mirror"), host.copy)
    with host.client() as client:
        batch = client.read(host.repository, 0, 1 << 26).messages
        steps = [(decode_message(message.wire), message.position) for message in batch]
        fetch = recovery.blob_fetcher(replica, client)
        apply.apply_messages(replica, Partition(host.state.partition), steps, fetch)
    assert state_digest.full_digest(replica.repo) == state_digest.full_digest(primary.repo)
    assert_identical(primary, replica)


@pytest.mark.parametrize(
    "command",
    [
        ("--config", "extensions.strip=", "strip", "-r", "1"),
        ("rollback",),
        ("debugobsolete", "--delete", "0"),
        ("debugupgraderepo", "--run", "--optimize", "re-delta-all", "--config", "format.use-dirstate-v2=yes"),
    ],
    ids=" ".join,
)
def test_commands_that_copies_cannot_follow_are_refused_in_one_line(
    host: StdioHost, command: tuple[str, ...]
) -> None:
    host.hg("debugobsolete", f"{len(host.messages):040x}").ok()
    before = host.state

    refused = host.hg(*command)

    assert refused.status == 255, refused
    assert "abort: " in refused.err
    assert "Traceback" not in refused.err
    assert host.state == before
    host.check()


def test_a_hg_without_our_extension_cannot_open_the_repository(host: StdioHost) -> None:
    environment = host.environment() | {"HGRCPATH": ""}
    for command in (["log"], ["commit", "-m", "around"], ["bookmark", "x"]):
        refused = run([str(CURRENT_HG), "-R", str(host.root), *command], env=environment)
        assert refused.status == 255
        assert "requires features unknown to this Mercurial: hgfleet-log" in refused.err


@pytest.mark.parametrize(
    "item", ["hgfleet.role=", "hgfleet.role=king", "hgfleet.host=", "hgfleet.agent-socket="]
)
def test_a_host_configured_wrongly_opens_nothing(host: StdioHost, item: str) -> None:
    refused = host.hg("log", "--config", item)
    assert refused.status == 255, refused
    assert f"abort: {item.partition('=')[0]} " in refused.err


def test_what_an_administrator_does_on_the_host_is_in_the_log_and_on_replicas(
    host: StdioHost, tmp_path: Path
) -> None:
    before = len(host.messages)
    for command in (
        ("phase", "--force", "--secret", "-r", "1"),
        ("phase", "--public", "-r", "0"),
        ("phase", "--force", "--draft", "-r", "0"),
        ("bookmark", "-r", "0", "first"),
        ("bookmark", "-f", "-r", "1", "first"),
        ("bookmark", "-r", "0", "second"),
        ("bookmark", "--delete", "first"),
        ("debugobsolete", "2" * 40, "3" * 40),
        ("commit", "-m", "empty but closing", "--config", "ui.allowemptycommit=yes"),
    ):
        host.hg(*command).ok()
        host.check()

    messages = host.messages[before:]
    assert len(messages) == 9
    assert {message.envelope.identity for message in messages} == {"host:primary"}
    assert host.pushes[-1].pusher.startswith("host:primary/")
    check_replica(host, tmp_path)


def test_amend_publish_bookmark_move_and_deletion_in_one_push_are_one_message(
    host: StdioHost, tmp_path: Path
) -> None:
    work = host.pusher("amending")
    work.run("pull", "-q", "-u", "--rev", "0", host.url).ok()
    work.commit("to be public", file="other")
    work.commit("to be amended", file="other", content="1\n")
    work.run("bookmark", "moved").ok()
    work.run("bookmark", "gone").ok()
    work.push(host.url, "-B", "moved", "-B", "gone").ok()
    work.run("update", "-q", "moved").ok()
    work.run("commit", "--amend", "-q", "-m", "amended").ok()
    work.run("phase", "--public", "-r", ".^").ok()
    work.run("bookmark", "--delete", "gone").ok()
    messages = len(host.messages)

    work.push(host.url, "-B", "moved", "-B", "gone").ok()

    assert len(host.messages) == messages + 1
    assert host.messages[-1].envelope.body["fingerprint"] == host.state.fingerprint.to_json()
    shown = host.hg("bookmarks", "-T", "{bookmark} {node}\n").ok().out
    assert f"moved {work.node()}" in shown
    assert "gone" not in shown
    host.check()
    check_replica(host, tmp_path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (("devel.legacy.exchange=bundle1",), "bundle2 required"),
        (
            ("extensions.lfs=", "lfs.track=all()"),
            "required features are not supported in the destination: lfs",
        ),
        (("extensions.largefiles=",), "does not appear to be a largefile store"),
    ],
    ids=["before bundle2", "lfs", "largefiles"],
)
def test_pushers_that_are_not_supported_are_told_so_in_one_line(
    host: StdioHost, tmp_path: Path, config: tuple[str, ...], words: str
) -> None:
    work = host.pusher(f"unsupported-{tmp_path.name}")
    before = host.state
    options = [word for item in config for word in ("--config", item)]
    (work.directory / "large").write_text(words)
    add = ["--large"] if "largefile" in words else []
    work.run(*options, "add", *add, "large").ok()
    work.run(*options, "commit", "-q", "-m", words).ok()

    refused = work.run(*options, "push", "-f", host.url)

    assert refused.status != 0
    assert words in refused.text, refused
    assert "Traceback" not in refused.text
    assert host.state == before


def test_a_stream_clone_is_a_plain_repository(host: StdioHost, tmp_path: Path) -> None:
    host.hg("phase", "--force", "--public", "-r", "all()").ok()
    work = host.pusher("cloner")
    evolution = ("--config", "experimental.evolution=all")
    work.hg.run(*evolution, "clone", "-q", "--stream", host.url, tmp_path / "clone").ok()
    cloned = work.hg.run("-R", tmp_path / "clone", "identify", "-r", "tip").ok()
    assert cloned.out.split()[0] == host.hg("identify", "-r", "tip").ok().out.split()[0]
