"""Makes every transaction of a hgfleet repository go through the log, and refuses what would go around it.

Promises: a transaction that closes has its change in the log, or changed nothing; one that was accepted and
failed afterwards is completed from the log, here or at the next start, and the pusher is told that it was
accepted, in these words only. Strip, rollback and other rewriting is refused before it begins.
Does not: ask the log itself (hgext.append, hgext.recovery).
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

from mercurial import error, transaction

from hgfleet.errors import NOTHING_CHANGED, FleetError
from hgfleet.hgext import append, binding, identity, journal, lock_guard, recovery, seqfile, session_context
from hgfleet.hgext.append import Accepted, Base
from hgfleet.hgext.refusals import nothing_changed, reason_of
from hgfleet.hgext.seqfile import SeqState
from hgfleet.hgext.session_context import RecordedChange
from hgfleet.model.access import write_access

# Transactions that rewrite history or the store: copies could not follow.
REFUSED = frozenset({b"strip", b"repair", b"upgrade", b"clone", b"localclone", b"fncache"})
_FAULT = b"zzzz-hgfleet-fault"  # the last finalizer
_RECORD = b"-a-hgfleet-record"  # the first after the commit point: before caches, which may fail

_class_by_base: dict[type, type] = {}


class CopyTransaction(transaction.transaction):
    """A transaction that undoes itself from its journal, whatever state it is in.

    It says nothing about it, as its pusher is told something more precise, and leaves no undo files: `hg
    rollback` is refused, and they were a fifth of the work.
    """

    hgfleet_is_undone = False
    hgfleet_state: SeqState | None = None  # what the copy is once this is closed
    _journal: Any
    _abortcallback: Any
    _releasefn: Any

    def close(self) -> None:
        """Commit, or undo everything and raise; after the commit point nothing is undone."""
        try:
            super().close()
        except BaseException:
            if self._journal is not None and self._opener.exists(journal.JOURNAL):
                self._abort()
            raise

    def _generatefiles(self, suffix: bytes = b"", group: bytes = transaction.GEN_GROUP_ALL) -> Any:
        """Write what is written as whole files, the seq file's line as the last of all."""
        if group == transaction.GEN_GROUP_POST_FINALIZE and self.hgfleet_state is not None:
            return self._write_last(self.hgfleet_state)
        return super()._generatefiles(suffix, group)

    def _write_last(self, state: SeqState) -> Any:
        is_any = super()._generatefiles(group=transaction.GEN_GROUP_POST_FINALIZE)
        if seqfile.append(self, self._opener.join(seqfile.NAME.encode()), state):
            return is_any
        self._filegenerators.clear()  # they have been called
        seqfile.replace_in(self, state)
        return super()._generatefiles(group=transaction.GEN_GROUP_POST_FINALIZE)

    def _abort(self) -> None:
        self._count = self._usages = 0
        self._journal, self.hgfleet_is_undone = None, True
        for file in (self._file, self._backupsfile):
            with contextlib.suppress(OSError):
                file.close()
        callbacks, self._abortcallback = self._abortcallback or {}, None
        for name in sorted(callbacks):
            callbacks[name](self)
        with contextlib.suppress(OSError, error.Abort):  # then the next to take the lock undoes it
            journal.roll_back(self._opener, self._vfsmap)
        release, self._releasefn = self._releasefn, None
        release(self, False)

    def _writeundo(self) -> None:
        """Remove the journal: the commit point of this host.

        Mercurial renames it, which makes the file system write out what nobody will read.
        """
        self._opener.unlink(self._journal)


class FleetTransaction(CopyTransaction):
    """A transaction whose commit point is the log's answer."""

    hgfleet_accepted: Accepted | None = None
    hgfleet_repo: Any = None

    def _write_last(self, state: SeqState) -> Any:
        is_any = super()._write_last(state)
        binding.of(self.hgfleet_repo).faults.reach("push-post-finalize")
        return is_any

    def close(self) -> None:
        """Commit; after the log has accepted the change nothing raised here means that it failed."""
        try:
            super().close()
        except BaseException as exc:
            accepted = self.hgfleet_accepted
            if accepted is None:
                raise
            if not isinstance(exc, Exception):  # told to end at once: the next start completes it
                self.hgfleet_repo.ui.warn(accepted.wording + b"\n")
                raise
            if self.hgfleet_is_undone:  # else: committed, and only something cosmetic failed
                _complete_from_log(self.hgfleet_repo, accepted)


def _complete_from_log(repo: Any, accepted: Accepted) -> None:
    """Apply the message that an undone transaction became; raise Abort when that fails, too."""
    recovery.check_under_lock(repo)
    base = binding.of(repo).base
    if base is None or base.state.seq < accepted.message.seq:
        raise error.Abort(accepted.wording)
    repo.ui.warn(accepted.wording + b"\n")
    _record(accepted)


