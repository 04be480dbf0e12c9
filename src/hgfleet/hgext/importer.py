"""Brings an existing repository into a new one of the fleet, as one push with everything that it has.

All changesets in their order, hidden and secret ones included, with their phases, bookmarks and the raw
obsmarkers, and with its pushlog where the source is a copy of a fleet; through the same transaction and the
same append as any other push, streamed from end to end.

Promises: the fleet has the whole repository or nothing of it; killed and repeated it starts clean, or finds
that all is there. The source is only read, and its own configuration is not.
Does not: create the repository that it fills, or merge into one that has something else.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mercurial import changegroup, error, hg, scmutil, util
from mercurial import ui as uimod
from mercurial.utils import urlutil

from hgfleet.errors import NOTHING_CHANGED, InDoubtError, RejectedError
from hgfleet.hgext import (
    binding,
    capture,
    copies,
    fingerprint,
    local_ui,
    markers,
    push_errors,
    recovery,
    sections,
    steps,
)
from hgfleet.hgext.capture import SOURCE
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.pushlog import Pushlog
from hgfleet.hgext.refusals import NotConfirmedAbort
from hgfleet.hgext.seqfile import SeqState
from hgfleet.model.ids import Node, RepoId
from hgfleet.model.payload import PastPush, PhaseChanges

if TYPE_CHECKING:
    from hgfleet.adapters.agent_client import LogAgentClient

# Requirements of what we cannot replicate, and what people call it.
UNSUPPORTED = {
    b"lfs": "LFS",
    b"largefiles": "the largefiles extension",
    b"narrowhg-experimental": "a narrow clone",
    b"treemanifest": "tree manifests",
    b"exp-remotefilelog-repo-req-1": "the remotefilelog extension",
}
_SECRET = 2
READING = (
    (b"extensions", local_ui.EXTENSION, b""),
    (b"hgfleet", b"role", b"mirror"),
    (b"hgfleet", b"host", b"import"),
)

Progress = Callable[[str, int, int | None], None]  # what is being done, how far, of how much


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import left."""

    state: SeqState
    changesets: int
    is_new: bool  # False: all of it was there already


def import_repository(
    copy: Copy, repository: RepoId, source: str, agent: LogAgentClient, progress: Progress
) -> Imported:
    """Fill the empty `repository` from a path or URL; `copy` is the primary's.

    Raises RejectedError `import.…` (nothing was changed), InDoubtError, or what recovery raises.
    """
    standing = recovery.bring_up_to_date(copy, repository, agent)
    if standing.problem is not None:
        raise standing.problem
    target = copy.repo
    binding.of(target).agent_client = agent
    with _opened_source(source, copy.directory) as origin:
        _check_supported(origin)
        if len(target.changelog):
            return _already_there(origin, target)
        _fill(origin, target, progress)
    return Imported(_state(target), len(target.changelog), True)


def _state(target: Any) -> SeqState:
    state = copies.state_of(target)
    if state is None:
        raise RejectedError("import.vanished", "the repository was deleted while it was being filled")
    return state


def _already_there(origin: Any, target: Any) -> Imported:
    """Accept a repetition after an import that succeeded without anybody being told."""
    is_same = list(_nodes(origin)) == list(_nodes(target)) and _bookmarks(origin) == _bookmarks(target)
    if not is_same:
        raise RejectedError(
            "import.not-empty",
            f"the repository already has other changesets; {NOTHING_CHANGED}",
            hint="import into a new one",
        )
    return Imported(_state(target), len(target.changelog), False)


def _nodes(repo: Any) -> Iterator[bytes]:
    return (repo.changelog.node(rev) for rev in repo.changelog)


# ---- the source


@contextmanager
def _opened_source(source: str, scratch: Path) -> Iterator[Any]:
    with ExitStack() as stack:
        path = source
        if urlutil.url(source.encode()).scheme not in {None, b"file"}:
            path = stack.enter_context(_cloned(source, scratch))
        stack.enter_context(_own_configuration_ignored())
        try:
            yield copies.open_repository(_reading_ui(), urlutil.urllocalpath(path.encode()).decode())
        except (error.RepoError, error.RequirementError) as exc:
            raise _refuse_source(exc) from exc


def _reading_ui() -> Any:
    """Return a configuration that reads plain repositories and copies of a fleet, and writes none."""
    ui = uimod.ui()
    for section, name, value in READING:
        ui.setconfig(section, name, value, b"hgfleet")
    return ui


