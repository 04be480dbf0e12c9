"""When a repository's clone bundles are made anew, and which: the decision, and its reason for people.

Promises: pure; the same facts give the same decision; whatever is decided, the reason says why in one line.
Does not: count clones, or know how bundles are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hgfleet.model.bundle_manifest import BundleType


class Wanted(StrEnum):
    """Whether a repository shall have bundles."""

    ON = "on"
    OFF = "off"
    DEMAND = "demand"  # once it is cloned often enough


DEFAULT_KINDS = frozenset(
    {BundleType.ZSTD, BundleType.GZIP_V2, BundleType.GZIP_V1, BundleType.PACKED1, BundleType.STREAM_V2}
)


@dataclass(frozen=True, slots=True)
class BundlePolicy:
    """What the site, or a repository's settings, say about its bundles."""

    wanted: Wanted = Wanted.DEMAND
    kinds: frozenset[BundleType] = DEFAULT_KINDS
    max_age_seconds: float = 24 * 3600.0  # a manifest older than this is made anew if anything changed
    growth: float = 0.02  # of the changesets that it has, made anew also when younger
    clones_for_bundles: float = 10.0  # a day, from which on a repository has bundles by demand
    clones_for_maximum: float = 500.0  # a day, from which on the compressor works as hard as it can
    keep_seconds: float = 7 * 24 * 3600.0  # by demand: bundles stay so long after the last day with demand


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """What is known of a repository when it is decided."""

    changesets: int  # public and exposed
    clones_a_day: float
    made_at: float | None = None  # of the manifest in force, None without one
    made_changesets: int = 0  # that its bundles have
    made_kinds: frozenset[BundleType] = frozenset()
    has_lost: bool = False  # an object that it names is gone or damaged
    demanded_at: float | None = None  # the last day on which there was demand


class Step(StrEnum):
    """What to do."""

    MAKE = "make"
    KEEP = "keep"
    NONE = "none"  # there are no bundles, and there shall be none
    RETIRE = "retire"  # there are, and there shall be none any more


@dataclass(frozen=True, slots=True)
class Decision:
    """The step, what to make in it, and why."""

    step: Step
    reason: str
    kinds: frozenset[BundleType] = frozenset()


def decide(policy: BundlePolicy, facts: RepositoryFacts, now: float) -> Decision:
    """Decide about one repository; `now` is Unix seconds."""
    refusal = _refusal(policy, facts, now)
    if refusal:
        has_bundles = facts.made_at is not None
        return Decision(Step.RETIRE if has_bundles else Step.NONE, refusal)
    kinds = wanted_kinds(policy, facts)
    reason = _reason_to_make(policy, facts, kinds, now)
    if reason:
        return Decision(Step.MAKE, reason, kinds)
    return Decision(Step.KEEP, _freshness(facts, now), kinds)


def wanted_kinds(policy: BundlePolicy, facts: RepositoryFacts) -> frozenset[BundleType]:
    """Return the types to make: for a much cloned repository zstd compressed as hard as it can be."""
    if BundleType.ZSTD in policy.kinds and facts.clones_a_day >= policy.clones_for_maximum:
        return policy.kinds - {BundleType.ZSTD} | {BundleType.ZSTD_MAX}
    return policy.kinds


def _refusal(policy: BundlePolicy, facts: RepositoryFacts, now: float) -> str:
    """Return why the repository shall have no bundles, "" if it shall."""
    if policy.wanted is Wanted.OFF or not policy.kinds:
        return "switched off"
    if not facts.changesets:
        return "it has no public changesets"
    if policy.wanted is Wanted.ON or facts.clones_a_day >= policy.clones_for_bundles:
        return ""
    is_kept = facts.demanded_at is not None and now - facts.demanded_at <= policy.keep_seconds
    if is_kept and facts.made_at is not None:
        return ""
    return f"{facts.clones_a_day:g} clones a day; it has bundles from {policy.clones_for_bundles:g} on"


def _reason_to_make(
    policy: BundlePolicy, facts: RepositoryFacts, kinds: frozenset[BundleType], now: float
) -> str:
    if facts.made_at is None:
        return "it has none yet"
    if facts.has_lost:
        return "an object is gone or damaged"
    missing = kinds - facts.made_kinds - _outdone(facts.made_kinds)
    if missing:
        return f"these are missing: {', '.join(sorted(kind.value for kind in missing))}"
    grown = facts.changesets - facts.made_changesets
    if grown < 0:
        return "the repository has fewer changesets than its bundles"
    if grown and grown >= policy.growth * facts.made_changesets:
        return f"it has grown by {grown} changesets"
    if grown and now - facts.made_at >= policy.max_age_seconds:
        return f"{_age(facts, now)} old, {grown} changesets behind"
    return ""


def _outdone(made: frozenset[BundleType]) -> frozenset[BundleType]:
    """Return what need not be made beside what there is: demand around a bound must not make it all anew."""
    return frozenset({BundleType.ZSTD}) if BundleType.ZSTD_MAX in made else frozenset()


def _freshness(facts: RepositoryFacts, now: float) -> str:
    return f"{_age(facts, now)} old, {facts.changesets - facts.made_changesets} changesets behind"


def _age(facts: RepositoryFacts, now: float) -> str:
    hours = max(0.0, now - (facts.made_at or now)) / 3600
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"
