"""serving.json: what a mirror's applier tells its web workers about its stage and lease.

Promises: readers see a whole file; a lease ends by the clock of the reader, suspends included, and a file
from before a reboot is never believed: the clock that it counts by began anew.
Does not: decide anything (model.membership), or keep readers from a parked repository (mirror_catalogue).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hgfleet.adapters.files import write_by_rename
from hgfleet.model.fleet_records import Stage
from hgfleet.runtime import clock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Serving:
    """The file's content; `lease_ends_at` in seconds of the boot-time clock."""

    stage: Stage
    incarnation: int
    lease_ends_at: float
    updated_at: float  # Unix seconds
    boot_id: str
    has_served: bool = False  # since this disk was empty: what it shows is old at worst

    def is_ready(self) -> bool:
        """Whether the load balancer may route here; asks the clock now."""
        return (
            self.stage is Stage.SERVING
            and clock.boottime() < self.lease_ends_at
            and self.boot_id == read_boot_id()
        )

    def may_answer(self, *, is_last_resort: bool) -> bool:
        """Whether a read is answered; as a last resort also by a mirror that is about to serve again."""
        is_returning = self.stage is Stage.JOINING and self.has_served
        return self.stage is Stage.SERVING or (is_last_resort and is_returning)


def write_serving(
    path: Path, stage: Stage, incarnation: int, lease_ends_at: float, *, has_served: bool = False
) -> None:
    """Replace the file. Raises OSError; then the old content stands."""
    content = Serving(stage, incarnation, lease_ends_at, clock.now(), read_boot_id(), has_served)
    write_by_rename(path, json.dumps(asdict(content)).encode() + b"\n", mode=0o644)


def read_serving(path: Path) -> Serving | None:
    """Return the content; None when there is no file or it is damaged: the host is then not serving."""
    try:
        fields = json.loads(path.read_bytes())
        return Serving(
            Stage(fields["stage"]),
            int(fields["incarnation"]),
            float(fields["lease_ends_at"]),
            float(fields["updated_at"]),
            str(fields["boot_id"]),
            bool(fields.get("has_served", False)),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def read_boot_id() -> str:
    """Return what differs between two boots of this machine; "" where the system does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
