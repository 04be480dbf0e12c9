"""What one copy of a repository holds, read by Mercurial itself and not through hgfleet's own views.

Run as a program of its own (`python -m tests.support.copies HG_DIRECTORY`) it prints the copy as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from hgfleet.model.state import last_record
from tests.support.clients import ROOT, clean_environment, run

RAW_FILES = ("store/00changelog.i", "store/00changelog.d", "store/00manifest.i", "store/obsstore")


def read_copy(directory: Path) -> dict[str, Any]:
    """Return everything that replicas must agree on about the copy in `directory`."""
    argv = [sys.executable, "-m", "tests.support.copies", str(directory)]
    env = clean_environment(directory) | {"PYTHONPATH": str(ROOT)}
    value: dict[str, Any] = json.loads(run(argv, cwd=ROOT, env=env).ok().out)
    return value


def _open(directory: Path) -> Any:
    from mercurial import extensions, initialization
    from mercurial import ui as uimod
    from mercurial.repo import factory, requirements

    initialization.init()
    ui = uimod.ui.load()
    ui.setconfig(b"experimental", b"evolution", b"all")
    extensions.loadall(ui)
    requirements.BASE_SUPPORTED.update(r for r in _requirements(directory) if r.startswith(b"hgfleet"))
    return factory.repository(ui, bytes(directory)).unfiltered()


def _requirements(directory: Path) -> list[bytes]:
    files = [directory / ".hg" / "requires", directory / ".hg" / "store" / "requires"]
    return [line for file in files if file.exists() for line in file.read_bytes().split()]


def describe(directory: Path) -> dict[str, Any]:
    """Return the copy as plain values; see read_copy."""
    repo = _open(directory)
    changelog = repo.changelog
    hexes = [changelog.node(rev).hex() for rev in changelog]
    return {
        "nodes": hexes,
        "phases": [repo[rev].phase() for rev in changelog],
        "phase_roots": sorted(repo.svfs.tryread(b"phaseroots").decode().splitlines()),
        "bookmarks": sorted([name.decode(), node.hex()] for name, node in repo._bookmarks.items()),
        "obsmarkers": sorted(repr(marker) for marker in repo.obsstore._all),
        "raw": {name: _sha256(directory / ".hg" / name) for name in RAW_FILES},
        "seq": _seq_fields(directory),
        "pushes": _pushes(directory, hexes),
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def _seq_fields(directory: Path) -> dict[str, Any]:
    fields = json.loads(last_record((directory / ".hg" / "store" / "hgfleet-seq").read_bytes()))
    return {name: fields[name] for name in ("repository", "seq", "digest", "fingerprint", "settings")}


def _pushes(directory: Path, hexes: list[str]) -> list[dict[str, Any]]:
    from hgfleet.hgext.pushlog import Pushlog

    with Pushlog(directory / ".hg" / "store") as log:
        rows = list(log.range(1, len(log)))
    return [
        {"id": r.push_id, "user": r.pusher, "date": r.at, "changesets": hexes[r.first_rev : r.end_rev]}
        for r in rows
    ]


if __name__ == "__main__":
    print(json.dumps(describe(Path(sys.argv[1]))))  # noqa: T201 - a program's answer
