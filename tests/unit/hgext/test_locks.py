"""A lock ends with its holder; a living holder is waited for, and named."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mercurial import error, lock

from hgfleet.hgext import lock_guard
from tests.support.local_copies import Fleet, changing, commit, store_of

HOLDER = """
import fcntl, os, sys
guard = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(guard, fcntl.LOCK_EX)
os.symlink(sys.argv[3] + ":" + str(os.getpid()), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = Fleet.make(tmp_path)
    commit(fleet.repo, "first")
    return fleet


def link_of(fleet: Fleet) -> Path:
    return store_of(fleet.primary) / "lock"


@contextmanager
def held_by_another_process(fleet: Fleet) -> Iterator[subprocess.Popen[bytes]]:
    prefix = lock._getlockprefix().decode()
    guard = lock_guard.guard_path(fleet.repo, lock_guard.STORE_LOCK).decode()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, guard, str(link_of(fleet)), prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_lock_of_a_dead_process_is_broken_although_a_living_one_has_its_number(fleet: Fleet) -> None:
    prefix = lock._getlockprefix().decode()
    link_of(fleet).symlink_to(f"{prefix}:1")  # process 1 always lives
    assert not lock_guard.is_locked(fleet.repo)

    commit(fleet.repo, "second")

    assert not os.path.lexists(link_of(fleet))
    assert fleet.state.seq == 3


def test_the_lock_of_another_process_namespace_of_this_host_is_broken(fleet: Fleet) -> None:
    host = lock._getlockprefix().decode().partition("/")[0]
    link_of(fleet).symlink_to(f"{host}/1234abcd:77")

    commit(fleet.repo, "second")

    assert fleet.state.seq == 3


def test_the_lock_of_another_host_is_never_broken(fleet: Fleet) -> None:
    link_of(fleet).symlink_to("elsewhere/1:77")

    with pytest.raises(error.Abort, match="process 77 on host elsewhere; nothing was changed"):
        commit(fleet.repo, "second")

    assert link_of(fleet).readlink() == Path("elsewhere/1:77")


def test_a_living_holder_is_waited_for_and_named(fleet: Fleet) -> None:
    with held_by_another_process(fleet) as holder:
        assert lock_guard.is_locked(fleet.repo)
        with pytest.raises(
            error.Abort, match=f"locked by process {holder.pid} on host .*nothing was changed"
        ):
            commit(fleet.repo, "second")
        with pytest.raises(error.LockHeld):
            fleet.repo.lock(wait=False)
        holder.kill()
        holder.wait()
        commit(fleet.repo, "third")
    assert fleet.state.seq == 3


def test_a_lock_is_free_again_after_use_and_after_failure(fleet: Fleet) -> None:
    for _ in range(3):
        with changing(fleet.repo):
            pass
        with pytest.raises(error.Abort), changing(fleet.repo):
            raise error.Abort(b"no")
        assert not lock_guard.is_locked(fleet.repo)


def test_the_working_directorys_lock_ends_with_its_holder_too(fleet: Fleet) -> None:
    prefix = lock._getlockprefix().decode()
    link = link_of(fleet).parent.parent / "wlock"
    link.symlink_to(f"{prefix}:1")
    with fleet.repo.wlock(), fleet.repo.lock():
        assert link.readlink() == Path(f"{prefix}:{os.getpid()}")
    assert not os.path.lexists(link)


def test_a_mirrors_copy_is_locked_without_a_link(fleet: Fleet) -> None:
    copy = fleet.replica()
    fleet.replay(copy)
    with copy.repo.lock():
        assert not (store_of(copy) / "lock").is_symlink()
        assert lock_guard.is_locked(copy.repo)
        with copy.repo.lock():  # as often as Mercurial's own
            pass
        assert lock_guard.is_locked(copy.repo)
    assert not lock_guard.is_locked(copy.repo)
