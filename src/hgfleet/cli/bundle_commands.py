"""`hgfleet bundles`: what clone bundles there are and why, and everything that people do about them.

Promises: each change replaces what was looked at, so that nobody's change in between is lost; it is in force
on every mirror as soon as that hears of it. The exit code is 1 when a store or a bundle was found wanting.
Does not: say which repositories shall have bundles (`hgfleet repo set`, `[bundles]`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import click

from hgfleet.adapters.agent_answers import BoundPath
from hgfleet.adapters.agent_bundles import BundleClient
from hgfleet.bundles import by_hand
from hgfleet.bundles.check_run import check_repository
from hgfleet.bundles.checking import Condition
from hgfleet.bundles.clone_rates import CloneRates
from hgfleet.bundles.repository_run import RepositoryRun, RunOptions
from hgfleet.cli.bundle_parts import run_options
from hgfleet.cli.bundle_progress import shown_sizes
from hgfleet.cli.bundle_rows import BundleRow, describe_repository, print_checked, print_repositories
from hgfleet.cli.changes import IDENTITY
from hgfleet.cli.demand_rows import by_place, of_repository, print_demand
from hgfleet.cli.fleet import CALL_SECONDS, Fleet, fleet_options
from hgfleet.cli.output import json_option, print_json
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.bundle_policy import Step
from hgfleet.model.bundle_state import BundleState
from hgfleet.model.demand import Counts
from hgfleet.model.ids import Seq, parse_repo_path
from hgfleet.runtime import clock


@click.group("bundles")
def bundles_group() -> None:
    """List, make, check and change clone bundles."""


@dataclass(frozen=True, slots=True)
class _Desk:
    """What every command needs."""

    client: BundleClient
    options: RunOptions

    def find(self, path: str) -> BoundPath:
        """Return one repository. Raises RejectedError `repo.unknown`."""
        return self.client.resolve(parse_repo_path(path))

    def find_all(self, path: str | None) -> list[BoundPath]:
        """Return one repository, or all of them."""
        return [self.find(path)] if path else list(self.client.paths()[0])

    def change(self, bound: BoundPath, change: Callable[[BundleState], BundleState]) -> BundleState:
        """Put in force what a change makes of what is."""
        before = self.client.bundles(bound.repository)
        seq = before.seq or self.client.last(bound.repository).seq
        after = self.client.append_bundles(
            bound.repository,
            change(before.state),
            Seq(seq),
            before.digest,
            identity=IDENTITY,
            trace=uuid.uuid4().hex,
        )
        return after.state


@contextmanager
def _desk(fleet: Fleet) -> Iterator[_Desk]:
    effective = fleet.layout.effective_config
    config_path = effective if effective.exists() else fleet.place.config_path
    with BundleClient(fleet.layout.agent_socket, CALL_SECONDS) as client:
        rates = CloneRates()
        options = run_options(fleet.layout, config_path, fleet.place.directory)
        rates.refresh(client)
        yield _Desk(client, replace(options, clones_a_day=rates))


@bundles_group.command("list")
@click.argument("path", required=False)
@click.option(
    "--demand", "is_demand", is_flag=True, help="show the clones of the last day, by the clients' places"
)
@fleet_options
@json_option
def list_bundles(path: str | None, fleet: Fleet, *, is_demand: bool, as_json: bool) -> None:
    """List the repositories, or the one at PATH: what bundles they have, how old, and why."""
    if is_demand:
        _list_demand(path, fleet, as_json=as_json)
        return
    with _desk(fleet) as desk:
        rows = [_row(desk, bound) for bound in desk.find_all(path)]
    if as_json:
        print_json([describe_repository(row) for row in rows])
    else:
        print_repositories(rows, is_detailed=path is not None)


def _list_demand(path: str | None, fleet: Fleet, *, as_json: bool) -> None:
    with _desk(fleet) as desk:
        counts: Counts = desk.client.demand()
        if path:
            counts = of_repository(counts, desk.find(path).repository)
        places = by_place(counts, [store.attributes for store in desk.options.stores])
    if as_json:
        print_json([place.to_json() for place in places])
    else:
        print_demand(places)


def _row(desk: _Desk, bound: BoundPath) -> BundleRow:
    in_force = desk.client.bundles(bound.repository)
    decision = RepositoryRun(desk.options, desk.client, bound).decide(in_force)
    return BundleRow(bound, in_force, decision, desk.options.clones_a_day(bound.repository), clock.now())


@bundles_group.command("make")
@click.argument("path")
@fleet_options
@json_option
def make_bundles(path: str, fleet: Fleet, *, as_json: bool) -> None:
    """Make the bundles of the repository at PATH anew, now, whatever is due; on a host with a replica."""
    with _desk(fleet) as desk, shown_sizes() as show:
        run = RepositoryRun(desk.options, desk.client, desk.find(path), is_forced=True, show=show)
        outcome = run.run()
    if outcome.decision.step is not Step.MAKE:
        raise RejectedError(
            "bundles.not-made", outcome.decision.reason, hint="look at `hgfleet bundles list`"
        )
    offered = outcome.in_force.state.offered
    if as_json:
        print_json([entry.to_json() for entry in offered])
    else:
        click.echo(f"made {outcome.size_bytes} bytes; {path} offers {len(offered)} bundles")
    if outcome.failures:
        failed = "; ".join(f"{failure.store}: {failure.error}" for failure in outcome.failures)
        raise TransientError("bundles.store-failed", f"not every store has taken them: {failed}")


@bundles_group.command("disable")
@click.argument("path")
@fleet_options
def disable_bundles(path: str, fleet: Fleet) -> None:
    """Offer the bundles of the repository at PATH no more, at once; they are kept."""
    with _desk(fleet) as desk:
        desk.change(desk.find(path), by_hand.disabled)
    click.echo(f"{path}: its bundles are disabled; `hgfleet bundles restore {path}` offers them again")


@bundles_group.command("restore")
@click.argument("path")
@fleet_options
def restore_bundles(path: str, fleet: Fleet) -> None:
    """Offer again what was disabled at PATH, or else the set of bundles before this one."""
    with _desk(fleet) as desk:
        state = desk.change(desk.find(path), by_hand.restored)
    click.echo(f"{path} offers {len(state.offered)} bundles")


@bundles_group.command("add")
@click.argument("path")
@click.argument("url")
@click.argument("attributes", nargs=-1, metavar="KEY=VALUE…")
@fleet_options
def add_bundle(path: str, url: str, attributes: tuple[str, ...], fleet: Fleet) -> None:
    """Offer a bundle that lies elsewhere, after fetching it; BUNDLESPEC=… says what it is.

    It stays beside what is made, and is checked like that.
    """
    with _desk(fleet) as desk:
        bound = desk.find(path)
        entry = by_hand.verified_entry(url, _parse_attributes(attributes), desk.options.urls)
        stores = desk.options.stores
        state = desk.change(bound, lambda before: by_hand.with_added(before, entry, stores, clock.now()))
    click.echo(f"{path} offers {len(state.offered)} bundles; this one has {entry.size_bytes} bytes")


def _parse_attributes(items: tuple[str, ...]) -> dict[str, str]:
    attributes = dict(item.split("=", 1) for item in items if "=" in item)
    if len(attributes) != len(items) or not attributes.get("BUNDLESPEC"):
        raise RejectedError(
            "cli.bad-option",
            "a bundle needs its specification",
            hint="such as BUNDLESPEC=zstd-v2, then attributes of your own",
        )
    return attributes


@bundles_group.command("remove")
@click.argument("path")
@click.argument("url")
@fleet_options
def remove_bundle(path: str, url: str, fleet: Fleet) -> None:
    """Offer no more what was added at URL to the repository at PATH."""
    with _desk(fleet) as desk:
        stores = desk.options.stores
        state = desk.change(
            desk.find(path), lambda before: by_hand.without_url(before, url, stores, clock.now())
        )
    click.echo(f"{path} offers {len(state.offered)} bundles")


@bundles_group.command("check")
@click.argument("path", required=False)
@click.option("--heads", is_flag=True, help="ask for sizes only instead of fetching every bundle")
@fleet_options
@json_option
def check_bundles(path: str | None, fleet: Fleet, *, heads: bool, as_json: bool) -> None:
    """Fetch every bundle of all repositories, or of the one at PATH, and drop what is gone or damaged."""
    rows: list[dict[str, Any]] = []
    with _desk(fleet) as desk:
        for bound in desk.find_all(path):
            outcome = check_repository(desk.options, desk.client, bound, is_whole=not heads)
            rows += [
                {
                    "path": bound.path,
                    "url": one.entry.url,
                    "condition": one.condition.value,
                    "reason": one.reason,
                    "is_dropped": one in outcome.dropped,
                }
                for one in outcome.checked
            ]
    if as_json:
        print_json(rows)
    else:
        print_checked(rows)
    bad = [row for row in rows if row["condition"] != Condition.WELL]
    if bad:
        raise RejectedError("bundles.unwell", f"{len(bad)} of {len(rows)} bundles cannot be fetched")
