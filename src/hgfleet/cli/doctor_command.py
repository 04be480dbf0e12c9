"""`hgfleet doctor`: looks at every part of the fleet that can be reached from here.

Promises: every check answers, whatever is down: a part that cannot be asked is a finding of its own; what is
not good names the command or setting that mends it; exit 0 only when everything is good.
Does not: change anything, but for a probe that is put into the blob store and removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

import click

from hgfleet.cli import doctor_fleet, doctor_hosts, doctor_machine, doctor_parts
from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.output import json_option, print_json
from hgfleet.config.hosts import COPY_ROLES
from hgfleet.errors import FleetError
from hgfleet.model.finding import Finding

Check = Callable[[Fleet], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    "log": doctor_parts.check_log,
    "blob store": doctor_parts.check_blobs,
    "directory": doctor_parts.check_directory,
    "hosts": doctor_hosts.check_hosts,
    "certificates": doctor_hosts.check_certificates,
    "coordinator": doctor_fleet.check_coordinator,
    "mirrors": doctor_fleet.check_mirrors,
    "repositories": doctor_fleet.check_repositories,
    "disk": doctor_machine.check_disk,
    "locations": doctor_machine.check_locations,
    "load balancer": doctor_machine.check_balancer,
}

_BY_THE_AGENT = ("log", "coordinator", "mirrors", "repositories")


@click.command("doctor")
@fleet_options
@json_option
def doctor_command(fleet: Fleet, *, as_json: bool) -> int:
    """Look at every part of the fleet; say what is wrong and what mends it."""
    findings: list[Finding] = []
    for finding in examine(fleet, checks_for(fleet)):
        findings.append(finding)
        if not as_json:
            _print(finding)
    is_healthy = all(finding.is_good for finding in findings)
    if as_json:
        print_json({"is_healthy": is_healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        wrong = sum(not finding.is_good for finding in findings)
        click.echo("everything is well" if is_healthy else f"{wrong} of {len(findings)} are not well")
    return 0 if is_healthy else 1


def checks_for(fleet: Fleet) -> dict[str, Check]:
    """Return the checks that this host can make: one without a copy has no log agent to ask."""
    host = fleet.layout.own_host
    if host is None or host.roles.intersection(COPY_ROLES):
        return CHECKS
    return {subject: check for subject, check in CHECKS.items() if subject not in _BY_THE_AGENT}


def examine(fleet: Fleet, checks: dict[str, Check]) -> Iterator[Finding]:
    """Yield what every check finds, as it comes; one that fails is a finding."""
    for subject, check in checks.items():
        try:
            yield from check(fleet)
        except FleetError as error:
            yield Finding(subject, False, str(error), error.hint or "see the logs of that part")


def _print(finding: Finding) -> None:
    mark = "ok  " if finding.is_good else "BAD "
    click.echo(f"{mark}{finding.subject}: {finding.text}")
    if finding.remedy and not finding.is_good:
        click.echo(f"      -> {finding.remedy}")
