"""The apply worker: a long-lived process that applies messages to copies, asked over pipes 0 and 1.

docs/design/local-protocols.md lists the operations. The applier starts it, feeds it one request at a time and
kills it when it dies or hangs; several of them work on different copies at once.

Promises: an answer comes after what it tells is on disk; whatever a crash left is finished or undone before
anything is applied; every applied seq that may be exposed has a view; memory does not grow with use.
Does not: talk to the log agent, choose what to apply, expose, or run hooks and checks.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mercurial import error

from hgfleet.adapters import view_files
from hgfleet.errors import FleetError, InvariantError, PoisonError, TransientError
from hgfleet.hgext import apply, binding, generations, journal, local_ui, sections, snapshot, state_digest
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.push_errors import MISFITS
from hgfleet.hgext.seqfile import SeqState
from hgfleet.hgext.views import make_view
from hgfleet.model.frames import Frame, FrameDecoder, encode_frame, error_header
from hgfleet.model.ids import Digest, Epoch, Offset, Partition, Position
from hgfleet.model.message import Message, decode_message

MAX_OPEN_COPIES = 64
BACKGROUND_NICENESS = 10
COLLECT_EVERY = 16  # closed copies; repository objects are full of cycles
_CHUNK_BYTES = 1024 * 1024

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApplyWorkerOptions:
    """What a worker needs to know; the rest comes with each request."""

    host: str
    allow_faults: bool = False


def run_apply_worker(options: ApplyWorkerOptions) -> None:
    """Serve requests on the process's standard input and output until the input ends."""
    source, target = _take_pipes()
    ui = local_ui.load_ui(
        local_ui.LocalOptions(role="mirror", host=options.host, allow_faults=options.allow_faults)
    )
    serve(ApplyWorker(ui), source, target)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to ourselves: what anything prints goes to standard error."""
    source, target = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return os.fdopen(source, "rb", buffering=0), os.fdopen(target, "wb")


def serve(worker: ApplyWorker, source: BinaryIO, target: BinaryIO) -> None:
    """Answer the frames of `source` on `target`, one after another."""
    decoder = FrameDecoder()
    while data := source.read(_CHUNK_BYTES):
        for frame in decoder.feed(data):
            target.write(encode_frame(worker.answer(frame)))
            target.flush()


class ApplyWorker:
    """The operations, over the copies that were used last."""

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self._copies: OrderedDict[str, Copy] = OrderedDict()
        self._closed = 0
        self._operations: dict[str, Callable[[Frame], Answer]] = {
            "apply": self._apply,
            "inspect": self._inspect,
            "adopt": self._adopt,
            "digest": self._digest,
            "snapshot": self._snapshot,
            "restore": self._restore,
            "forget": self._forget,
        }

    def answer(self, request: Frame) -> Answer:
        """Do what the frame asks and return the answer's header; failures are answers, too."""
        operation = self._operations.get(str(request.header.get("op")))
        if operation is None:
            return error_header(InvariantError("worker.bad-request", "an unknown operation"))
        try:
            return {"ok": True, **operation(request)}
        except FleetError as failure:
            return error_header(failure)
        except (error.Abort, error.LockError, OSError) as failure:
            return error_header(
                TransientError("worker.failed", "the copy could not be written", why=repr(failure))
            )

    # ---- operations

    def _apply(self, request: Frame) -> Answer:
        header = request.header
        copy = self._open(header)
        with _forgotten_when_failing(copy):
            self._settle(copy)
            state = apply.apply_messages(
                copy,
                Partition(header["partition"]),
                _parse_messages(header["messages"], request.body),
                _blobs_in(Path(header["blob_directory"])),
                _keep_view,
                is_each_alone=bool(header["snapshot_each"]),
            )
            copy.viewed = state
        return {
            "applied_seq": state.seq,
            "digest": state.digest,
            "fingerprint": state.fingerprint.to_json(),
            "pushes": state.fingerprint.pushes,
        }

    def _inspect(self, request: Frame) -> Answer:
        copy = self._open(request.header)
        with _forgotten_when_failing(copy):
            self._settle(copy)
        return _describe(copy.state)

    def _adopt(self, request: Frame) -> Answer:
        """Make the generation in `built`, which nobody uses, the one in use here; remove the others."""
        copy = self._open(request.header)
        built = Path(request.header["built"])
        self._drop(str(built))
        root = generations.current_root(built)
        if root is not None and root.is_dir():
            generations.create_next(copy.directory, lambda target: _move(root, target))
        copy.forget()
        shutil.rmtree(built, ignore_errors=True)
        generations.drop_others(copy.directory)
        return _describe(copy.state)

    def _digest(self, request: Frame) -> Answer:
        copy = self._open(request.header)
        try:
            repo = copy.repo
        except LookupError as missing:
            raise InvariantError("worker.no-repository", "there is no repository here") from missing
        with _locked(repo):
            state = copy.state
            digest = state_digest.full_digest(repo)
        return {"state_digest": digest, "seq": state.seq if state else 0}

    def _snapshot(self, request: Frame) -> Answer:
        """Write a snapshot into a new file; from then on this process gives way to others."""
        os.setpriority(os.PRIO_PROCESS, 0, BACKGROUND_NICENESS)
        copy = self._open(request.header)
        with _forgotten_when_failing(copy), _misfits_are_damage():
            made = snapshot.make(copy, Path(request.header["target"]))
        payload = {"size_bytes": made.blob.size_bytes, "sha256": made.blob.sha256, "is_inline": False}
        return {"header": made.header.to_json(), "payload": payload}

    def _restore(self, request: Frame) -> Answer:
        """Build the copy from a snapshot's file and put it in use, with a view of its seq."""
        header = request.header
        copy = self._open(header)
        expected = (int(header["seq"]), Digest(header["digest"]))
        with _forgotten_when_failing(copy):
            state = snapshot.restore(copy, expected, Path(header["source"]))
            repo = copy.repo
            with _locked(repo):
                _keep_view(repo, state)
        return _describe(copy.state)

    def _forget(self, request: Frame) -> Answer:
        self._drop(str(request.header["directory"]))
        return {}

    # ---- copies

    def _open(self, header: dict[str, Any]) -> Copy:
        name = str(header["directory"])
        copy = self._copies.pop(name, None) or Copy(self._ui, Path(name))
        self._copies[name] = copy
        if len(self._copies) > MAX_OPEN_COPIES:
            self._drop(next(iter(self._copies)))
        return copy

    def _drop(self, name: str) -> None:
        if self._copies.pop(name, None) is None:
            return
        self._closed += 1
        if self._closed % COLLECT_EVERY == 0:
            gc.collect()

    @staticmethod
    def _settle(copy: Copy) -> None:
        """Finish what a crash interrupted: an open transaction is rolled back, a missing view made."""
        if not copy.is_present:
            return
        repo = copy.repo
        state = copy.state
        if state is None:
            raise PoisonError("seqfile.missing", "the repository has lost its seq file")
        is_viewed = copy.viewed == state or view_files.is_viewed(Path(os.fsdecode(repo.path)), state.seq)
        if is_viewed and not repo.svfs.exists(b"journal"):
            copy.viewed = state
            return
        with _locked(repo):
            journal.recover_abandoned(repo)
            settled = copy.state
            if settled is not None:
                _keep_view(repo, settled)