def _refuse_source(exc: Exception) -> RejectedError:
    return RejectedError(
        "import.bad-source",
        f"the source is not a repository that can be read; {NOTHING_CHANGED}",
        reason=_text(exc),
    )


def _text(exc: Exception) -> str:
    first = exc.args[0] if exc.args else b""
    return first.decode("utf-8", "replace") if isinstance(first, bytes) else str(exc)


@contextmanager
def _cloned(url: str, scratch: Path) -> Iterator[str]:
    """Clone over the network first; the user's own configuration says how to get there."""
    with tempfile.TemporaryDirectory(prefix="import-", dir=scratch) as directory:
        target = os.path.join(directory, "source")
        try:
            hg.clone(uimod.ui.load(), {}, url.encode(), target.encode(), pull=True, update=False)
        except (error.Error, OSError) as exc:
            raise _refuse_source(exc) from exc
        yield target


@contextmanager
def _own_configuration_ignored() -> Iterator[None]:
    """Keep the source's hgrc from loading extensions and hooks into this process."""
    name = "HGRCSKIPREPO"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _check_supported(origin: Any) -> None:
    for requirement in sorted(origin.requirements):
        name = UNSUPPORTED.get(requirement)
        if name is not None:
            raise RejectedError(
                "import.unsupported", f"repositories that use {name} are not supported; {NOTHING_CHANGED}"
            )


# ---- the transaction


def _fill(origin: Any, target: Any, progress: Progress) -> None:
    with _reporting(target.ui, progress), target.ui.silent(error=True):
        try:
            with target.lock(), target.transaction(b"hgfleet-import") as tr:
                _fill_in_transaction(origin, target, tr)
        except NotConfirmedAbort as exc:
            raise InDoubtError("log.in-doubt", exc.message.decode()) from exc
        except error.Abort as exc:
            raise RejectedError(
                "import.refused", exc.message.decode(), hint=(exc.hint or b"").decode()
            ) from exc
        except push_errors.MISFITS as exc:
            raise RejectedError(
                "import.unfit", f"the source's data cannot be taken over; {NOTHING_CHANGED}", reason=str(exc)
            ) from exc


def _fill_in_transaction(origin: Any, target: Any, tr: Any) -> None:
    count = len(origin.changelog)
    if count:
        version = changegroup.safeversion(origin)
        chunks = util.chunkbuffer(capture.changegroup_chunks(origin, version, 0, count))
        unpacker = changegroup.getunbundler(version, chunks, b"UN")
        unpacker.apply(target, tr, SOURCE, b"hgfleet-import:", expectedtotal=count)
        sections.apply_phases(target, tr, PhaseChanges(tuple(_phases(origin, count))), 0)
        steps.take_over_pushes(tr, tuple(_pushes(origin, count)))
    sections.apply_bookmarks(target, tr, _bookmarks(origin))
    obsstore = origin.svfs.tryread(b"obsstore")
    if len(obsstore) > 1:
        markers.add_raw(target, tr, obsstore[0], obsstore[1:])


def _phases(origin: Any, count: int) -> Iterator[tuple[int, int]]:
    """Yield the phases as runs; what is only internal to the source becomes secret."""
    for phase, length in capture.added_phases(origin, 0, count):
        yield min(phase, _SECRET), length


def _pushes(origin: Any, count: int) -> Iterator[PastPush]:
    """Yield the pushes of a source that is a copy of a fleet; an odd pushlog is left behind."""
    with Pushlog(origin.sjoin(b"").decode()) as log:
        pushes = list(log.range(1, len(log)))
    if pushes and pushes[-1].end_rev == count:
        for push in pushes:
            yield PastPush(push.end_rev - push.first_rev, push.at, push.pusher)


def _bookmarks(repo: Any) -> dict[str, Node | None]:
    lines = (line.partition(b" ") for line in fingerprint.bookmark_lines(repo))
    return {name.decode("utf-8"): Node(node.decode()) for node, _space, name in lines}


@contextmanager
def _reporting(ui: Any, progress: Progress) -> Iterator[None]:
    """Send what Mercurial would show as progress bars to `progress`."""

    def update(topic: bytes, position: int | None, _item: bytes, _unit: bytes, total: int | None) -> None:
        if position is not None:
            progress(topic.decode("utf-8", "replace"), position, total)

    def make(topic: bytes, unit: bytes = b"", total: int | None = None) -> Any:
        return scmutil.progress(ui, update, topic, unit, total)

    before = ui.makeprogress
    ui.makeprogress = functools.wraps(before)(make)
    try:
        yield
    finally:
        del ui.makeprogress
