"""Makes the files of a repository's clone bundles: what is public and exposed, in every format asked for.

The changegroup of the newer formats is generated once and compressed into all of them at the same time, each
in a thread of its own. The streaming formats copy whole stores, drafts and secrets included; they are made
from a scratch repository that has the public, exposed changesets and nothing else (hgext.scratch_copy).

Promises: a file that is returned is complete, and its size and SHA-256 are of the bytes on disk; no changeset
that is not public, or not exposed, is in any of them; whatever fails leaves no file behind in `directory`.
Does not: decide which bundles are wanted, or publish them.
Formats: mercurial/help/internals/bundles.txt and bundle2.txt of Mercurial 7.2.
"""

from __future__ import annotations

import hashlib
import queue
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mercurial import bundle2, changegroup, discovery, streamclone, util

from hgfleet.hgext.scratch_copy import count_changesets, head_nodes, make_scratch_copy
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.ids import Digest, Node, Seq

_CHANGEGROUP_OPTIONS = {b"cg.version": b"02", b"tagsfnodescache": True, b"revbranchcache": True}
_CHUNK_BYTES = 64 * 1024
_QUEUED_CHUNKS = 64  # between the one that generates and each one that compresses
_ZSTD_MAX_LEVEL = 20
_LOOK_SECONDS = 0.2  # how late a compressor that has failed may be noticed
_END = None  # in a compressor's queue: nothing follows

Report = Callable[[str, int], None]  # the type, and how many bytes of it were written


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One finished file."""

    kind: BundleType
    path: Path
    spec: str
    size_bytes: int
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Bundled:
    """What was made, and of which state: `tip` is the last public changeset in revision order."""

    seq: Seq
    tip: Node
    changesets: int
    files: tuple[BundleFile, ...]


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """How to make them; `stream_format` are Mercurial's `format` settings of what old clients may copy."""

    kinds: frozenset[BundleType]
    threads: int = 1  # of the zstd compressor
    zstd_level: int = 3  # of the type that is not compressed as hard as possible
    stream_format: Mapping[str, bool | str] | None = None


def make_bundle_files(
    repo: Any, directory: Path, options: BundleOptions, report: Report = lambda _kind, _bytes: None
) -> Bundled | None:
    """Make the files in the empty `directory` from an exposed repository; None: nothing of it is public.

    Raises OSError when the disk is full; the directory is empty again then.
    """
    public = repo.unfiltered().filtered(b"immutable")
    heads = public.changelog.headrevs()
    if heads in ([], [-1]):  # all of it is filtered, or there is nothing
        return None
    with _nothing_left_behind(directory):
        files = _changegroups(public, directory, options, report)
        files += _streams(public, directory, options, report)
    tip = public[max(heads)]
    order = list(BundleType)
    files.sort(key=lambda file: order.index(file.kind))
    return Bundled(
        Seq(repo.hgfleet_view.seq), Node(tip.hex().decode()), count_changesets(public), tuple(files)
    )


