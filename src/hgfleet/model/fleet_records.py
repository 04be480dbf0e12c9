"""The records of the state topic: who is in the fleet, how far each copy is, what the coordinator decided.

A record is a key and a JSON object; of each key the compacted topic keeps only the newest, so a key must
never be written by two that could contradict each other. It therefore names the writer's run: a host's
incarnation, or a coordinator's claim and the number of its decision.

    member/<host>/<incarnation>                      the host's heartbeat; the first one asks to be admitted
    report/<host>/<incarnation>/<repository>         applied and exposed seq, parked or not
    claim/<host>/<life>                              a coordinator's claim; its offset is the claim's number
    watermark/<claim>/<number>/<repository>          decisions, under numbers of their own, never sent twice
    admit/<claim>/<number>/<host>/<incarnation>
    evict/<claim>/<number>/<host>/<incarnation>
    recount/<claim>/<number>/<host>/<incarnation>/<repository>
    wish/<host>                                      an operator's: the host shall stand aside, or serve again
    demand/<host>                                    what was cloned there within a day (model.demand)
    bundler/<host>                                   a bundler's word that it lives (bundles.turn)

Promises: parse_record(key of r, value of r) == r; a record of an unknown or damaged form is None, as the
topic may carry what a newer release writes, and a decision that nobody can read is no decision.
Does not: say which decisions count (model.fleet).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hgfleet.errors import RejectedError
from hgfleet.model.demand import Demand, parse_demand
from hgfleet.model.feed_marks import FeedMark, FeedPlace, parse_feed_record, parse_natural, parse_number
from hgfleet.model.ids import HostName, Offset, RepoId, Seq, parse_host_name, parse_repo_id
from hgfleet.model.wishes import Wish, parse_wish

Value = Mapping[str, Any]


class Stage(StrEnum):
    """What a mirror does with readers."""

    JOINING = "joining"  # refuses all reads until it is counted and has exposed what was visible before that
    SERVING = "serving"
    DRAINING = "draining"  # refuses all reads and wants to be counted out; this incarnation never comes back


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One incarnation of one host: from a join to a lapse, restart or drain, never longer."""

    host: HostName
    incarnation: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A member's word that it lives, and which release it runs."""

    member: Member
    stage: Stage
    release: str = ""
    feature_level: int = 0

    @property
    def key(self) -> str:
        return f"member/{self.member.host}/{self.member.incarnation}"

    @property
    def value(self) -> Value:
        return {"stage": self.stage.value, "release": self.release, "feature_level": self.feature_level}


NO_SEQ = Seq(0)


@dataclass(frozen=True, slots=True)
class Report:
    """How far a member's copy of one repository is.

    `parked` says why it refuses reads of it, "" if it is well; `parks` counts how often it was parked in
    this incarnation. A copy that is well again is counted again by a decision, `Recount`, like a new member.
    """

    member: Member
    repository: RepoId
    applied: Seq = NO_SEQ
    exposed: Seq = NO_SEQ
    parked: str = ""
    is_deleted: bool = False
    parks: int = 0

    @property
    def key(self) -> str:
        return f"report/{self.member.host}/{self.member.incarnation}/{self.repository}"

    @property
    def value(self) -> Value:
        return {
            "applied": self.applied,
            "exposed": self.exposed,
            "parked": self.parked,
            "is_deleted": self.is_deleted,
            "parks": self.parks,
        }

    @property
    def is_counted_out(self) -> bool:
        """Whether the repository's watermark need not wait for this copy: it answers no reads of it."""
        return self.is_deleted or bool(self.parked)


@dataclass(frozen=True, slots=True)
class Claim:
    """A coordinator's wish to decide from here on."""

    host: HostName
    life: str

    @property
    def key(self) -> str:
        return f"claim/{self.host}/{self.life}"

    @property
    def value(self) -> Value:
        return {}


@dataclass(frozen=True, slots=True)
class LifeSign:
    """A word of the coordinator that holds the claim of that number: it lives, or it leaves.

    No decision: it changes nobody's state, only how long others stand by. For people it says when (Unix
    time), and how many visible messages have not entered the feed, the oldest since when (0: none).
    """

    claim: Offset
    host: HostName
    at: float = 0.0
    is_leaving: bool = False
    feed_behind: int = 0
    feed_behind_since: float = 0.0

    @property
    def key(self) -> str:
        return f"coordinator/{self.claim}"

    @property
    def value(self) -> Value:
        return {
            "host": self.host,
            "at": self.at,
            "is_leaving": self.is_leaving,
            "feed_behind": self.feed_behind,
            "feed_behind_since": self.feed_behind_since,
        }


@dataclass(frozen=True, slots=True)
class Ticket:
    """Under which claim, and as which of its decisions, something was decided."""

    claim: Offset
    number: int

    def __str__(self) -> str:
        return f"{self.claim}/{self.number}"


@dataclass(frozen=True, slots=True)
class Watermark:
    """Mirrors may expose the repository up to `seq`."""

    ticket: Ticket
    repository: RepoId
    seq: Seq

    @property
    def key(self) -> str:
        return f"watermark/{self.ticket}/{self.repository}"

    @property
    def value(self) -> Value:
        return {"seq": self.seq}


@dataclass(frozen=True, slots=True)
class Admit:
    """From here on the member is counted."""

    ticket: Ticket
    member: Member

    @property
    def key(self) -> str:
        return f"admit/{self.ticket}/{self.member.host}/{self.member.incarnation}"

    @property
    def value(self) -> Value:
        return {}


