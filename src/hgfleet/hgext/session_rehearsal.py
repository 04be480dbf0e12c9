"""A push that nobody makes, so that a session has behind it what the first push of a process costs.

A forked child shares its parent's memory until it writes to it, and Python writes wherever it looks: the
pages that a push touches first are copied one by one, which takes longer than the push. And Python rewrites
the code of a function when it has run it some times, which no child lives long enough for. So the parent runs
a push to its end a few times, and each child once before it gets its request.

The push ends where the log would take it: here it takes nothing, and the transaction is undone.

Promises: nothing of it is left, whenever a process that does it is killed; no agent, fault point or
repository of the fleet is reached. Whoever finds another at it goes on without.
Does not: decide who rehearses (session_preload, session_jobs).
"""

from __future__ import annotations

import io
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from mercurial import bundle2, changegroup, context, discovery, encoding, error, wireprotoserver
from mercurial.node import hex as to_hex

from hgfleet.adapters.agent_answers import AcceptedMessage, AppendRequest, LastMessage
from hgfleet.errors import TransientError
from hgfleet.hgext import binding, copies, creation, generations
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.ids import Digest, Epoch, Offset, Partition, Position, RepoId, Seq
from hgfleet.runtime.faults import NO_FAULTS

RUNS = 9  # of the parent: Python rewrites a function that was called eight times
_STATE = SeqState(
    RepoId("0" * 31 + "1"), Partition(0), Seq(1), Digest("1" * 64), Position(Offset(1), Epoch(1))
)
_CAPABILITIES = b"HG20,bundle2=HG20%0Achangegroup%3D01%2C02%0Aphases%3Dheads%0Abookmarks%0Alistkeys"
_READS = (
    b"hello\n"
    b"between\npairs 81\n" + b"0" * 40 + b"-" + b"0" * 40 + b"protocaps\ncaps 15\npartial-pull ab"
    b"batch\n* 0\ncmds 19\nheads ;known nodes="
    b"listkeys\nnamespace 6\nphases"
    b"listkeys\nnamespace 9\nbookmarks"
    b"branchmap\n"
) + b"getbundle\n* 1\nbundlecaps %d\n%s" % (len(_CAPABILITIES), _CAPABILITIES)


class _FullLog:
    """Stands for the log agent: knows the repository, and takes nothing."""

    def last(self, _repository: RepoId) -> LastMessage:
        """Return the end of the only sequence."""
        state = _STATE
        epoch = state.position.epoch
        return LastMessage(state.seq, state.digest, state.position, state.partition, False, False, epoch, "")

    def append(self, _request: AppendRequest, _seconds: float, _on_handed_over: Any) -> AcceptedMessage:
        """Refuse a change."""
        raise TransientError("log.unavailable", "nobody makes this push")


class Rehearsal:
    """A repository below a directory of its own, and what a client would say to push to it."""

    def __init__(self, ui: Any, directory: Path, source: Any) -> None:
        """Make the repository; `source` is an empty plain one, and gets the changeset. Raises OSError."""
        self._ui = ui.copy()
        self._ui.setconfig(b"ui", b"timeout", b"0", b"hgfleet")
        self._root = generations.create_next(directory, lambda root: creation.create_repository(root, _STATE))
        self._said = _READS + _unbundle(_make_bundle(source)) + b"\n"

    def run(self) -> None:
        """Open the repository and answer; where that fails, nothing is rehearsed."""
        with suppress(OSError, error.Error):
            repo = copies.open_repository(self._ui, self._root)
            bound = binding.of(repo)
            bound.agent_client, bound.faults = _FullLog(), NO_FAULTS  # type: ignore[assignment]
            answer(repo.ui, repo.filtered(b"served"), self._said)


def answer(ui: Any, repo: Any, said: bytes) -> None:
    """Answer a client's words to nobody."""
    for one in (ui, repo.ui):
        one.pushbuffer(error=True)
    try:
        wireprotoserver._runsshserver(ui, repo, io.BytesIO(said), io.BytesIO(), threading.Event())
    finally:
        for one in (ui, repo.ui):
            one.popbuffer()


def _make_bundle(source: Any) -> bytes:
    node = _commit(source)
    outgoing = discovery.outgoing(source, missingroots=[node], ancestorsof=[node])
    changes = changegroup.makechangegroup(source, outgoing, b"02", b"push")
    bundler = bundle2.bundle20(source.ui)
    bundler.newpart(b"changegroup", data=changes.getchunks()).addparam(b"version", b"02")
    return b"".join(bundler.getchunks())


def _unbundle(bundle: bytes) -> bytes:
    heads = to_hex(b"force")
    return b"unbundle\nheads %d\n%s%d\n%s0\n" % (len(heads), heads, len(bundle), bundle)


def _commit(repo: Any) -> bytes:
    def content(_repo: Any, change: Any, path: bytes) -> Any:
        return context.memfilectx(repo, change, path, b"warm\n")

    parents = (repo[b"null"].node(), None)
    change = context.memctx(repo, parents, encoding.tolocal(b"warm up"), [b"file"], content, user=b"hgfleet")
    with repo.wlock(), repo.lock():
        node: bytes = repo.commitctx(change)
    return node
