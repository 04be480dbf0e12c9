"""`hgfleet mirror`: which mirrors there are, taking one out of service and putting it back.

What an operator wants goes through the log, so that it works from any host and outlives restarts; the
mirror's applier follows it: it refuses reads first and reports then.

Promises: a mirror without which readers would be refused, or nothing new shown, is drained with --yes only;
drain and resume return when it is done, or say what is waited for.
Does not: talk to the mirror or to the load balancer, which notices by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import click

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.cli.addresses import mirror_names
from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.fleet_state import read_view
from hgfleet.cli.output import json_option, print_json, print_table
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.ids import HostName
from hgfleet.model.wishes import Wish
from hgfleet.replication.mirror_list import MirrorRow, list_mirrors, why_not_drain
from hgfleet.runtime import clock

WAIT_SECONDS = 60.0
_POLL_SECONDS = 0.2


@click.group("mirror")
def mirror_group() -> None:
    """List mirrors, take one out of service, put it back."""


@mirror_group.command("list")
@fleet_options
@json_option
def list_command(fleet: Fleet, *, as_json: bool) -> None:
    """List the mirrors: stage, lag, parked repositories, release, what each waits for."""
    with fleet.agent() as agent:
        rows = _read(fleet, agent)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    headings = ("mirror", "stage", "counted", "lag", "parked", "release", "waits for")
    print_table(headings, list(map(_cells, rows)))


def _cells(row: MirrorRow) -> tuple[object, ...]:
    is_counted = "yes" if row.is_counted else "no"
    waits_for, release = row.waits_for or "-", row.release or "-"
    return row.host, row.stage, is_counted, row.lag, len(row.parked), release, waits_for


@mirror_group.command("drain")
@click.argument("name")
@click.option("--yes", is_flag=True, help="also when readers or new pushes suffer from it")
@fleet_options
@json_option
def drain_command(name: str, fleet: Fleet, *, yes: bool, as_json: bool) -> None:
    """Take the mirror NAME out of service: it refuses reads until it is resumed, restarts included."""
    with fleet.agent() as agent:
        rows = _read(fleet, agent)
        host = _find(rows, name).host
        reason = why_not_drain(rows, host, fleet.config.membership.floor)
        if reason and not yes:
            raise RejectedError(
                "mirror.needed", f"{name} was not drained: {reason}", hint="--yes does it anyway"
            )
        agent.state_publish(_wish(fleet, host, is_drained=True))
        row = _await(fleet, agent, host, lambda row: row.stage == "drained")
    _print(row, f"{name} is drained: it answers no reads, and nobody waits for it", as_json=as_json)


@mirror_group.command("resume")
@click.argument("name")
@fleet_options
@json_option
def resume_command(name: str, fleet: Fleet, *, as_json: bool) -> None:
    """Put the mirror NAME back into service, as soon as it has caught up."""
    with fleet.agent() as agent:
        host = _find(_read(fleet, agent), name).host
        agent.state_publish(_wish(fleet, host, is_drained=False))
        row = _await(fleet, agent, host, lambda row: row.is_in_service)
    _print(row, f"{name} is in service", as_json=as_json)


def _print(row: MirrorRow, text: str, *, as_json: bool) -> None:
    print_json(asdict(row)) if as_json else click.echo(text)


def _wish(fleet: Fleet, host: HostName, *, is_drained: bool) -> dict[str, object]:
    wish = Wish(host, is_drained, identity=f"host:{fleet.layout.agent_host.name}")
    return {wish.key: dict(wish.value)}


def _read(fleet: Fleet, agent: LogAgentClient) -> list[MirrorRow]:
    return list_mirrors(read_view(agent), mirror_names(fleet.config))


def _find(rows: list[MirrorRow], name: str) -> MirrorRow:
    for row in rows:
        if row.host == name:
            return row
    names = ", ".join(row.host for row in rows)
    raise RejectedError("mirror.unknown", "no such mirror", hint=f"there are {names}", name=name)


def _await(
    fleet: Fleet, agent: LogAgentClient, host: HostName, is_done: Callable[[MirrorRow], bool]
) -> MirrorRow:
    """Wait until a mirror is as wanted; raise TransientError that says what is missing."""
    ends_at = clock.monotonic() + WAIT_SECONDS
    while not is_done(row := _find(_read(fleet, agent), host)):
        if clock.monotonic() > ends_at:
            raise TransientError(
                "mirror.waiting",
                f"{host} is told, and not there yet",
                hint=f"it is {row.stage} and waits for {row.waits_for or 'the coordinator'}; "
                "`hgfleet mirror list` shows how it goes on",
            )
        clock.sleep(_POLL_SECONDS)
    return row
