"""A mirror's catalogue.sqlite: which paths its web workers serve, and which repositories they refuse.

    paths(path PRIMARY KEY, repository)
    parked(repository PRIMARY KEY, reason)
    meta(name PRIMARY KEY, value)           exposed_seq: the catalogue seq that paths shows;
                                            exposed_digest: that of the message there

Promises: what was exposed of the catalogue changes in one transaction together with the seq it was exposed
at; a reader sees the state before or after, never blocks the writer and is never blocked. Only the applier
writes.
Does not: decide when a path is exposed (replication.applier) or read messages.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hgfleet.errors import TransientError
from hgfleet.model.ids import NO_DIGEST, Digest, RepoId, RepoPath, Seq

_SCHEMA = """
CREATE TABLE IF NOT EXISTS paths (path TEXT PRIMARY KEY, repository TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked (repository TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_EXPOSED_SEQ = "exposed_seq"
_EXPOSED_DIGEST = "exposed_digest"
_BUSY_SECONDS = 5.0


class MirrorCatalogue:
    """The file, opened by its one writer.

    Whatever writes raises TransientError `mirror.catalogue` when it can't; one thread uses it.
    """

    def __init__(self, path: Path) -> None:
        # WAL, so that readers go on; NORMAL, as losing the last changes to a power cut only shows an older
        # state, which the next incarnation catches up with before it serves.
        with _translated():
            self._file = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.executescript(_SCHEMA)

    def exposed_seq(self) -> Seq:
        """Return the catalogue seq whose paths are served; 0 before the first."""
        row = self._file.execute("SELECT value FROM meta WHERE name = ?", (_EXPOSED_SEQ,)).fetchone()
        return Seq(int(row[0]) if row else 0)

    def paths(self) -> dict[RepoPath, RepoId]:
        """Return what is served."""
        rows = self._file.execute("SELECT path, repository FROM paths")
        return {RepoPath(path): RepoId(repository) for path, repository in rows}

    def exposed_digest(self) -> Digest:
        """Return the digest of the catalogue's message at that seq; "" when it is not known."""
        row = self._file.execute("SELECT value FROM meta WHERE name = ?", (_EXPOSED_DIGEST,)).fetchone()
        return Digest(str(row[0]) if row else "")

    def replace(
        self, repository_by_path: Mapping[RepoPath, RepoId], seq: Seq, digest: Digest = NO_DIGEST
    ) -> None:
        """Serve exactly these paths, as of `seq`."""
        served = self.paths()
        gone = served.keys() - repository_by_path.keys()
        changed = {p: r for p, r in repository_by_path.items() if served.get(p) != r}
        self.expose(gone, changed, seq, digest)

    def expose(
        self,
        gone: Iterable[RepoPath],
        bound: Mapping[RepoPath, RepoId],
        seq: Seq,
        digest: Digest = NO_DIGEST,
    ) -> None:
        """Stop serving some paths and serve others, as of `seq`, at once."""
        with _translated(), _transaction(self._file):
            self._file.executemany("DELETE FROM paths WHERE path = ?", [(path,) for path in gone])
            self._file.executemany("INSERT OR REPLACE INTO paths VALUES (?, ?)", bound.items())
            exposed = [(_EXPOSED_SEQ, str(seq)), (_EXPOSED_DIGEST, digest)]
            self._file.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", exposed)

    def parked(self) -> dict[RepoId, str]:
        """Return the repositories that are refused, with the reason."""
        rows = self._file.execute("SELECT repository, reason FROM parked")
        return {RepoId(repository): reason for repository, reason in rows}

    def park(self, repository: RepoId, reason: str) -> None:
        """Refuse a repository from now on."""
        with _translated():
            self._file.execute("INSERT OR REPLACE INTO parked VALUES (?, ?)", (repository, reason))

    def unpark(self, repository: RepoId) -> None:
        """Serve a repository again."""
        with _translated():
            self._file.execute("DELETE FROM parked WHERE repository = ?", (repository,))

    def close(self) -> None:
        """Release the file."""
        self._file.close()


@contextlib.contextmanager
def _transaction(file: sqlite3.Connection) -> Iterator[None]:
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        file.execute("ROLLBACK")
        raise
    file.execute("COMMIT")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise TransientError(
            "mirror.catalogue", "the mirror's catalogue can't be written", reason=str(error)
        ) from error
