"""What each command of the wire protocol needs, asked before the command takes its payload.

Promises: a command that is not in this table is not served, alone or inside `batch`, whoever registered it
(A3); a write is refused before the client sends its data; a refusal is one line at the client, which then
exits non-zero. A session that may only read never reaches the code that writes.
Does not: know who may write, or how many may read (session_worker tells it through `check`).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from mercurial import wireprotoserver, wireprototypes, wireprotov1server

from hgfleet.errors import FleetError
from hgfleet.hgext.refusals import cut_texts_of_errors
from hgfleet.model.client_line import client_line


class Need(Enum):
    """What a command needs."""

    READ = "read"
    TRANSFER = "transfer"  # a read that sends history, and so takes one of a few places
    WRITE = "write"


NEED_BY_COMMAND: dict[bytes, Need] = {
    b"batch": Need.READ,
    b"between": Need.READ,
    b"branchmap": Need.READ,
    b"branches": Need.READ,
    b"capabilities": Need.READ,
    b"changegroup": Need.TRANSFER,
    b"changegroupsubset": Need.TRANSFER,
    b"clonebundles": Need.READ,
    b"clonebundles_manifest": Need.READ,
    b"getbundle": Need.TRANSFER,
    b"heads": Need.READ,
    b"hello": Need.READ,
    b"known": Need.READ,
    b"listkeys": Need.READ,
    b"lookup": Need.READ,
    b"protocaps": Need.READ,
    b"pushkey": Need.WRITE,
    b"stream_out": Need.TRANSFER,
    b"unbundle": Need.WRITE,
}
# Mercurial's batch can carry what answers with plain bytes and reads no payload.
_IN_BATCH = {name for name, need in NEED_BY_COMMAND.items() if need is Need.READ and name != b"batch"} | {
    b"pushkey"
}

Check = Callable[[Need], None]  # raises FleetError to refuse
AfterWrite = Callable[[], None]


def guard_commands(check: Check, after_write: AfterWrite) -> None:
    """Have every command of this process pass `check` first, and each write followed by `after_write`."""
    for name in list(wireprotov1server.commands):
        need = NEED_BY_COMMAND.get(name)
        if need is None:
            del wireprotov1server.commands[name]
        else:
            entry = wireprotov1server.commands[name]
            entry.func = _guarded(entry.func, need, check, after_write)
    batch = wireprotov1server.commands[b"batch"]
    batch.func = _plain_batch(batch.func)
    wireprotoserver._sshv1respondooberror = _respond_out_of_band
    cut_texts_of_errors()


def _respond_out_of_band(fout: Any, ferr: Any, message: bytes) -> None:
    """Do as Mercurial does but for a line with a single dash, which clients show and none looks for."""
    ferr.write(message + b"\n")
    ferr.flush()
    fout.write(b"\n")
    fout.flush()


def _guarded(func: Any, need: Need, check: Check, after_write: AfterWrite) -> Any:
    def guarded(repo: Any, proto: Any, *args: Any) -> Any:
        try:
            check(need)
        except FleetError as refusal:
            return wireprototypes.ooberror(client_line(refusal).encode())
        answer = func(repo, proto, *args)
        if need is Need.WRITE:
            after_write()
        return answer

    return guarded


def _plain_batch(func: Any) -> Any:
    """Refuse a batch that names anything else than what may be in one, before any of it is run."""

    def batch(repo: Any, proto: Any, commands: bytes, others: Any) -> Any:
        names = {command.partition(b" ")[0] for command in commands.split(b";")}
        if not names <= _IN_BATCH:
            return wireprototypes.ooberror(b"abort: a command in this batch is not served here")
        return func(repo, proto, commands, others)

    return batch
