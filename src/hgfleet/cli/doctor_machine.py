"""What `hgfleet doctor` finds out about this machine: its disks, the files of address ranges that it was
given, and HAProxy's configuration if it is here.

Promises: a directory that is not there yet is judged by the one that it will lie in.
Does not: look at other machines.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hgfleet.adapters.location_files import read_ranges
from hgfleet.adapters.processes import Program, run
from hgfleet.cli.addresses import has_proxy
from hgfleet.cli.fleet import Fleet
from hgfleet.cli.rendered_files import haproxy_text
from hgfleet.cli.services import find_haproxy
from hgfleet.config.layout import FleetLayout
from hgfleet.errors import ConfigError
from hgfleet.model.finding import Finding
from hgfleet.runtime import clock

MIN_FREE_BYTES = 1024**3
MIN_FREE_SHARE = 0.05
CHECK_SECONDS = 30.0
MAX_RANGES_DAYS = 30.0  # providers change theirs several times a week
_DISK, _LOCATIONS, _BALANCER = "disk", "locations", "load balancer"
_DAY_SECONDS = 86_400.0
_GIB = 1024**3


def check_disk(fleet: Fleet) -> Iterator[Finding]:
    """Look at the room for copies, logs, and what of the parts lies on this machine."""
    config, layout = fleet.config, fleet.layout
    places = {"repositories": layout.agent_host.directory, "log files": layout.logs}
    if config.log.kind == "sqlite":
        places["the log"] = config.log.path.parent
    if config.blobs.kind == "directory":
        places["blobs"] = config.blobs.path
    for what, path in places.items():
        status = os.statvfs(_existing(path))
        total = status.f_blocks * status.f_frsize
        yield judge_room(f"{what} in {path}", status.f_bavail * status.f_frsize, total, status.f_favail)


def judge_room(what: str, free_bytes: int, total_bytes: int, free_files: int) -> Finding:
    """Say whether there is room enough for the next pushes."""
    is_low = free_bytes < MIN_FREE_BYTES or free_bytes < total_bytes * MIN_FREE_SHARE
    room = f"{free_bytes / _GIB:.1f} GiB free for {what}"
    if free_files == 0 and total_bytes:
        return Finding(_DISK, False, f"no inode is free for {what}", "remove files, or make the disk larger")
    if is_low:
        return Finding(_DISK, False, room, "make room or the disk larger before pushes are refused")
    return Finding(_DISK, True, room)


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def check_locations(fleet: Fleet) -> Iterator[Finding]:
    """Read the providers' files of address ranges as the processes do that tell where clients are."""
    for location in fleet.config.locations:
        if location.file is None:
            continue
        try:
            networks = read_ranges(location.file, location.provider, location.attribute)
        except ConfigError as error:
            yield Finding(_LOCATIONS, False, str(error), error.hint or "fetch it from the provider")
            continue
        age_days = (clock.now() - location.file.stat().st_mtime) / _DAY_SECONDS
        text = f"{location.file}: {len(networks)} networks, {age_days:.0f} days old"
        is_old = age_days > MAX_RANGES_DAYS
        yield Finding(_LOCATIONS, not is_old, text, "look at the timer that fetches it" if is_old else "")


def check_balancer(fleet: Fleet) -> Iterator[Finding]:
    """Let HAProxy itself check its configuration, where this machine has it."""
    layout = fleet.layout
    if not _is_here(layout):
        return
    program = find_haproxy(layout.config.proxy.program)
    with tempfile.TemporaryDirectory(prefix="hgfleet-doctor-") as directory:
        file = Path(directory) / "haproxy.cfg"
        file.write_text(haproxy_text(layout))
        checked = run(Program([program, "-c", "-q", "-f", str(file)]), CHECK_SECONDS)
    if checked.status == 0:
        yield Finding(_BALANCER, True, "HAProxy accepts the configuration of hgfleet render haproxy")
        return
    lines = checked.stderr.decode(errors="replace").strip().splitlines() or [f"exit {checked.status}"]
    remedy = "compare hgfleet render haproxy with the HAProxy release that is installed"
    yield Finding(_BALANCER, False, f"HAProxy refuses its configuration: {lines[0]}", remedy)


def _is_here(layout: FleetLayout) -> bool:
    host = layout.own_host
    if host is None:
        return has_proxy(layout.config) and layout.effective_config.exists()
    return "balancer" in host.roles
