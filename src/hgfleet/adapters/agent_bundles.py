"""What the log agent's clients ask and are told about clone bundles (docs/design/local-protocols.md).

Promises: those of LogAgentClient. A manifest that a newer release has written, or that is damaged, is nothing
that could be offered, and still the one that the next has to replace.
Does not: decide what a manifest should say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hgfleet.adapters.agent_answers import Fields, parse_with
from hgfleet.adapters.agent_client import EventStream, LogAgentClient
from hgfleet.errors import PoisonError
from hgfleet.model.bundle_state import NOTHING, BundleState, InForce, parse_bundle_state
from hgfleet.model.demand import DemandCount, DemandKey, parse_rows
from hgfleet.model.frames import Frame
from hgfleet.model.ids import Digest, RepoId, Seq

APPEND_SECONDS = 15.0  # the agent reads the message back


@dataclass(frozen=True, slots=True)
class BundleDigests:
    """The first event of bundles_follow(): every manifest in force by its message's digest."""

    digests: Mapping[RepoId, Digest]


@dataclass(frozen=True, slots=True)
class BundlesChanged:
    """Another manifest is in force; digest "": none is, any more."""

    repository: RepoId
    digest: Digest


BundleEvent = BundleDigests | BundlesChanged


class BundleClient(LogAgentClient):
    """Requests about bundles, beside all others; not for two threads at once."""

    def bundles(self, repository: RepoId) -> InForce:
        """Return what is in force."""
        return self._ask(_parse_in_force, "bundles", repository=repository)

    def append_bundles(
        self, repository: RepoId, state: BundleState, seq: Seq, replaces: Digest, *, identity: str, trace: str
    ) -> InForce:
        """Put a state in force in the place of the message that it was made from.

        Raises RejectedError `bundles.replaced`, `repo.unknown`, `feature.not-everywhere`, …: it will not be.
        """
        fields = {"repository": repository, "seq": seq, "replaces": replaces, "body": state.to_json()}
        who = {"identity": identity, "trace": trace}
        frame = self._change(
            "bundles_append", fields | who, wait_seconds=self._timeout_seconds + APPEND_SECONDS
        )
        return parse_with(_parse_in_force, frame)

    def demand(self) -> dict[DemandKey, DemandCount]:
        """Return what all mirrors together counted of clones within a day."""
        return self._ask(lambda frame: parse_rows(frame.header["rows"]), "demand")

    def bundles_follow(self) -> EventStream[BundleEvent]:
        """Begin a stream: BundleDigests, then a BundlesChanged per change."""
        return EventStream(self._connect(), "bundles_follow", _parse_event)


def _parse_in_force(frame: Frame) -> InForce:
    fields = frame.header
    state, is_readable = _parse_state(fields)
    return InForce(state, Digest(fields["digest"]), Seq(fields["seq"]), float(fields["at"]), is_readable)


def _parse_state(fields: Fields) -> tuple[BundleState, bool]:
    """Return what is said, and whether that could be read."""
    if fields["body"] is None:
        return NOTHING, True
    try:
        return parse_bundle_state(fields["body"]), True
    except PoisonError:
        return NOTHING, False


def _parse_event(frame: Frame) -> BundleEvent:
    fields = frame.header
    if fields["event"] == "changed":
        return BundlesChanged(RepoId(fields["repository"]), Digest(fields["digest"]))
    return BundleDigests({RepoId(name): Digest(digest) for name, digest in fields["digests"].items()})
