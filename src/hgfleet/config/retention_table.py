"""The tables of snapshots and retention, and what must hold between them.

Promises: by settings without a conflict, the log can be trimmed at its retention.
Does not: decide what is due (model.retention).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from hgfleet.config.section import Section, setting
from hgfleet.config.units import Duration, Size
from hgfleet.model.retention import CHECKS_PER_RETENTION


class SnapshotsSection(Section):
    """Snapshots of repositories, made by the mirrors: what new and lost copies begin from."""

    check_interval_seconds: Duration = setting(
        "1m", "how often a mirror asks what it has to make", key="check_interval"
    )
    max_messages: Annotated[int, Field(ge=1)] = setting(
        10_000, "a repository whose log has grown by more since its newest snapshot gets the next one"
    )
    max_log_bytes: Size = setting("256MiB", "the same, by the size of its messages", key="max_log")


class RetentionSection(Section):
    """What the log and the blob store keep."""

    period_seconds: Duration = setting(
        "7d",
        "how long the log keeps a message at least; longer, while a snapshot needs it. A host that was away "
        "for longer builds its copies anew from snapshots, which are made twice in this time",
        key="period",
    )
    check_interval_seconds: Duration = setting(
        "10m", "how often the primary's log agent looks what may go", key="check_interval"
    )
    blob_grace_seconds: Duration = setting(
        "1d", "how long a blob that nothing names is kept at least", key="blob_grace"
    )


def find_retention_conflicts(
    snapshots: SnapshotsSection, retention: RetentionSection, lease_seconds: float, append_seconds: float
) -> Iterator[str]:
    """Find a retention in which two snapshots could be missed, or something still needed could go."""
    needed = CHECKS_PER_RETENTION * snapshots.check_interval_seconds
    if retention.period_seconds < needed:
        yield (
            f"retention.period: must be at least {CHECKS_PER_RETENTION} * snapshots.check_interval = "
            f"{needed:g}s, or two snapshots would not be made in it"
        )
    if retention.period_seconds < lease_seconds:
        yield "retention.period: is below membership.lease, so a mirror in service could be overrun"
    if retention.blob_grace_seconds < append_seconds:
        yield "retention.blob_grace: is below push.append_deadline, so a push could lose its payload"
