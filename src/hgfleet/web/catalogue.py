"""What the mirror serves, as its applier has written it: read for every request, so never stale.

Promises: the longest bound path that is a prefix of the asked one wins, at any depth; a path bound, unbound
or parked is seen by the next request; each thread has a connection of its own, which never blocks the writer.
Does not: write; or keep anything in memory.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hgfleet.errors import TransientError
from hgfleet.model.ids import MAX_PATH_LENGTH, RepoId, RepoPath

_BUSY_SECONDS = 2.0
_FIND = """
SELECT paths.path, paths.repository, parked.reason
FROM paths LEFT JOIN parked USING (repository)
WHERE paths.path IN ({places}) ORDER BY length(paths.path) DESC LIMIT 1
"""
_LIST = """
SELECT paths.path, paths.repository, parked.reason FROM paths LEFT JOIN parked USING (repository)
WHERE (path = :under OR substr(path, 1, length(:folder)) = :folder)
AND instr(lower(path), lower(:word)) > 0 ORDER BY path LIMIT :limit OFFSET :offset
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A repository that the mirror answers for, or has parked."""

    path: RepoPath
    repository: RepoId
    parked_reason: str | None


class Catalogue:
    """The file, opened per thread when first needed. Raises TransientError `web.catalogue`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._of_thread = threading.local()

    def find(self, asked: str) -> Served | None:
        """Return the repository that a URL path (without its first slash) leads into."""
        candidates = _prefixes(asked)
        statement = _FIND.format(places=",".join("?" * len(candidates)))
        with self._reading() as file:
            row = file.execute(statement, candidates).fetchone()
        return _served(row) if row else None

    def list(self, *, under: str = "", word: str = "", limit: int = -1, offset: int = 0) -> list[Served]:
        """Return what is served at or below a path and has `word` in its path, in the order of paths."""
        folder = f"{under}/" if under else ""
        values = {"under": under, "folder": folder, "word": word, "limit": limit, "offset": offset}
        with self._reading() as file:
            return [_served(row) for row in file.execute(_LIST, values)]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connection()
        except sqlite3.Error as error:
            self._of_thread.connection = None
            raise TransientError("web.catalogue", "the mirror's catalogue can't be read") from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            if not self._path.exists():  # sqlite would make an empty one
                raise sqlite3.OperationalError("no such file")
            # Not mode=ro: the last reader of a file in WAL mode may have to make its index anew.
            connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
            connection.execute("PRAGMA query_only=1")
            self._of_thread.connection = connection
        return connection


def _prefixes(asked: str) -> list[str]:
    parts = asked[: MAX_PATH_LENGTH + 1].split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _served(row: tuple[str, str, str | None]) -> Served:
    path, repository, reason = row
    return Served(RepoPath(path), RepoId(repository), reason)
