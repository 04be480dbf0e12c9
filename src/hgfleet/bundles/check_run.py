"""One check of one repository's bundles: ask, renew, and put in force what is left.

Promises: what is dropped is dropped from what is in force now, or, if somebody changed that meanwhile, not by
this run; the set before is kept for `restore` only as far as it is well.
Does not: decide when (bundles.check_times).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace

from hgfleet.adapters.agent_answers import BoundPath
from hgfleet.adapters.agent_bundles import BundleClient
from hgfleet.bundles.checking import Checked, Condition, check_entries, renew_entries, to_be_dropped
from hgfleet.bundles.replacing import with_entries
from hgfleet.bundles.repository_run import RunOptions
from hgfleet.model.bundle_state import InForce
from hgfleet.runtime import clock


@dataclass(frozen=True, slots=True)
class CheckOutcome:
    """Every entry as it was found, those that are advertised no more, and what is in force now."""

    checked: tuple[Checked, ...]
    dropped: tuple[Checked, ...]
    in_force: InForce

    @property
    def unreachable(self) -> set[str]:
        """The URLs that could not be asked."""
        return {one.entry.url for one in self.checked if one.condition is Condition.UNREACHABLE}


def check_repository(
    options: RunOptions,
    client: BundleClient,
    bound: BoundPath,
    *,
    is_whole: bool,
    unreachable_before: frozenset[str] = frozenset(),
) -> CheckOutcome:
    """Ask every URL and drop what is gone. Raises what stands in the way of the new manifest."""
    before = client.bundles(bound.repository)
    checked = check_entries(before.state.current.entries, options.urls, is_whole=is_whole)
    return _without(options, client, bound, before, checked, to_be_dropped(checked, unreachable_before))


def renew_repository(options: RunOptions, client: BundleClient, bound: BoundPath) -> CheckOutcome:
    """Renew everything that is advertised or could be restored; what its store has lost is dropped."""
    before = client.bundles(bound.repository)
    previous = before.state.previous
    failed = renew_entries(before.state.current.entries, options.stores)
    renew_entries(previous.entries if previous else (), options.stores)
    gone = [one for one in failed if one.condition is Condition.GONE]
    return _without(options, client, bound, before, failed, gone)


def _without(
    options: RunOptions,
    client: BundleClient,
    bound: BoundPath,
    before: InForce,
    checked: list[Checked],
    dropped: list[Checked],
) -> CheckOutcome:
    after = before
    if dropped:
        gone = {one.entry.url for one in dropped}
        left = tuple(entry for entry in before.state.current.entries if entry.url not in gone)
        state = with_entries(before.state, left, options.stores, clock.now())
        previous = state.previous
        if previous is not None:
            kept = tuple(entry for entry in previous.entries if entry.url not in gone)
            state = replace(state, previous=replace(previous, entries=kept))
        after = client.append_bundles(
            bound.repository,
            state,
            before.seq,
            before.digest,
            identity=f"host:{options.host}",
            trace=uuid.uuid4().hex,
        )
    return CheckOutcome(tuple(checked), tuple(dropped), after)
