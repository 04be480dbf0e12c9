"""What `hgfleet doctor` finds out about the coordinator, the mirrors and their repositories.

Promises: judged from the state topic as this host's log agent has it, read up to its end.
Does not: ask the mirrors themselves (doctor_hosts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hgfleet.adapters.agent_answers import StateRecords
from hgfleet.cli.addresses import mirror_names
from hgfleet.cli.fleet import Fleet
from hgfleet.cli.fleet_state import read_view
from hgfleet.model.finding import Finding
from hgfleet.model.fleet import FleetView
from hgfleet.model.fleet_records import LifeSign
from hgfleet.replication.fleet_status import describe_fleet
from hgfleet.replication.mirror_list import MirrorRow, list_mirrors
from hgfleet.runtime import clock

PATIENCE_SECONDS = 2.0  # what is behind for longer is not merely on its way
_POLL_SECONDS = 0.25
_COORDINATOR, _MIRRORS, _REPOSITORIES = "coordinator", "mirrors", "repositories"


def check_coordinator(fleet: Fleet) -> Iterator[Finding]:
    """Wait for a sign of life of the coordinator that decides; it gives several in a lease."""
    lease_seconds = fleet.config.membership.lease_seconds
    sign = _next_sign(fleet, lease_seconds)
    if sign is not None:
        yield Finding(_COORDINATOR, True, f"on {sign.host}, alive")
        return
    starts = (
        "start it: hgfleet run coordinator on a host with that role" if fleet.host else "start hgfleet up"
    )
    yield Finding(_COORDINATOR, False, f"no sign of life for {lease_seconds:g} s: nothing is exposed", starts)


def _next_sign(fleet: Fleet, timeout_seconds: float) -> LifeSign | None:
    """Return the next sign of the claim in force that is given from now on, None when there is none."""
    view, ends_at = FleetView(), clock.monotonic() + timeout_seconds
    with fleet.agent() as agent:
        end = agent.state_end()
        with agent.state_follow() as events:
            while clock.monotonic() < ends_at:
                event = events.next_event(_POLL_SECONDS)
                for item in event.records if isinstance(event, StateRecords) else ():
                    record = view.take(item.key, item.value, item.offset)
                    is_new = item.offset >= end and isinstance(record, LifeSign) and not record.is_leaving
                    if is_new and isinstance(record, LifeSign) and record.claim == view.claim:
                        return record
    return None


def check_mirrors(fleet: Fleet) -> Iterator[Finding]:
    """Look whether every mirror of the configuration is in service, and enough of them are."""
    with fleet.agent() as agent:
        rows = list_mirrors(read_view(agent), mirror_names(fleet.config))
    yield from judge_mirrors(rows, fleet.config.membership.floor)


def judge_mirrors(rows: Sequence[MirrorRow], floor: int) -> Iterator[Finding]:
    """Say of each mirror whether it is in service, and whether enough are."""
    for row in rows:
        if row.is_in_service:
            yield Finding(_MIRRORS, True, f"{row.host} is in service, {row.lag} messages behind")
        else:
            yield Finding(_MIRRORS, False, f"{row.host} is {row.stage}", f"waits for {row.waits_for}")
    serving = sum(row.is_in_service for row in rows)
    if serving < floor:
        text = f"{serving} in service, membership.floor is {floor}: nothing new is exposed"
        yield Finding(_MIRRORS, False, text, "bring mirrors back, or lower membership.floor")
    releases = {row.release for row in rows if row.release}
    if len(releases) > 1:
        text = f"they run {', '.join(sorted(releases))}"
        yield Finding(_MIRRORS, False, text, "finish the update: the older ones hold back newer formats")


def check_repositories(fleet: Fleet) -> Iterator[Finding]:
    """Look for parked copies, and for what is behind and stays so."""
    with fleet.agent() as agent:
        before = _lagging(read_view(agent))
        clock.sleep(PATIENCE_SECONDS if before else 0.0)
        view = read_view(agent)
        path_by_id = {str(bound.repository): str(bound.path) for bound in agent.paths()[0]}
    parked = describe_fleet(view)["parked"]
    for row in parked:
        path = path_by_id.get(row["repository"], row["repository"])
        text = f"{path} is parked on {row['host']}: {row['reason']}"
        yield Finding(
            _REPOSITORIES, False, text, "the mirror cures it by itself; its applier's log tells how"
        )
    stuck = find_stuck(before, _lagging(view))
    for repository, exposed in stuck.items():
        path = path_by_id.get(repository, repository)
        text = f"{path} is exposed up to {exposed} and does not move on"
        yield Finding(_REPOSITORIES, False, text, "hgfleet mirror list shows who is behind")
    if not parked and not stuck:
        yield Finding(_REPOSITORIES, True, "none is parked, none is stuck")


def find_stuck(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return the repositories that were behind at both looks without having moved."""
    return {name: seq for name, seq in after.items() if before.get(name) == seq}


def _lagging(view: FleetView) -> dict[str, int]:
    """Return the least exposed seq of every repository that is behind."""
    return {row["repository"]: min(row["hosts"].values()) for row in describe_fleet(view)["lag"]}