def begin(repo: Any, open_transaction: Any, desc: bytes) -> Any:
    """Open the outermost transaction for a change that is being made here."""
    bound = binding.of(repo)
    base = writable_base(repo, desc)
    _require_writer(repo, base)
    bound.faults.reach("push-before-checks")
    tr = open_transaction(desc, _say_nothing)
    tr.__class__ = FleetTransaction
    tr.hgfleet_repo = repo
    heads_before = frozenset(repo.changelog.headrevs())
    tr.addvalidator(append.VALIDATOR, lambda tr2: _validate(repo, tr2, base, heads_before))
    return tr


def _say_nothing(_text: bytes) -> None:
    return


def writable_base(repo: Any, desc: bytes) -> Base:
    """Return what a change may be made on; raise Abort when none may be made."""
    bound = binding.of(repo)
    if bound.options.role != "primary":
        raise nothing_changed("this copy is read-only", "push to the primary")
    if desc.split(b"\n")[0] in REFUSED:
        raise nothing_changed(f"'{desc.decode()}' rewrites history, which copies cannot follow")
    if not bound.is_checked:
        recovery.check_under_lock(repo)
    if bound.refusal is not None:
        raise refused(bound.refusal)
    if bound.base is None:
        raise error.ProgrammingError("a checked copy has a base or a refusal")
    return bound.base


def _require_writer(repo: Any, base: Base) -> None:
    """Judge an account by the settings that the change is made on; its session judged by older ones."""
    who = identity.current(repo.ui, binding.of(repo).options.host)
    if who.is_host:
        return
    access = write_access(True, who.groups, base.state.settings.writers)
    if not access.is_allowed:
        raise nothing_changed("you may not push to this repository", access.reason)


def refused(reason: FleetError) -> error.Abort:
    """Return the abort for a copy that may not be written now."""
    return nothing_changed(reason_of(reason), reason.hint)


def _validate(repo: Any, tr: Any, base: Base, heads_before: frozenset[int]) -> None:
    prepared = append.append(repo, tr, base, heads_before)
    if prepared is None:
        return
    bound = binding.of(repo)
    bound.is_checked = False  # a second transaction under this lock has another base
    tr.addpostclose(_RECORD, lambda tr2: _record(tr2.hgfleet_accepted))
    append.commit_accepted(repo, tr, base, prepared, tr.hgfleet_accepted.message)
    tr.addfinalize(_FAULT, lambda _tr: bound.faults.reach("push-in-finalizer"))


def _record(accepted: Accepted) -> None:
    session_context.record(RecordedChange(accepted.message.seq, accepted.push_id, accepted.nodes))


def repository_class(base: Any) -> type:
    """Return the class that a repository of `base` becomes."""
    if base not in _class_by_base:
        _class_by_base[base] = _make_class(base)
    return _class_by_base[base]


def _make_class(base: Any) -> type:  # noqa: C901  # one class; each method is simple
    class FleetRepository(base):
        """Asks the log when it is locked, and lets no transaction pass it by."""

        def lock(self, wait: bool = True, steal_from: Any = None) -> Any:
            is_outermost = self._currentlock(self._lockref) is None
            held = super().lock(wait, steal_from)
            bound = binding.of(self)
            if is_outermost:
                bound.forget_lock()
            if is_outermost and wait and bound.is_writer:
                try:
                    recovery.check_under_lock(self.unfiltered())
                except BaseException:
                    held.release()
                    raise
            return held

        def _lock(self, vfs: Any, lockname: bytes, wait: bool, *args: Any, **named: Any) -> Any:
            take_link = functools.partial(super()._lock, vfs, lockname, False, *args, **named)
            if binding.of(self).options.role == "mirror":
                take_link = functools.partial(lock_guard.hold_without_link, vfs, lockname, *args, **named)
            return lock_guard.take(self.unfiltered(), vfs, lockname, wait, take_link)

        def transaction(self, desc: bytes, report: Any = None) -> Any:
            if self.currenttransaction() is not None:
                return super().transaction(desc, report)
            if binding.of(self).is_applying:
                tr = super().transaction(desc, _say_nothing)
                tr.__class__ = CopyTransaction
                return tr
            return begin(self.unfiltered(), super().transaction, desc)

        def _writejournal(self, desc: bytes) -> None:
            """Leave out `journal.desc`, which only a rollback reads."""

        def hook(self, name: bytes, throw: bool = False, **args: Any) -> Any:
            if binding.of(self).is_applying:
                return None
            return super().hook(name, throw, **args)

        def updatecaches(self, tr: Any = None, full: bool = False, caches: Any = None) -> None:
            if binding.of(self).is_applying:
                return
            if not session_context.put_off("caches", lambda: super(FleetRepository, self).updatecaches()):
                super().updatecaches(tr, full, caches)

        def cancopy(self) -> bool:
            return False  # a clone made by linking files would claim to be the fleet's

        def recover(self) -> bool:
            with self.lock():
                return True

        def rollback(self, dryrun: bool = False, force: bool = False) -> Any:
            raise error.Abort(b"rollback is refused: the log has the change; %s" % NOTHING_CHANGED.encode())

    return FleetRepository
