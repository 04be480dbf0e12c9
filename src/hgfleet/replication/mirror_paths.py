"""The catalogue on a mirror: messages wait until their watermark, then their paths are served at once.

Promises: what is served is the catalogue as of one seq, which never falls, also over restarts, while the log
is the same. Where that was lost or cut, paths that it has never heard of stay served.
Does not: read messages or know watermarks (applier).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from hgfleet.adapters.agent_answers import LoggedMessage
from hgfleet.adapters.mirror_catalogue import MirrorCatalogue
from hgfleet.errors import PoisonError
from hgfleet.model.catalogue import Catalogue
from hgfleet.model.ids import NO_DIGEST, RepoId, RepoPath, Seq
from hgfleet.model.message import Kind, Message, decode_message
from hgfleet.replication.mirror_lanes import CatalogueRead, CatalogueTask, Failed

PAUSE_SECONDS = 0.2  # after a failed read
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Waiting:
    seq: Seq
    message: Message
    logged: LoggedMessage


class MirrorPaths:
    """The catalogue as served, and what was read beyond it."""

    def __init__(self, file: MirrorCatalogue) -> None:
        self._file = file
        self._catalogue = Catalogue()  # folded up to what is served, or is to be served next
        self._waiting: deque[_Waiting] = deque()
        self._gone: set[RepoPath] = set()  # changes that the file does not have yet
        self._bound: dict[RepoPath, RepoId] = {}
        self._is_file_right = False  # whether the file says what the catalogue does
        self._is_reading = False
        self._not_before = 0.0
        self.exposed = file.exposed_seq()
        self._exposed_digest = file.exposed_digest()
        self._is_end_known = False
        self.is_restored = False  # folded again as far as it was served
        self.read_seq = Seq(0)
        self.last = Seq(0)  # the end of the catalogue, as the log agent says
        self.parked = ""  # why nothing further can be read

    @property
    def applied(self) -> Seq:
        """Up to where it may be served; while it is read again that is what is served."""
        return self.read_seq if self.is_restored else max(self.read_seq, self.exposed)

    def begin_again(self, last: Seq) -> None:
        """Read it anew, up to `last`: who connects to a log agent may find another log, or less."""
        self._catalogue = Catalogue()
        self._waiting.clear()
        self._gone.clear()
        self._bound.clear()
        self._is_file_right = self.is_restored = False
        self.read_seq, self.last, self.parked = Seq(0), last, ""
        self._is_end_known = True
        self._restore_if_read()

    @property
    def is_read(self) -> bool:
        """Whether it was read to its end, or can't be."""
        return self.read_seq >= self.last or bool(self.parked)

    def next_task(self, now: float) -> CatalogueTask | None:
        """Return what to read next, once: until it was answered there is nothing more to do."""
        if self.is_read or self._is_reading or now < self._not_before:
            return None
        self._is_reading = True
        return CatalogueTask(self.read_seq)

    def settle(self, outcome: CatalogueRead | Failed, now: float) -> None:
        """Go on from what came of the task."""
        self._is_reading = False
        if isinstance(outcome, CatalogueRead):
            self.take(outcome.batch.messages)
        else:
            self._not_before = now + PAUSE_SECONDS

    def take(self, messages: tuple[LoggedMessage, ...]) -> None:
        """Note messages that follow what was read; those served before a restart are only folded."""
        for logged in messages:
            if self.parked or logged.seq != self.read_seq + 1:
                return
            try:
                self._waiting.append(_Waiting(logged.seq, decode_message(logged.wire), logged))
            except PoisonError as error:
                self.parked = f"{error.code}: {error}"
                return
            self.read_seq = logged.seq
        self._restore_if_read()

    def expose(self, up_to: Seq, is_showable: Callable[[RepoId], bool]) -> bool:
        """Serve the paths as of `up_to`, as far as read; return whether that changed anything.

        Stops before a new path whose repository is not `is_showable` yet. Raises TransientError when the file
        can't be written; the next call does it then.
        """
        if not self.is_restored:
            return False  # not read yet what is served already
        while self._waiting and self._waiting[0].seq <= up_to and self._is_next_showable(is_showable):
            self._fold()
        is_changed = self._catalogue.seq > self.exposed
        if is_changed or not self._is_file_right:
            self._write()
        return is_changed

    def is_needed(self, repository: RepoId) -> bool:
        """Whether a path leads to the repository, or will once what was read is served."""
        if not self.is_restored or self._catalogue.path_of(repository) is not None:
            return True
        if self._catalogue.seq > self.exposed:
            return True
        return any(_repository_of(item.message) == repository for item in self._waiting)

    def path_of(self, repository: RepoId) -> RepoPath | None:
        """Return the path that leads to it here."""
        return self._catalogue.path_of(repository)

    def _restore_if_read(self) -> None:
        """Fold up to what was served before, as soon as that or all there is was read."""
        is_enough = self.read_seq >= self.exposed or (self._is_end_known and self.read_seq >= self.last)
        if self.is_restored or not is_enough:
            return
        while self._waiting and self._waiting[0].seq <= self.exposed:
            self._fold()
        self.is_restored = True
        seq, digest = self._catalogue.seq, self._catalogue.digest
        if seq < self.exposed or self._exposed_digest not in {NO_DIGEST, digest}:
            _log.error("applier.catalogue-behind", exposed=self.exposed, log=seq)
            self.exposed = seq  # of another log

    def _write(self) -> None:
        """Write the changes; all of it the first time, for the run before may have ended in the middle."""
        seq, digest = self._catalogue.seq, self._catalogue.digest
        if self._is_file_right:
            self._file.expose(self._gone, self._bound, seq, digest)
        else:
            bound = {b.path: b.repository for b in self._catalogue.bindings()}
            self._file.replace(self._lost() | bound, seq, digest)
        self.exposed, self._exposed_digest, self._is_file_right = seq, digest, True
        self._gone.clear()
        self._bound.clear()

    def _lost(self) -> dict[RepoPath, RepoId]:
        """Return what is served of repositories that this log has never heard of: another had them."""
        served = self._file.paths().items()
        return {path: r for path, r in served if self._catalogue.partition_of(r) is None}

    def _is_next_showable(self, is_showable: Callable[[RepoId], bool]) -> bool:
        message = self._waiting[0].message
        return message.envelope.kind is not Kind.BIND or is_showable(_repository_of(message))

    def _fold(self) -> None:
        item = self._waiting.popleft()
        repository = _repository_of(item.message)
        before = self._catalogue.path_of(repository)
        self._catalogue.take(item.message, item.logged.position.offset)
        after = self._catalogue.path_of(repository)
        if before is not None and before != after:
            self._gone.add(before)
            self._bound.pop(before, None)
        if after is not None:
            self._gone.discard(after)
            self._bound[after] = repository


def _repository_of(message: Message) -> RepoId:
    return RepoId(str(message.envelope.body.get("repository", "")))
