"""The process that makes one repository's bundle files: asked by one line of JSON, answers by lines of JSON.

    in    {"root": generation, "directory": empty, "kinds": […], "threads": n, "zstd_level": n}
    out   {"kind": …, "bytes": n} as it goes on, and at last {"ok": true, "bundled": {…} or null}, or an error

Promises: whatever Mercurial prints is no part of the answer; it gives way to everything else on the host.
Does not: publish, or leave files behind that are not in its answer (hgext.bundle_files).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from mercurial import error
from mercurial.repo import factory

from hgfleet.adapters.low_priority import give_way
from hgfleet.errors import FleetError, TransientError
from hgfleet.hgext.bundle_files import Bundled, BundleOptions, make_bundle_files
from hgfleet.hgext.local_ui import LocalOptions, load_ui
from hgfleet.hgext.push_errors import MISFITS
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.frames import error_header
from hgfleet.runtime import clock
from hgfleet.runtime.faults import NO_FAULTS, Faults

_REPORT_SECONDS = 0.2  # progress is told no more often


def run_bundle_process(host: str, faults: Faults = NO_FAULTS) -> int:
    """Read the request, make the files and answer; return the exit status."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    give_way()
    try:
        bundled = _make(json.loads(sys.stdin.readline()), host, _Reporter(answers, faults))
    except FleetError as failure:
        print(json.dumps(error_header(failure)), file=answers)
        return failure.exit_code
    described = None if bundled is None else _describe(bundled)
    print(json.dumps({"ok": True, "bundled": described}), file=answers)
    return 0


def _make(request: dict[str, Any], host: str, reporter: _Reporter) -> Bundled | None:
    options = BundleOptions(
        kinds=frozenset(BundleType(name) for name in request["kinds"]),
        threads=request["threads"],
        zstd_level=request["zstd_level"],
    )
    ui = load_ui(LocalOptions(role="web", host=host))
    try:
        repo = factory.repository(ui, os.fsencode(request["root"]))
        return make_bundle_files(repo, Path(request["directory"]), options, reporter.report)
    except (error.Abort, OSError, LookupError, *MISFITS) as failure:
        why = getattr(failure, "strerror", None) or str(failure)
        raise TransientError("bundles.not-made", "the bundles could not be made", reason=why) from failure


def _describe(bundled: Bundled) -> dict[str, Any]:
    files = [
        {
            "kind": file.kind.value,
            "path": str(file.path),
            "spec": file.spec,
            "size_bytes": file.size_bytes,
            "sha256": file.sha256,
        }
        for file in bundled.files
    ]
    return {"seq": bundled.seq, "tip": bundled.tip, "changesets": bundled.changesets, "files": files}


class _Reporter:
    """Tells how much was written, of each type not more often than somebody can read it."""

    def __init__(self, answers: TextIO, faults: Faults) -> None:
        self._answers = answers
        self._faults = faults
        self._reported_at: dict[str, float] = {}

    def report(self, kind: str, size_bytes: int) -> None:
        self._faults.reach("bundles-in-making")
        now = clock.monotonic()
        if now - self._reported_at.get(kind, 0.0) >= _REPORT_SECONDS:
            self._reported_at[kind] = now
            print(json.dumps({"kind": kind, "bytes": size_bytes}), file=self._answers)