def _move(root: Path, target: Path) -> None:
    root.rename(target)


@contextmanager
def _locked(repo: Any) -> Iterator[None]:
    with binding.of(repo).applying(), repo.lock():
        yield


@contextmanager
def _misfits_are_damage() -> Iterator[None]:
    """Class what Mercurial stumbles over in a copy that changes under it, is gone or is damaged."""
    try:
        yield
    except (LookupError, *MISFITS) as failure:
        raise TransientError("worker.failed", "the copy could not be read", why=repr(failure)) from failure


@contextmanager
def _forgotten_when_failing(copy: Copy) -> Iterator[None]:
    """Let go of an object that saw half of something."""
    try:
        yield
    except BaseException:
        copy.forget()
        raise


def _keep_view(repo: Any, state: SeqState) -> None:
    make_view(repo, state.seq, state.fingerprint, state.settings)


def _parse_messages(items: list[dict[str, int]], body: bytes) -> list[tuple[Message, Position]]:
    messages = []
    start = 0
    for item in items:
        end = start + item["size_bytes"]
        position = Position(Offset(item["offset"]), Epoch(item["epoch"]))
        messages.append((decode_message(body[start:end]), position))
        start = end
    return messages


def _blobs_in(directory: Path) -> sections.FetchBlob:
    """Find blobs where the applier has put what the messages name."""

    @contextmanager
    def fetch(sha256: Digest) -> Iterator[Path]:
        yield directory / sha256

    return fetch


def _describe(state: SeqState | None) -> Answer:
    if state is None:
        return {"seq": 0, "digest": "", "offset": 0, "epoch": 0, "fingerprint": None}
    return {
        "seq": state.seq,
        "digest": state.digest,
        "offset": state.position.offset,
        "epoch": state.position.epoch,
        "fingerprint": state.fingerprint.to_json(),
    }
