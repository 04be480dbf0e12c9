"""What a pusher reads after a push: that it is recorded, where to look at it, and who shows it already.

Promises: the shapes that people and tools know from the field (`recorded push in pushlog`, `View your
change here:`); "visible on all" is said only when the log agent has said so.
Does not: wait, or decide whether a push was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hgfleet.hgext.session_context import RecordedChange

MAX_NAMED_CHANGESETS = 10


def recorded_lines(repository_url: str, changes: Sequence[RecordedChange]) -> Iterator[str]:
    """Yield the lines for what one command recorded; none when it recorded nothing."""
    nodes = [node for change in changes for node in change.nodes]
    if not changes:
        return
    if not nodes:
        yield "recorded change without changesets"
        return
    yield "recorded push in pushlog"
    yield ""
    if len(nodes) > MAX_NAMED_CHANGESETS:
        yield "View the pushlog for these changes here:"
        yield f"  {repository_url}/pushloghtml?changeset={nodes[-1]}"
        return
    yield "View your change here:" if len(nodes) == 1 else "View your changes here:"
    for node in nodes:
        yield f"  {repository_url}/rev/{node}"


def visibility_line(*, is_visible: bool, mirrors: Sequence[str], late: Sequence[str]) -> str:
    """Return how replication went so far."""
    if is_visible and mirrors:
        return f"visible on all {len(mirrors)} mirrors"
    if late:
        return f"accepted; not yet visible on {', '.join(late)}"
    return "accepted; not yet visible on any mirror"
