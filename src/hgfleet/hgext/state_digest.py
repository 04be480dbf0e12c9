"""The full state digest of a copy: what checkpoints, `repo show` and tests of equality compare.

Promises: equal digests mean equal changesets in the same order, phases, bookmarks, obsstore bytes, pushlog
and settings, on whatever host and in whatever storage format.
Does not: lock; the caller holds the lock, or asks again when the seq moved meanwhile. Costs O(changesets).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from hgfleet.hgext import binding, fingerprint, pushlog, seqfile
from hgfleet.model.ids import Digest
from hgfleet.model.settings import RepoSettings

_FORMAT = b"hgfleet-state/1\n"


def full_digest(repo: Any) -> Digest:
    """Return the digest of an open repository's state."""
    unfiltered = repo.unfiltered()
    total = hashlib.sha256(_FORMAT)
    for name, lines in _parts(unfiltered):
        part = hashlib.sha256()
        for line in lines:
            part.update(line)
        total.update(name + b" " + part.hexdigest().encode() + b"\n")
    return Digest(total.hexdigest())


def _parts(repo: Any) -> Iterator[tuple[bytes, Iterator[bytes]]]:
    changelog = repo.changelog
    yield b"changesets", (changelog.node(rev) for rev in changelog)
    yield b"phases", _phase_runs(repo)
    yield b"phase roots", (line + b"\n" for line in sorted(fingerprint.phase_lines(repo)))
    yield b"bookmarks", (line + b"\n" for line in sorted(fingerprint.bookmark_lines(repo)))
    yield b"obsmarkers", iter((repo.svfs.tryread(b"obsstore"),))
    yield b"pushlog", _push_lines(repo)
    yield b"settings", iter((_settings_line(repo),))


def _phase_runs(repo: Any) -> Iterator[bytes]:
    cache = repo._phasecache
    for phase, revs in groupby(repo.changelog, key=lambda rev: cache.phase(repo, rev)):
        yield b"%d %d\n" % (phase, sum(1 for _ in revs))


def _push_lines(repo: Any) -> Iterator[bytes]:
    with pushlog.Pushlog(binding.of(repo).store) as log:
        for push in log.range(1, len(log)):
            fields = [push.push_id, push.seq, push.at, push.first_rev, push.end_rev, push.pusher]
            yield json.dumps(fields).encode() + b"\n"


def _settings_line(repo: Any) -> bytes:
    state = seqfile.read(binding.of(repo).root)
    settings = state.settings if state is not None else RepoSettings()
    return json.dumps(settings.to_json(), sort_keys=True).encode()
