"""The log agent's part in clone bundles: which manifest is in force, who hears of it, and their messages.

A manifest is replaced by naming the one that it was made from, so that of two who change it at once one is
refused; it never matters who makes them.

Promises: a `bundles` message is appended only about a seq that this agent has read, under a body that every
reader takes; in_force is told only of what was read back. A follower hears of the last change of every
repository, however slowly it reads.
Does not: make bundles, or ask whether their URLs answer: whoever appends has read them back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from hgfleet.errors import InDoubtError, PoisonError, RejectedError
from hgfleet.model.bundle_state import parse_bundle_state
from hgfleet.model.features import check_readable
from hgfleet.model.ids import NO_DIGEST, Digest, RepoId, Seq
from hgfleet.model.message import Envelope, Json, Kind, Message, encode_message, make_message
from hgfleet.ports.replication_log import NewRecord
from hgfleet.replication.agent_fields import RequestFields
from hgfleet.replication.agent_parts import AgentParts
from hgfleet.replication.agent_streams import Event, Send
from hgfleet.replication.agent_view import AgentView, pushdata
from hgfleet.runtime import clock

READ_BACK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class NewManifest:
    """What shall be in force for a repository."""

    repository: RepoId
    seq: Seq  # that everything in the bundles is exposed at
    replaces: Digest  # of the message in force, "" where there is none
    body: Mapping[str, Json]  # but for what it replaces
    identity: str
    trace: str  # tells it from every other


class BundleDesk:
    """Answers whoever makes or offers bundles."""

    def __init__(self, parts: AgentParts) -> None:
        self._parts = parts
        self._view = parts.view

    def in_force(self, repository: RepoId) -> Message | None:
        """Return the message in force."""
        return self._view.standing(repository).manifest

    def summary(self) -> dict[str, Any]:
        """Return how many repositories offer bundles, and when the oldest of these were made."""
        made = [
            made
            for fold in self._view.folds.values()
            for _, standing in fold.standings
            if (made := _made_at(standing.manifest)) is not None
        ]
        return {"repositories": len(made), "oldest_at": min(made, default=None)}

    async def append(self, new: NewManifest, wait_seconds: float) -> Message:
        """Append the manifest and return its message once it is in force.

        Raises RejectedError (`bundles.replaced`, `repo.unknown`, `feature.not-everywhere`, …): it will not
        be; InDoubtError when the log did not answer in time.
        """
        ends_at = clock.monotonic() + wait_seconds
        self._check(new)
        while clock.monotonic() < ends_at:
            found = self._settled(new)
            if found is not None:
                return found
            await self._append_once(new)
        raise InDoubtError("log.in-doubt", "the log did not confirm the bundle manifest", seq=new.seq)

    def _check(self, new: NewManifest) -> None:
        head = self._view.head(new.repository)
        if self._view.partition_of(new.repository) is None or head.is_deleted:
            raise RejectedError("repo.unknown", "no such repository", status=404)
        if not 0 < new.seq <= head.seq:
            raise RejectedError("bundles.unknown-state", "the log does not have the bundles' state")
        try:
            parse_bundle_state(new.body)
        except PoisonError as error:
            raise RejectedError("request.bad", str(error)) from error
        check_readable(Kind.BUNDLES, self._view.fleet.feature_levels())

    def _settled(self, new: NewManifest) -> Message | None:
        """Return the message if it is in force, None while it may become so; RejectedError if it cannot."""
        in_force = self.in_force(new.repository)
        if in_force is not None and in_force.envelope.trace == new.trace:
            return in_force
        if new.replaces != self._view.standing(new.repository).manifest_digest:
            raise RejectedError(
                "bundles.replaced",
                "somebody else has changed the bundles of this repository",
                hint="look again and repeat",
            )
        return None

    async def _append_once(self, new: NewManifest) -> None:
        """Append and wait until it is read back, or something else is in force."""
        partition = self._view.partition_of(new.repository)
        if partition is None:
            raise RejectedError("repo.unknown", "no such repository", status=404)
        envelope = Envelope(
            kind=Kind.BUNDLES,
            repository=new.repository,
            seq=new.seq,
            parent=NO_DIGEST,
            epoch=self._view.readers[partition].position.epoch,
            at=clock.now(),
            identity=new.identity,
            trace=new.trace,
            body={"replaces": new.replaces, **new.body},
        )
        wire = encode_message(make_message(envelope))
        with suppress(InDoubtError):
            await self._parts.io.append([NewRecord(*pushdata(partition), wire)])
        await self._view.until(
            lambda: self._view.standing(new.repository).manifest_digest != new.replaces, READ_BACK_SECONDS
        )


def _made_at(message: Message | None) -> float | None:
    """Return when the bundles that a message offers were made, None where it offers none; without parsing."""
    body = message.envelope.body if message is not None else {}
    made = body.get("made")
    if not body.get("entries") or body.get("is_disabled") or not isinstance(made, dict):
        return None
    at = made.get("at")
    return float(at) if isinstance(at, int | float) else None


def describe(message: Message | None) -> dict[str, Any]:
    """Return the fields of an answer about a manifest; None: there is none."""
    if message is None:
        return {"digest": "", "seq": 0, "at": 0.0, "body": None}
    envelope = message.envelope
    return {"digest": message.digest, "seq": envelope.seq, "at": envelope.at, "body": dict(envelope.body)}


class BundleFollowers:
    """Everybody who follows what is in force: first all of it by digest, then what changes."""

    def __init__(self, view: AgentView) -> None:
        self._view = view
        self._followers: set[_Follower] = set()
        view.listeners.on_bundles.append(self._note)

    async def stream(self, fields: RequestFields, send: Send) -> None:
        """Send the digests, then each change, until cancelled or the other side is gone."""
        with self._following() as follower:
            await send({"event": "in-force", "digests": self._digests()})
            while True:
                for repository in await follower.next_changes():
                    await send(self._event(repository))

    def _digests(self) -> dict[RepoId, Digest]:
        return {
            repository: standing.manifest_digest
            for fold in self._view.folds.values()
            for repository, standing in fold.standings
            if standing.manifest is not None
        }

    def _event(self, repository: RepoId) -> Event:
        digest = self._view.standing(repository).manifest_digest
        return {"event": "changed", "repository": repository, "digest": digest}

    @contextmanager
    def _following(self) -> Iterator[_Follower]:
        follower = _Follower()
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def _note(self, repository: RepoId) -> None:
        for follower in self._followers:
            follower.note(repository)


class _Follower:
    """What one follower has not been told yet."""

    def __init__(self) -> None:
        self._changed: set[RepoId] = set()
        self._has_news = asyncio.Event()

    def note(self, repository: RepoId) -> None:
        self._changed.add(repository)
        self._has_news.set()

    async def next_changes(self) -> set[RepoId]:
        await self._has_news.wait()
        self._has_news.clear()
        changed, self._changed = self._changed, set()
        return changed
