"""Has a repository's bundle files made by a process of its own, in a directory that only it uses.

Promises: one making per repository and host at a time; a directory that a killed one left is removed by the
next that looks; the process ends with whoever asked for it; room on the disk is looked for before.
Does not: publish, or decide which types.
Format: hgext.bundle_process.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgfleet.adapters.local_client import parse_error
from hgfleet.adapters.processes import PIPE, Program, start
from hgfleet.bundles.publishing import FinishedFile
from hgfleet.errors import InDoubtError, RejectedError, TransientError
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.ids import Digest, Node, RepoId, Seq

_ROOM_BYTES = 64 * 1024 * 1024
_STREAMED = frozenset({BundleType.PACKED1, BundleType.STREAM_V2})
Show = Callable[[BundleType, int], None]  # of which type how many bytes were written


@dataclass(frozen=True, slots=True)
class MakingOptions:
    """How files are made on this host."""

    scratch: Path  # <host>/spool/bundles
    command: tuple[str, ...]  # runs hgext.bundle_process on its standard input and output
    environment: Mapping[str, str]
    threads: int = 1
    zstd_level: int = 3


@dataclass(frozen=True, slots=True)
class MadeFiles:
    """What was made, and of which state."""

    seq: Seq
    tip: Node
    changesets: int
    files: tuple[FinishedFile, ...]


def nothing_shown(_kind: BundleType, _bytes: int) -> None:
    """Show no progress."""


@contextmanager
def made_files(
    options: MakingOptions,
    repository: RepoId,
    root: Path,
    kinds: frozenset[BundleType],
    show: Show = nothing_shown,
) -> Iterator[MadeFiles | None]:
    """Make the files for as long as the block lasts; None: nothing of the repository is public.

    Raises RejectedError `bundles.busy` while another makes them here, TransientError, or InDoubtError
    `bundles.maker-died`.
    """
    with _own_directory(options.scratch, repository) as directory:
        _check_room(directory, root, kinds)
        request = {
            "root": str(root),
            "directory": str(directory),
            "kinds": sorted(kind.value for kind in kinds),
            "threads": options.threads,
            "zstd_level": options.zstd_level,
        }
        yield _parse(_run(options, request, show))


def clean_scratch(scratch: Path) -> None:
    """Remove what killed makings left behind, and nothing that is in use."""
    for directory in scratch.iterdir() if scratch.is_dir() else ():
        with suppress(RejectedError, OSError), _locked(directory):
            shutil.rmtree(directory)


@contextmanager
def _own_directory(scratch: Path, repository: RepoId) -> Iterator[Path]:
    """Give an empty directory that nobody else has."""
    outer = scratch / repository
    outer.mkdir(parents=True, exist_ok=True)
    with _locked(outer):
        directory = outer / "files"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(outer, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RejectedError("bundles.busy", "bundles of this repository are being made here") from error
    finally:
        os.close(descriptor)


def _check_room(directory: Path, root: Path, kinds: frozenset[BundleType]) -> None:
    """Refuse to start what the disk would not take: no type is larger than the store, streams need a copy."""
    store_bytes = sum(path.stat().st_size for path in (root / ".hg" / "store").rglob("*") if path.is_file())
    needed = _ROOM_BYTES + store_bytes * (len(kinds) + bool(kinds & _STREAMED))
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise TransientError(
            "bundles.no-room",
            "the disk has no room for the bundles",
            hint="make room where the host's spool directory is",
            free_bytes=free,
            needed_bytes=needed,
        )


def _run(options: MakingOptions, request: dict[str, Any], show: Show) -> dict[str, Any]:
    """Run the process to its end and return its answer."""
    child = start(Program(options.command, environment=options.environment, stdin=PIPE, stdout=PIPE))
    try:
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        for line in map(json.loads, child.stdout):
            if "kind" in line:
                show(BundleType(line["kind"]), line["bytes"])
            elif line.get("ok"):
                return dict(line)
            else:
                raise parse_error(line.get("error"))
    except BrokenPipeError as error:
        raise _died() from error
    finally:
        child.stop(1.0)
        child.close()
    raise _died()


def _died() -> InDoubtError:
    return InDoubtError("bundles.maker-died", "the process that makes bundles ended without an answer")


def _parse(answer: Mapping[str, Any]) -> MadeFiles | None:
    bundled = answer["bundled"]
    if bundled is None:
        return None
    files = tuple(_parse_file(file) for file in bundled["files"])
    return MadeFiles(Seq(bundled["seq"]), Node(bundled["tip"]), bundled["changesets"], files)


def _parse_file(fields: Mapping[str, Any]) -> FinishedFile:
    return FinishedFile(
        kind=BundleType(fields["kind"]),
        path=Path(fields["path"]),
        spec=fields["spec"],
        size_bytes=fields["size_bytes"],
        sha256=Digest(fields["sha256"]),
    )
