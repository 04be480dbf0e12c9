"""A push is stopped at each named point: the next one works without a person, and nothing is half."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.clients import Outcome
from tests.support.repositories import WorkingCopy
from tests.support.stdio_host import StdioHost, stdio_host
from tests.support.waiting import wait_until

NOT_CONFIRMED = "not confirmed: it may still appear; push again to find out"


@pytest.fixture(scope="module")
def host() -> Iterator[StdioHost]:
    with stdio_host() as host:
        yield host


@pytest.fixture(scope="module")
def shared(host: StdioHost) -> WorkingCopy:
    """One working copy for all; commands of a real client are what these tests spend their time on."""
    work = host.pusher()
    work.commit("old")
    work.run("bookmark", "moving").ok()
    return work


@pytest.fixture
def work(shared: WorkingCopy, request: pytest.FixtureRequest) -> WorkingCopy:
    """A working copy with an amended changeset, its marker and a moved bookmark, all new to the host."""
    number = str(time.monotonic_ns())
    (shared.directory / "file.txt").write_text(number)
    shared.run("commit", "-q", "-m", f"old {request.node.name}").ok()
    shared.run("commit", "--amend", "-q", "-m", f"new {request.node.name}").ok()
    return shared


def push(work: WorkingCopy, host: StdioHost) -> Outcome:
    return work.push(host.url, "-B", "moving")


@pytest.mark.parametrize("point", ["push-before-checks", "push-before-append"])
def test_killed_before_the_append_nothing_was_changed_and_a_retry_pushes(
    host: StdioHost, work: WorkingCopy, point: str
) -> None:
    messages = len(host.messages)
    host.arm(point)
    assert push(work, host).status == 255
    assert len(host.messages) == messages

    push(work, host).ok()

    assert len(host.messages) == messages + 1
    host.check()


@pytest.mark.parametrize(
    "point", ["push-handed-over", "push-after-append", "push-in-finalizer", "push-post-finalize"]
)
def test_killed_after_the_append_the_push_stands_and_a_retry_finds_no_changes(
    host: StdioHost, work: WorkingCopy, point: str
) -> None:
    messages = len(host.messages)
    host.arm(point)
    assert push(work, host).status == 255
    assert len(host.messages) == messages + 1

    again = push(work, host)

    assert (again.status, "no changes found" in again.text) == (1, True), again
    assert len(host.messages) == messages + 1
    host.check()


def test_mercurials_own_kill_before_its_commit_point_is_survived(host: StdioHost, work: WorkingCopy) -> None:
    host.write_hgrc("[devel]\ndebug.abort-transaction = kill-9-post-finalize\n")
    try:
        assert push(work, host).status == 255
    finally:
        host.write_hgrc()

    again = push(work, host)

    assert (again.status, "no changes found" in again.text) == (1, True), again
    host.check()


@pytest.mark.parametrize("point", ["push-before-checks", "push-before-append"])
def test_a_full_disk_before_the_append_is_one_line_and_nothing_was_changed(
    host: StdioHost, work: WorkingCopy, point: str
) -> None:
    messages = len(host.messages)
    host.arm(point, "enospc")

    failed = push(work, host)

    assert failed.status == 255
    [line] = [line for line in failed.text.splitlines() if "No space left" in line]
    assert line.endswith("; nothing was changed")
    assert "Traceback" not in failed.text
    assert len(host.messages) == messages
    push(work, host).ok()
    host.check()


@pytest.mark.parametrize("point", ["push-after-append", "push-in-finalizer", "push-post-finalize"])
def test_a_full_disk_after_the_append_is_accepted_and_said_so_alone(
    host: StdioHost, work: WorkingCopy, point: str
) -> None:
    number = len(host.pushes) + 1
    host.arm(point, "enospc")

    done = push(work, host)

    assert f"accepted as push {number}; this host will complete it" in done.text
    for wrong in ("nothing was changed", "abort!", "rollback", "No space left"):
        assert wrong not in done.text
    assert "no changes found" in push(work, host).text
    host.check()


def test_an_agent_that_dies_with_the_append_leaves_the_pusher_told_the_truth(
    host: StdioHost, work: WorkingCopy
) -> None:
    for point in ("agent-before-append", "agent-after-append"):
        messages = len(host.messages)
        work.commit(f"with {point}")
        host.agent.arm(point)

        failed = push(work, host)

        assert NOT_CONFIRMED in failed.text, failed
        host.agent.restart()
        host.agent.disarm(point)
        taken = len(host.messages) - messages
        assert taken in {0, 1}
        again = push(work, host)
        assert (again.status == 0) is not bool(taken), again
        host.check()


def test_without_its_log_a_host_refuses_writes_with_the_reason_and_goes_on_reading(
    host: StdioHost, work: WorkingCopy
) -> None:
    host.agent.kill()
    try:
        refused = push(work, host)
        assert refused.status == 255
        assert "the replication log cannot be reached; nothing was changed" in refused.text
        read = work.run("identify", "-r", "tip", host.url)
        assert read.status == 0, read
        local = host.hg("bookmark", "-r", "0", "local")
        assert (local.status, "nothing was changed" in local.text) == (255, True), local
    finally:
        host.agent.start()
    push(work, host).ok()
    host.check()


def test_two_pushers_racing_with_a_stalled_append_both_get_the_truth(
    host: StdioHost, work: WorkingCopy
) -> None:
    second = host.pusher("second")
    second.run("pull", "-q", "-u", host.url).ok()
    second.commit("of the second", file="second")
    host.arm("push-before-append", "stall")
    outcomes = {}
    threads = [
        threading.Thread(target=lambda: outcomes.update(first=push(work, host))),
        threading.Thread(target=lambda: outcomes.update(second=second.run("push", host.url))),
    ]
    threads[0].start()
    wait_until((host.faults / "push-before-append.reached").exists, what="the first stalls")
    threads[1].start()
    wait_until(lambda: _waiters(host) > 0, what="the second waits for the lock")
    (host.faults / "push-before-append").unlink()
    for thread in threads:
        thread.join()

    assert outcomes["first"].status == 0, outcomes["first"]
    raced = outcomes["second"]
    assert raced.status in {0, 255}, raced
    assert raced.status == 0 or "push" in raced.text
    host.check()


def _waiters(host: StdioHost) -> int:
    """Count processes that serve the repository over a pipe."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except OSError:
            continue
    needle = str(host.root).encode()
    return sum(needle in line and b"--stdio" in line for line in lines) - 1
