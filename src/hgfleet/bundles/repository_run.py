"""One look at one repository's bundles: decide, make, publish, put in force, tidy up.

    facts -> decide -> files made in a process of their own -> every store, read back and fetched
    -> the manifest, replacing the one that was looked at -> objects that nobody can be told of any more

Promises: nothing is put in force that was not read back; whatever fails leaves the manifest before in force,
and what was uploaded until then is used or removed by a later run. Killed between any two steps and repeated,
it goes on with what is there. Who changed the manifest meanwhile wins.
Does not: run again by itself, or look after other repositories (bundles.bundler).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hgfleet.adapters import view_files
from hgfleet.adapters.agent_answers import BoundPath
from hgfleet.adapters.agent_bundles import BundleClient
from hgfleet.bundles.making import MadeFiles, MakingOptions, Show, made_files, nothing_shown
from hgfleet.bundles.publishing import BundleStore, Failure, PublicReader, Publisher
from hgfleet.bundles.replacing import (
    due_for_removal,
    with_new_bundles,
    without_bundles,
    without_removed,
)
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.bundle_policy import BundlePolicy, Decision, RepositoryFacts, Step, decide, wanted_kinds
from hgfleet.model.bundle_state import BundleState, InForce, Made
from hgfleet.model.ids import HostName, RepoId, Seq
from hgfleet.model.view import View
from hgfleet.runtime import clock
from hgfleet.runtime.faults import NO_FAULTS, Faults


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run needs to know."""

    host: HostName
    repositories: Path  # <host>/repos
    making: MakingOptions
    publisher: Publisher
    policy: BundlePolicy  # of repositories that say nothing else
    grace_seconds: float
    clones_a_day: Callable[[RepoId], float] = lambda _repository: 0.0
    faults: Faults = NO_FAULTS

    @property
    def shortest_expiry_seconds(self) -> float:
        """How soon a store would remove what is not renewed; 0.0: none does."""
        return min((store.expiry_seconds for store in self.stores if store.expiry_seconds), default=0.0)

    @property
    def urls(self) -> PublicReader:
        """What asks public URLs."""
        return self.publisher.public

    @property
    def stores(self) -> Sequence[BundleStore]:
        """The configured stores, in order."""
        return self.publisher.stores


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did and why; `failures` are of single stores."""

    decision: Decision
    in_force: InForce
    failures: tuple[Failure, ...] = ()
    size_bytes: int = 0  # of the files that were made
    removed: int = 0  # objects


@dataclass(slots=True)
class RepositoryRun:
    """One repository, once."""

    options: RunOptions
    client: BundleClient
    bound: BoundPath
    is_forced: bool = False  # make them whatever the policy says
    show: Show = nothing_shown
    _failures: tuple[Failure, ...] = field(default=(), init=False)
    _size_bytes: int = field(default=0, init=False)

    def run(self) -> Outcome:
        """Do what is to be done now.

        Raises RejectedError, TransientError or InDoubtError: what was in force before stays, or, in doubt, is
        replaced by what was to be.
        """
        before = self.client.bundles(self.bound.repository)
        decision = self.decide(before)
        match decision.step:
            case Step.MAKE:
                after = self._make(before, decision.kinds)
            case Step.RETIRE:
                after = self._withdraw(before)
            case Step.KEEP | Step.NONE:
                after = before
        after, removed = self._tidy_up(after)
        return Outcome(decision, after, self._failures, self._size_bytes, removed)

    def decide(self, before: InForce) -> Decision:
        """Say what is to be done, and why."""
        view = self._view()
        if view is None:
            return Decision(Step.KEEP, "nothing of it is exposed on this host yet")
        if not before.is_readable:
            return Decision(Step.KEEP, "what is in force was written by a newer release")
        if not self._chosen_stores():
            step = Step.RETIRE if before.state.current.made else Step.NONE
            return Decision(step, "no store is configured for it")
        facts = self._facts(view, before)
        policy = view.settings.bundles.policy(self.options.policy)
        if self.is_forced and facts.changesets:
            return Decision(Step.MAKE, "asked for", wanted_kinds(policy, facts))
        if before.state.is_disabled:
            return Decision(Step.KEEP, "disabled by hand")
        return decide(policy, facts, clock.now())

    def _view(self) -> View | None:
        return view_files.read_exposed(self._directory / "current" / ".hg")

    @property
    def _directory(self) -> Path:
        return self.options.repositories / self.bound.repository

    def _facts(self, view: View, before: InForce) -> RepositoryFacts:
        current = before.state.current
        made = current.made
        return RepositoryFacts(
            changesets=view.changelog_length,
            clones_a_day=self.options.clones_a_day(self.bound.repository),
            made_at=made.at if made else None,
            made_changesets=made.changesets if made else 0,
            made_kinds=self._made_everywhere(before),
        )

    def _made_everywhere(self, before: InForce) -> frozenset[BundleType]:
        """Return the types that every store has: what one lacks is made again for it."""
        entries = before.state.current.entries
        made = [{e.kind for e in entries if e.store == name} for name in self._chosen_stores()]
        return frozenset(set.intersection(*made)) if made else frozenset()

    def _chosen_stores(self) -> list[str]:
        """Return the names of the stores that the repository is to use, in their order."""
        view = self._view()
        chosen = view.settings.bundles.stores if view is not None else ()
        return [store.name for store in self.options.stores if not chosen or store.name in chosen]

    # ---- making

    def _make(self, before: InForce, kinds: frozenset[BundleType]) -> InForce:
        root = (self._directory / "current").resolve()
        length = self._changelog_length()
        options = self.options.making
        with made_files(options, self.bound.repository, root, kinds, self.show) as files:
            if files is None:
                return before
            self.options.faults.reach("bundles-after-making")
            return self._publish(before, files, length)

    def _changelog_length(self) -> int:
        view = self._view()
        return view.changelog_length if view is not None else 0

    def _publish(self, before: InForce, files: MadeFiles, length: int) -> InForce:
        chosen = self._chosen_stores()
        stores = [store for store in self.options.stores if store.name in chosen]
        publisher = replace(self.options.publisher, stores=stores)
        published = publisher.publish(self.bound.path, files.tip, files.files)
        self._failures = published.failures
        self._size_bytes = sum(file.size_bytes for file in files.files)
        if not published.entries:
            raise TransientError(
                "bundles.not-published",
                "no store has taken the bundles; those before stay",
                reason="; ".join(f"{failure.store}: {failure.error}" for failure in published.failures),
            )
        made = Made(files.seq, files.tip, length, clock.now())
        state = with_new_bundles(before.state, published, made, chosen, self.options.stores)
        self.options.faults.reach("bundles-before-append")
        after = self._put_in_force(state, files.seq, before)
        self.options.faults.reach("bundles-after-append")
        return after

    def _withdraw(self, before: InForce) -> InForce:
        state = without_bundles(before.state, self.options.stores, clock.now())
        return self._put_in_force(state, before.seq, before)

    # ---- tidying up

    def _tidy_up(self, in_force: InForce) -> tuple[InForce, int]:
        """Remove what was retired long enough ago, and say so; what cannot be removed is for the next run."""
        due = due_for_removal(in_force.state, self.options.grace_seconds, clock.now())
        by_name = {store.name: store for store in self.options.stores}
        removed = []
        for one in due:
            store = by_name.get(one.store)
            try:
                if store is not None:
                    store.objects.delete(one.name)
            except (TransientError, RejectedError) as error:
                self._failures = (*self._failures, Failure(one.store, error))
                continue
            removed.append(one)
        if not removed:
            return in_force, 0
        self.options.faults.reach("bundles-after-removal")
        state = without_removed(in_force.state, removed)
        return self._put_in_force(state, in_force.seq, in_force), len(removed)

    def _put_in_force(self, state: BundleState, seq: Seq, before: InForce) -> InForce:
        return self.client.append_bundles(
            self.bound.repository,
            state,
            seq,
            before.digest,
            identity=f"host:{self.options.host}",
            trace=uuid.uuid4().hex,
        )
