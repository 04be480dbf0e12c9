"""Makes a repository's lock end with its holder, however that ends.

Mercurial's lock is a link that names a process. After a power cut another process may have that number, or a
restarted container another namespace, and the lock would stand until a person removes it. So whoever wants
the link takes a kernel lock on a file beside it first, which no dead process holds.

Promises: who holds the kernel lock and finds the link of this host knows that its holder is gone. A link of
another host is never broken.
Does not: help against hosts that share storage under one name.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from typing import Any

from mercurial import error, lock

from hgfleet.hgext import session_context
from hgfleet.hgext.refusals import nothing_changed
from hgfleet.runtime import clock

STORE_LOCK = b"lock"  # Mercurial's name of the lock that a change of the repository needs
_POLL_SECONDS = 0.02


class LockGuard:
    """The kernel lock beside one lock of Mercurial's, for one holder."""

    def __init__(self, path: bytes) -> None:
        self.path = path
        self._descriptor: int | None = None

    def try_take(self) -> bool:
        """Take it unless somebody has it. Raises OSError where the file cannot be made."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go of it, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def guard_path(repo: Any, name: bytes) -> bytes:
    """Return the file beside Mercurial's lock `name`."""
    return bytes(repo.vfs.join(b"hgfleet-" + name))


def take(repo: Any, vfs: Any, name: bytes, wait: bool, take_link: Callable[[], Any]) -> Any:
    """Take Mercurial's lock `name` by `take_link`, which does not wait, as soon as nobody holds it.

    `vfs` is where its link lies. Raises LockHeld when it is held and not to be waited for; after `ui.timeout`
    seconds an Abort that names the holder.
    """
    guard = LockGuard(guard_path(repo, name))
    ends_at = clock.monotonic() + (repo.ui.configint(b"ui", b"timeout") if wait else 0)
    while not _try_take(guard, repo):
        if clock.monotonic() >= ends_at:
            raise _refusal(repo, vfs, name, wait)
        clock.sleep(_POLL_SECONDS)
    try:
        held = _take_link(vfs, name, take_link)
    except BaseException:
        guard.release()
        raise
    held.postrelease.insert(0, lambda _is_success: guard.release())
    return held


class _GuardedLock(lock.lock):
    """Mercurial's lock without its link."""

    def _trylock(self) -> None:
        self.held += 1


def hold_without_link(
    vfs: Any, name: bytes, releasefn: Any, acquirefn: Any, desc: Any, steal_from: Any = None
) -> Any:
    """Return a held lock that only its guard keeps: for a copy that no other host and no stock `hg` writes.

    The link is made and removed twice per message that a mirror applies.
    """
    return _GuardedLock(vfs, name, 0, releasefn=releasefn, acquirefn=acquirefn, desc=desc)


def is_locked(repo: Any) -> bool:
    """Tell whether a living process holds the lock for changes."""
    guard = LockGuard(guard_path(repo, STORE_LOCK))
    is_free = _try_take(guard, repo)
    guard.release()
    return not is_free


def _try_take(guard: LockGuard, repo: Any) -> bool:
    try:
        return guard.try_take()
    except OSError as exc:
        raise error.LockUnavailable(exc.errno, exc.strerror or str(exc), guard.path, repo.root) from exc


def _take_link(vfs: Any, name: bytes, take_link: Callable[[], Any]) -> Any:
    try:
        return take_link()
    except error.LockHeld as exc:
        host = lock._getlockprefix().partition(b"/")[0]
        if (exc.locker or b"").partition(b":")[0].partition(b"/")[0] != host:
            raise nothing_changed(describe_holder(exc.locker), "another host may write to it") from exc
    vfs.tryunlink(name)
    return take_link()


def _refusal(repo: Any, vfs: Any, name: bytes, wait: bool) -> error.Abort | error.LockHeld:
    try:
        holder = bytes(vfs.readlock(name))
    except FileNotFoundError:
        holder = b""
    if wait:
        return nothing_changed(describe_holder(holder), "try again when it is done")
    return error.LockHeld(errno.EAGAIN, vfs.join(name), repo.root, holder)


def describe_holder(locker: bytes | None) -> str:
    """Say who holds a lock, given what Mercurial wrote into it."""
    host, _, pid = (locker or b"").decode("utf-8", "replace").partition(":")
    if not pid:
        return "the repository is locked by another process"
    if account := session_context.account_of(pid):
        return f"the repository is locked by a session of {account}"
    return f"the repository is locked by process {pid} on host {host.partition('/')[0]}"
