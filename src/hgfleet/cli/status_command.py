"""`hgfleet status`: what the fleet consists of and how far behind its mirrors are.

Promises: answers also while parts are down, and names them; exit 75 when something could not be asked.
Does not: change anything.
"""

from __future__ import annotations

from typing import Any

import click

from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.fleet_state import read_fleet_state
from hgfleet.cli.host_states import Told, ask_hosts
from hgfleet.cli.output import json_option, print_json, print_table
from hgfleet.config.host_table import RoleName
from hgfleet.config.hosts import list_hosts
from hgfleet.errors import TransientError
from hgfleet.model.ids import HostName
from hgfleet.runtime import clock

_WATCH_SECONDS = 1.0


@click.command("status")
@click.option("--watch", is_flag=True, help="print it again every second until interrupted")
@fleet_options
@json_option
def status_command(fleet: Fleet, *, watch: bool, as_json: bool) -> int:
    """Show hosts, processes, lag and parked repositories."""
    while True:
        state = read_fleet_state(fleet) | _hosts(fleet)
        if watch and not as_json:
            click.clear()
        print_json(state) if as_json else _print_state(state)
        if not watch:
            return TransientError.exit_code if state["problems"] else 0
        clock.sleep(_WATCH_SECONDS)


def _hosts(fleet: Fleet) -> dict[str, Any]:
    """Return what every host says of itself; nothing where the fleet is on one machine."""
    if not fleet.config.hosts:
        return {}
    roles = {host.name: sorted(host.roles) for host in list_hosts(fleet.config)}
    return {"hosts": [_host(told, roles[HostName(told.host)]) for told in ask_hosts(fleet.config)]}


def _host(told: Told, roles: list[RoleName]) -> dict[str, Any]:
    state = told.state or {}
    return {
        "host": told.host,
        "roles": roles,
        "is_answering": told.state is not None,
        "is_leading": bool(state.get("log", {}).get("is_serving")),
        "release": state.get("release", ""),
        "configuration_digest": state.get("configuration_digest", ""),
        "reason": told.reason,
    }


def _print_state(state: dict[str, Any]) -> None:
    log = state.get("log", {})
    serving = "serving" if log.get("is_serving") else "not serving"
    click.echo(f"release {state['release']}, epoch {log.get('epoch', '?')}, log agent {serving}")
    click.echo(f"repositories: {state.get('repositories', '?')}")
    coordinator = state.get("coordinator")
    if coordinator:
        word = "left" if coordinator["is_leaving"] else "last heard"
        click.echo(f"coordinator: {coordinator['host']}, {word} {coordinator['silent_seconds']:.1f} s ago")
    feed = state.get("feed")
    if feed:
        since = f" since {feed['behind_seconds']:.0f} s" if feed["behind"] else ""
        click.echo(f"feed: turn {feed['turn']}, {feed['behind']} messages behind{since}")
    for problem in state["problems"]:
        click.echo(f"problem: {problem}")
    hosts = [
        (
            h["host"],
            "+".join(h["roles"]),
            _word(h),
            h["release"] or "-",
            h["configuration_digest"][:12] or "-",
        )
        for h in state.get("hosts", ())
    ]
    _print_section("host roles state release configuration", hosts)
    _print_section("process host pid", [(p["name"], p["host"], p["pid"]) for p in state.get("processes", ())])
    members = [
        (m["host"], m["stage"] or "-", "yes" if m["is_counted"] else "no", m["incarnation"])
        for m in state.get("members", ())
    ]
    _print_section("mirror stage counted incarnation", members)
    lag = [(row["repository"], row["lag"], row["applied"], row["watermark"]) for row in state.get("lag", ())]
    _print_section("repository lag applied watermark", lag)
    parked = [(row["host"], row["repository"], row["reason"]) for row in state.get("parked", ())]
    _print_section("parked-on repository reason", parked)


def _word(host: dict[str, Any]) -> str:
    if not host["is_answering"]:
        return "silent"
    return "leading" if host["is_leading"] else "up"


def _print_section(headings: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        click.echo()
        print_table(headings.split(), rows)