@dataclass(frozen=True, slots=True)
class Evict:
    """From here on this incarnation of the host, and any older one, is not counted and never will be."""

    ticket: Ticket
    member: Member

    @property
    def key(self) -> str:
        return f"evict/{self.ticket}/{self.member.host}/{self.member.incarnation}"

    @property
    def value(self) -> Value:
        return {}


@dataclass(frozen=True, slots=True)
class Recount:
    """From here on the member's copy of the repository, parked `parks` times and well again, is counted."""

    ticket: Ticket
    member: Member
    repository: RepoId
    parks: int

    @property
    def key(self) -> str:
        return f"recount/{self.ticket}/{self.member.host}/{self.member.incarnation}/{self.repository}"

    @property
    def value(self) -> Value:
        return {"parks": self.parks}


Decision = Watermark | Admit | Evict | Recount
StateRecord = Heartbeat | Report | Claim | LifeSign | FeedMark | FeedPlace | Decision | Wish | Demand


def parse_record(key: str, value: Any) -> StateRecord | None:
    """Parse one record; None for what this release does not know. A tombstone's value counts as damaged."""
    if not isinstance(value, dict):
        return None
    try:
        words = key.split("/")
        if words[0] in _PARSERS:
            return _PARSERS[words[0]](words, value)
        return _parse_word(words, value) or _parse_decision(words, value)
    except (RejectedError, ValueError):
        return None


_PARSERS: dict[str, Callable[[list[str], Value], StateRecord | None]] = {
    "feed": parse_feed_record,
    "wish": parse_wish,
    "demand": parse_demand,
}


def is_report(key: str) -> bool:
    """Whether what a key names is a mirror's word about one of its copies."""
    return key.startswith("report/")


def parse_member_key(key: str) -> Member | None:
    """Return the member that a key names, a heartbeat's, report's or decision's; also of a tombstone."""
    match key.split("/"):
        case ["member", host, incarnation] | ["report", host, incarnation, _]:
            words = host, incarnation
        case ["admit" | "evict", _, _, host, incarnation] | ["recount", _, _, host, incarnation, _]:
            words = host, incarnation
        case _:
            return None
    try:
        return _member(*words)
    except (RejectedError, ValueError):
        return None


def parse_report_key(key: str) -> tuple[Member, RepoId] | None:
    """Return what a report's key names, tombstones included."""
    match key.split("/"):
        case ["report", host, incarnation, repository]:
            try:
                return _member(host, incarnation), parse_repo_id(repository)
            except (RejectedError, ValueError):
                return None
        case _:
            return None


def _parse_word(words: list[str], value: Value) -> Heartbeat | Report | Claim | LifeSign | None:
    match words:
        case ["member", host, incarnation]:
            return _heartbeat(_member(host, incarnation), value)
        case ["report", host, incarnation, repository]:
            return _report(_member(host, incarnation), parse_repo_id(repository), value)
        case ["claim", host, life]:
            return Claim(parse_host_name(host), life)
        case ["coordinator", claim]:
            return _life_sign(Offset(parse_number(claim)), value)
        case _:
            return None


def _parse_decision(words: list[str], value: Value) -> Decision | None:
    match words:
        case ["watermark", claim, number, repository]:
            return Watermark(
                _ticket(claim, number), parse_repo_id(repository), Seq(parse_natural(value, "seq"))
            )
        case ["admit", claim, number, host, incarnation]:
            return Admit(_ticket(claim, number), _member(host, incarnation))
        case ["evict", claim, number, host, incarnation]:
            return Evict(_ticket(claim, number), _member(host, incarnation))
        case ["recount", claim, number, host, incarnation, repository]:
            member, parks = _member(host, incarnation), parse_natural(value, "parks")
            return Recount(_ticket(claim, number), member, parse_repo_id(repository), parks)
        case _:
            return None


def _heartbeat(member: Member, value: Value) -> Heartbeat:
    release = value.get("release", "")
    if not isinstance(release, str):
        raise ValueError("release")
    return Heartbeat(member, Stage(str(value.get("stage"))), release, parse_natural(value, "feature_level"))


def _life_sign(claim: Offset, value: Value) -> LifeSign:
    return LifeSign(
        claim,
        parse_host_name(str(value.get("host"))),
        _time(value, "at"),
        value.get("is_leaving") is True,
        parse_natural(value, "feed_behind"),
        _time(value, "feed_behind_since"),
    )


def _time(value: Value, name: str) -> float:
    at = value.get(name)
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise ValueError(name)
    return float(at)


def _report(member: Member, repository: RepoId, value: Value) -> Report:
    parked, is_deleted = value.get("parked"), value.get("is_deleted")
    if not isinstance(parked, str) or not isinstance(is_deleted, bool):
        raise ValueError("parked")
    applied, exposed = Seq(parse_natural(value, "applied")), Seq(parse_natural(value, "exposed"))
    return Report(member, repository, applied, exposed, parked, is_deleted, parse_natural(value, "parks"))


def _member(host: str, incarnation: str) -> Member:
    return Member(parse_host_name(host), parse_number(incarnation))


def _ticket(claim: str, number: str) -> Ticket:
    return Ticket(Offset(parse_number(claim)), parse_number(number))
