"""Adopting a copy that is ahead of its log: what the `reset` says, and what fills the log up to it.

A log that was lost or cut ends at m; the copy to adopt stands at n > m. The `reset` takes seq n + 1, with a
`void` at each seq between, so that for every reader of every host seqs go on rising: a state that was exposed
as n is never followed by a lower number, and no watermark has to fall.

Promises: pure; the messages follow one another and the log's last one.
Does not: append them (replication.agent_adoption), or know what a repository's state is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hgfleet.errors import PoisonError, RejectedError
from hgfleet.model.ids import NO_DIGEST, Digest, Position, Seq, parse_digest
from hgfleet.model.message import NO_PAYLOAD, Envelope, Json, Kind, Message, make_message

Step = tuple[Message, Position]


@dataclass(frozen=True, slots=True)
class Adopted:
    """The state of a copy by the last message it had applied: who stands there has what the `reset` says."""

    seq: Seq
    digest: Digest


def adopted_fields(adopted: Adopted) -> dict[str, Json]:
    """Return the body's `adopts`."""
    return {"seq": adopted.seq, "digest": adopted.digest}


def parse_adopted(body: Mapping[str, Json]) -> Adopted | None:
    """Return the body's `adopts`, None when it has none; raise PoisonError `message.damaged`."""
    fields = body.get("adopts")
    if fields is None:
        return None
    try:
        if not isinstance(fields, dict) or type(fields["seq"]) is not int or fields["seq"] < 1:
            raise ValueError("adopts")
        return Adopted(Seq(fields["seq"]), parse_digest(str(fields["digest"])))
    except (KeyError, ValueError, RejectedError) as error:
        raise PoisonError("message.damaged", "damaged message: what it adopts is not said") from error


def since_reset(steps: Sequence[Step]) -> Sequence[Step]:
    """Leave out what a later `reset` replaces: a copy ahead of a cut log could not apply that."""
    for number in range(len(steps) - 1, 0, -1):
        if steps[number][0].envelope.kind is Kind.RESET:
            return steps[number:]
    return steps


def fill_up(
    created: Envelope | None, last_seq: Seq, last_digest: Digest, reset: Envelope, inline: bytes = b""
) -> list[Message]:
    """Return the messages to append after (last_seq, last_digest): `created`, if any, voids, the `reset`.

    The envelopes' seqs and parents are put right here; `reset` comes with the seq that it shall have.
    """
    messages: list[Message] = []
    seq, parent = last_seq, last_digest
    if created is not None:
        seq, parent = Seq(1), NO_DIGEST
        messages.append(make_message(replace(created, seq=seq, parent=parent)))
        parent = messages[-1].digest
    while seq + 1 < reset.seq:
        seq = Seq(seq + 1)
        void = replace(reset, kind=Kind.VOID, seq=seq, parent=parent, body={}, payload=NO_PAYLOAD)
        messages.append(make_message(void))
        parent = messages[-1].digest
    return [*messages, make_message(replace(reset, parent=parent), inline)]
