"""Which release can read what: feature levels, so that releases N and N+1 run side by side (O4).

Every host reports its release's level with its heartbeat. A message of a kind, or of a format, that came with
a level is appended only once every host that is heard of has reached it: an older one would park the
repository. A host that joins later with an older release parks what it cannot read, and nothing else.

Promises: pure; the level of a kind never changes once a release had it.
Does not: know who is in the fleet (model.fleet does).
"""

from __future__ import annotations

from collections.abc import Mapping

from hgfleet.errors import RejectedError
from hgfleet.model.ids import HostName
from hgfleet.model.message import SEQUENCED, Json, Kind
from hgfleet.model.settings import BUNDLES

FEATURE_LEVEL = 2  # of this release: what it reads; raised with each kind or format that is new on the log

_LEVEL_BY_KIND = {
    Kind.SNAPSHOT: 1,
    Kind.BUNDLES: 1,
    Kind.CHECKPOINT: 1,
}  # the others are of the first release


_LEVEL_BY_SETTING = {BUNDLES: 2}  # of what a repository's settings have only where it is used

NOTHING: Mapping[str, Json] = {}


def required_level(kind: Kind, body: Mapping[str, Json] = NOTHING) -> int:
    """Return the level that every reader of the kind, with what the body has of settings, needs."""
    settings = body.get("settings")
    named = settings.keys() if isinstance(settings, Mapping) and kind in SEQUENCED else ()
    return max([_LEVEL_BY_KIND.get(kind, 0), *(_LEVEL_BY_SETTING.get(name, 0) for name in named)])


def check_readable(
    kind: Kind, level_by_host: Mapping[HostName, int], body: Mapping[str, Json] = NOTHING
) -> None:
    """Raise RejectedError `feature.not-everywhere` while a host could not read such a message."""
    needed = required_level(kind, body)
    behind = sorted(host for host, level in level_by_host.items() if level < needed)
    if behind:
        raise RejectedError(
            "feature.not-everywhere",
            "not every host can read such a message yet",
            hint=f"upgrade {', '.join(behind)} first",
            kind=kind.value,
        )
