"""Makes a repository that looks like one in use: many files, each changed now and then.

Promises: the same repository each time, in seconds: all of it is one transaction.
Does not: branch or merge; what is measured with it does not depend on that.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from mercurial import context, localrepo
from mercurial import ui as uimod
from mercurial.repo import factory

_FILES = 600
_FIRST_LINES = 60
_WORDS = tuple(f"{number:x}" for number in random.Random(7).sample(range(1 << 24), 4000))


def build_history(directory: Path, changesets: int) -> None:
    """Make a repository of so many changesets in a row."""
    ui = uimod.ui()
    ui.quiet = True
    localrepo.createrepository(ui, str(directory).encode())
    repo = factory.repository(ui, str(directory).encode())
    chance = random.Random(1)
    lines_by_name: dict[bytes, list[str]] = {}
    with repo.lock(), repo.transaction(b"bench"):
        for number in range(changesets):
            names = {_name(chance.randrange(_FILES)) for _ in range(chance.randint(1, 3))}
            for name in sorted(names):
                if name not in lines_by_name:
                    lines_by_name[name] = _some_lines(chance, _FIRST_LINES)
                _edit(lines_by_name[name], chance)
            _commit(repo, number, {name: "\n".join(lines_by_name[name]).encode() for name in names})


def _name(number: int) -> bytes:
    return b"part%d/module%d/file%d.txt" % (number % 7, number % 61, number)


def _some_lines(chance: random.Random, count: int) -> list[str]:
    return [" ".join(chance.choices(_WORDS, k=8)) for _ in range(count)]


def _edit(lines: list[str], chance: random.Random) -> None:
    place = chance.randrange(len(lines))
    lines[place : place + chance.randint(0, 3)] = _some_lines(chance, chance.randint(1, 6))


def _commit(repo: Any, number: int, data_by_name: dict[bytes, bytes]) -> None:
    def read(_repo: Any, changed: Any, name: bytes) -> Any:
        return context.memfilectx(repo, changed, name, data_by_name[name])

    parents = (repo[b"tip"].node(), repo.nullid)
    text = b"change %d: %s" % (number, b", ".join(sorted(data_by_name)))
    author = b"author%d <author%d@example.org>" % (number % 40, number % 40)
    date = b"%d 0" % (1_600_000_000 + 600 * number)
    context.memctx(repo, parents, text, sorted(data_by_name), read, author, date).commit()