@contextmanager
def _nothing_left_behind(directory: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


# ---- a file while it is written


class _Writer:
    """Writes one file and knows its digest."""

    def __init__(self, kind: BundleType, directory: Path, report: Report) -> None:
        self._kind = kind
        self._path = directory / f"{kind.value}.hg"
        self._report = report
        self._digest = hashlib.sha256()
        self._size_bytes = 0

    def write_all(self, chunks: Iterable[bytes], spec: str) -> BundleFile:
        """Write the chunks and return the finished file."""
        with self._path.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
                self._digest.update(chunk)
                self._size_bytes += len(chunk)
                self._report(self._kind.value, self._size_bytes)
        digest = Digest(self._digest.hexdigest())
        return BundleFile(self._kind, self._path, spec, self._size_bytes, digest)


# ---- changegroups


@dataclass(frozen=True, slots=True)
class _Compression:
    engine: bytes  # as bundles name it
    spec: str
    header: bytes
    options: Mapping[bytes, int] = field(default_factory=dict)


def _second_version_header(engine: bytes) -> bytes:
    parameter = b"Compression=" + engine
    return b"HG20" + len(parameter).to_bytes(4, "big") + parameter


def _second_version_compressions(options: BundleOptions) -> dict[BundleType, _Compression]:
    threads = {b"threads": options.threads} if options.threads > 1 else {}
    zstd, gzip = _second_version_header(b"ZS"), _second_version_header(b"GZ")
    known = {
        BundleType.ZSTD_MAX: _Compression(b"ZS", "zstd-v2", zstd, {b"level": _ZSTD_MAX_LEVEL, **threads}),
        BundleType.ZSTD: _Compression(b"ZS", "zstd-v2", zstd, {b"level": options.zstd_level, **threads}),
        BundleType.GZIP_V2: _Compression(b"GZ", "gzip-v2", gzip),
    }
    return {kind: compression for kind, compression in known.items() if kind in options.kinds}


def _changegroups(public: Any, directory: Path, options: BundleOptions, report: Report) -> list[BundleFile]:
    outgoing = discovery.outgoing(public, ancestorsof=head_nodes(public))
    files: list[BundleFile] = []
    if second := _second_version_compressions(options):
        bundle = bundle2.bundle20(public.ui)
        bundle2._addpartsfromopts(public, bundle, b"bundle", outgoing, _CHANGEGROUP_OPTIONS)
        files += _compress(bundle._getcorechunk(), second, directory, report)
    if BundleType.GZIP_V1 in options.kinds:
        first = {BundleType.GZIP_V1: _Compression(b"GZ", "gzip-v1", b"HG10GZ")}
        group = changegroup.makechangegroup(public, outgoing, b"01", b"bundle")
        files += _compress(_joined(group.getchunks()), first, directory, report)
    return files


def _compress(
    chunks: Iterable[bytes], compressions: Mapping[BundleType, _Compression], directory: Path, report: Report
) -> list[BundleFile]:
    """Generate the chunks once; every compressor takes them from a queue of its own."""
    with ThreadPoolExecutor(len(compressions), "bundle") as pool:
        tasks = [
            _Compressor(pool, _Writer(kind, directory, report), how) for kind, how in compressions.items()
        ]
        try:
            for chunk in chunks:
                for task in tasks:
                    task.feed(chunk)
        finally:  # or the threads would wait for ever
            for task in tasks:
                task.end()
        return [task.result() for task in tasks]


def _joined(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Make larger chunks of small ones, which cost more to hand over than to compress."""
    waiting: list[bytes] = []
    size_bytes = 0
    for chunk in chunks:
        waiting.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= _CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size_bytes = [], 0
    yield b"".join(waiting)


class _Compressor:
    """Compresses what it is fed into one file, in a thread; the libraries let others run meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor, writer: _Writer, how: _Compression) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED_CHUNKS)
        chunks = iter(self._queue.get, _END)
        body = util.compengines.forbundletype(how.engine).compressstream(chunks, how.options)
        self._file = pool.submit(writer.write_all, _prefixed(how.header, body), how.spec)

    def feed(self, chunk: bytes | None) -> None:
        """Hand on a chunk; blocks while the compressor is behind, and not once it has failed."""
        while not self._file.done():
            try:
                self._queue.put(chunk, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return

    def end(self) -> None:
        """Tell that nothing follows."""
        self.feed(_END)

    def result(self) -> BundleFile:
        """Wait for the finished file, or raise what kept it from being finished."""
        return self._file.result()


def _prefixed(header: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield header
    yield from chunks


# ---- streams


def _streams(public: Any, directory: Path, options: BundleOptions, report: Report) -> list[BundleFile]:
    kinds = [kind for kind in (BundleType.PACKED1, BundleType.STREAM_V2) if kind in options.kinds]
    if not kinds:
        return []
    scratch = directory / "scratch"
    repo = make_scratch_copy(public, scratch, options.stream_format or {})
    files = [_stream(repo, kind, _Writer(kind, directory, report)) for kind in kinds]
    shutil.rmtree(scratch)
    return files


def _stream(repo: Any, kind: BundleType, writer: _Writer) -> BundleFile:
    requirements = ",".join(sorted(name.decode() for name in streamclone.streamed_requirements(repo)))
    if kind is BundleType.PACKED1:
        _, chunks = streamclone.generatebundlev1(repo)
        return writer.write_all(chunks, f"none-packed1;requirements={requirements}")
    bundle = bundle2.bundle20(repo.ui, {b"stream": [b"v2"]})
    bundle2.addpartbundlestream2(bundle, repo, stream=True)
    return writer.write_all(bundle.getchunks(), f"none-v2;stream=v2;requirements={requirements}")
