"""A world of log agents, sessions and copies around one log, in single steps.

The deciding is done by the product's own rules (`Rules`; a test may put a wrong one in), everything else here
is as hostile as reality: whatever was handed to the log lands at any later step, twice, or never, also after
its sender died; agents die between any two steps or go on as zombies.

Hosts are `x` and `y`. Repository `A` and everything that is created lie in partition 0, `B` in partition 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hgfleet.model import settlement
from hgfleet.model.acceptance import NO_HEAD, PartitionReader, RepoHead, Verdict, check_next
from hgfleet.model.catalogue import Catalogue, bind_body, epoch_body, rename_body, unbind_body
from hgfleet.model.ids import (
    CATALOGUE,
    Digest,
    Epoch,
    HostName,
    Offset,
    Partition,
    Position,
    RepoId,
    RepoPath,
    Seq,
)
from hgfleet.model.message import Envelope, Json, Kind, Message, decode_message, encode_message, make_message
from hgfleet.model.settlement import Appends, HandedOver, Outcome, Settled, handed_over, outcome_of_earlier
from tests.support.protocol_play import Steps, expect

A, B = RepoId("a" * 32), RepoId("b" * 32)
LETTERS = {A: "A", B: "B"}
PATH, NEW_PATH = RepoPath("team/app"), RepoPath("team/new")
CAT = "cat"
PARTITIONS = ("p0", "p1")
OK, NOTHING, NOT_CONFIRMED = "ok", "nothing was changed", "not confirmed"


def resume_at_position(position: Position, head: tuple[RepoId, RepoHead], _: Epoch) -> PartitionReader:
    """The right way to go on: a position is an offset and the epoch in force there."""
    return PartitionReader(position, dict([head]))


@dataclass(frozen=True)
class Rules:
    """What decides. Each field is the product's rule unless a test puts a wrong one in."""

    reader: type[PartitionReader] = PartitionReader
    catalogue: type[Catalogue] = Catalogue
    appends: type[Appends] = Appends
    is_serving: Callable[[PartitionReader, Epoch], bool] = settlement.is_serving
    resume: Callable[[Position, tuple[RepoId, RepoHead], Epoch], PartitionReader] = resume_at_position
    is_epoch_kept_at_restart: bool = False
    is_flight_single: bool = True
    is_answered_when_seen: bool = False
    is_completed_before_read_back: bool = False
    is_half_bound: bool = False
    is_bind_settled_by_path: bool = False


@dataclass
class Flight:
    """One message on its way: `name` for schedules, where it goes, its bytes, and who sent it."""

    name: str
    where: str
    data: bytes
    life: str
    may_double: bool


@dataclass
class Push:
    """One session that appends: its message, who hands it over, and what the pusher was told."""

    name: str
    host: str
    life: Life
    repository: RepoId
    append: HandedOver
    message: Message
    is_out: bool = True
    told: str = ""


@dataclass
class Copy:
    """One host's copy of one repository: its reader, and what one transaction stores together."""

    reader: PartitionReader
    head: RepoHead = NO_HEAD
    parts: list[tuple[str, Digest]] = field(default_factory=list)


@dataclass
class Operation:
    """A create, delete or rename under way at one agent."""

    name: str
    kind: str
    life: Life
    repository: RepoId
    path: RepoPath
    state: str = "new"
    told: str = ""
    pending: HandedOver | None = None
    was_bound: bool = False


class Life:
    """One run of a log agent."""

    def __init__(self, world: LogWorld, name: str, host: str) -> None:
        rules = world.rules
        self.world, self.name, self.host = world, name, host
        self.state = "bidding"
        self.number = Epoch(0)
        self.catalogue = rules.catalogue()
        self.readers = {p: rules.reader() for p in PARTITIONS}
        self.appends = {where: rules.appends() for where in (CAT, *PARTITIONS)}
        self.written: set[str] = set()
        self.completed: set[str] = set()
        self.outcomes: dict[Digest, Outcome] = {}
        self.bid: HandedOver | None = None

    @property
    def is_up(self) -> bool:
        return self.state != "dead"

    def serves(self, where: str) -> bool:
        is_open = self.state == "won" and self.world.rules.is_serving(self.readers[where], self.number)
        return is_open and where in self.completed

    def next_offset(self, where: str) -> Offset:
        return self.catalogue.position.offset if where == CAT else self.readers[where].position.offset

    def read(self, where: str) -> None:
        offset = self.next_offset(where)
        message = decode_message(self.world.log[where][offset])
        if where == CAT:
            verdict = self.catalogue.take(message, Offset(offset + 1))
            epoch = self.catalogue.newest_epoch
        else:
            verdict = self.readers[where].take(message, Offset(offset + 1))
            epoch = self.readers[where].epoch
        self.note(self.appends[where].observe(message, verdict, epoch))
        if self.world.rules.is_answered_when_seen and verdict is Verdict.IGNORED:
            self.outcomes.setdefault(message.digest, Outcome.REFUSED)

    def note(self, settled: list[Settled]) -> None:
        for one in settled:
            self.outcomes[one.append.digest] = one.outcome

    def hand_over(self, where: str, message: Message, name: str, *, may_double: bool = True) -> HandedOver:
        append = handed_over(message)
        if message.envelope.kind is not Kind.VOID and where in self.appends:
            self.world.begin(self.appends[where], append)
        self.world.fly(Flight(name, where, encode_message(message), self.name, may_double))
        return append

    def message(self, kind: Kind, repository: RepoId, head: RepoHead, name: str, body: Any = None) -> Message:
        return make_message(
            Envelope(
                kind=kind,
                repository=repository,
                seq=Seq(head.seq + 1),
                parent=head.digest,
                epoch=self.number,
                at=0.0,
                identity="alice",
                trace=name,
                body=body or {},
            )
        )


class LogWorld:
    """Everything around the log; see the module."""

    def __init__(self, rules: Rules | None = None, *, max_lives: int = 3, max_pushes: int = 4) -> None:
        self.rules = rules or Rules()
        self.max_lives, self.max_pushes = max_lives, max_pushes
        self.log: dict[str, list[bytes]] = {where: [] for where in (CAT, *PARTITIONS)}
        self.messages: dict[str, list[Message]] = {where: [] for where in (CAT, *PARTITIONS)}
        self.flying: list[Flight] = []
        self.lives: list[Life] = []
        self.pushes: list[Push] = []
        self.operations: list[Operation] = []
        self.copies: dict[tuple[str, RepoId], Copy] = {}
        self.doubles = 2
        self.voids = 3
        self._fresh = 0
        self._checked: dict[str, int] = {}
        self._counted: dict[Digest, Message] = {}

    # -- the log

    def fly(self, flight: Flight) -> None:
        names = {other.name for other in self.flying}
        while flight.name in names:
            flight.name += "'"
        self.flying.append(flight)

    def land(self, flight: Flight, *, stays: bool = False) -> None:
        self.log[flight.where].append(flight.data)
        self.messages[flight.where].append(decode_message(flight.data))
        if stays:
            self.doubles -= 1
        else:
            self.flying.remove(flight)

    def begin(self, appends: Appends, append: HandedOver) -> None:
        if self.rules.is_flight_single or not appends.is_closed(append.repository):
            appends.begin(append)

    def fold(self, where: str) -> tuple[PartitionReader, list[Message]]:
        """Read a whole partition as any reader does; return the reader and what counts, in order."""
        reader, counted = self.rules.reader(), []
        for number, message in enumerate(self.messages[where]):
            if reader.take(message, Offset(number + 1)) is Verdict.COUNTS:
                counted.append(message)
        return reader, counted

    def fold_catalogue(self) -> Catalogue:
        catalogue = self.rules.catalogue()
        for number, message in enumerate(self.messages[CAT]):
            catalogue.take(message, Offset(number + 1))
        return catalogue

    def where(self, repository: RepoId) -> str:
        return "p1" if repository == B else "p0"

    # -- what can happen next

    def steps(self) -> Steps:
        steps: Steps = {}
        for made in (self._life_steps, self._log_steps, self._push_steps, self._copy_steps, self._path_steps):
            steps.update(made())
        return steps

    def _log_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for flight in self.flying:
            yield f"land {flight.name}", partial(self.land, flight)
            if self.doubles and flight.may_double:
                yield f"land {flight.name} and keep it", partial(self.land, flight, stays=True)

    def _life_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        if len(self.lives) < self.max_lives:
            for host in ("x", "y"):
                if not any(life.is_up and life.host == host for life in self.lives):
                    yield f"start on {host}", partial(self.start, host)
        for life in self.lives:
            if life.is_up:
                yield f"{life.name} dies", partial(self.die, life)
                yield from self._agent_steps(life)

    def _agent_steps(self, life: Life) -> Iterator[tuple[str, Callable[[], None]]]:
        for where in (CAT, *PARTITIONS):
            if life.next_offset(where) < len(self.log[where]):
                yield f"{life.name} reads {where}", partial(life.read, where)
        if life.state == "bidding":
            yield from self._bid_steps(life)
            return
        for where in PARTITIONS:
            if where not in life.written:
                yield f"{life.name} opens {where}", partial(self.open, life, where)
            elif where not in life.completed and self._may_complete(life, where):
                yield f"{life.name} completes {where}", partial(self.complete, life, where)

    def _bid_steps(self, life: Life) -> Iterator[tuple[str, Callable[[], None]]]:
        if life.next_offset(CAT) < len(self.log[CAT]):
            return
        if life.bid is None or life.outcomes.get(life.bid.digest) is Outcome.REFUSED:
            yield f"{life.name} bids", partial(self.bid, life)
        elif life.outcomes.get(life.bid.digest) is Outcome.ACCEPTED:
            yield f"{life.name} wins", partial(self.win, life)

    # -- lives

    def start(self, host: str) -> None:
        life = Life(self, f"L{len(self.lives) + 1}", host)
        earlier = [other for other in self.lives if other.host == host and other.number]
        self.lives.append(life)
        if self.rules.is_epoch_kept_at_restart and earlier:
            life.state, life.number = "won", earlier[-1].number
            life.written = set(PARTITIONS)

    def die(self, life: Life) -> None:
        life.state = "dead"

    def bid(self, life: Life) -> None:
        number = Epoch(life.catalogue.newest_epoch + 1)
        life.number = number
        body = epoch_body(number, HostName(life.host), life.name)
        message = life.message(Kind.EPOCH, CATALOGUE, life.catalogue.head, life.name, body)
        life.bid = life.hand_over(CAT, message, f"{life.name}.bid")

    def win(self, life: Life) -> None:
        life.state = "won"

    def open(self, life: Life, where: str) -> None:
        life.written.add(where)
        body = epoch_body(life.number, HostName(life.host), life.name)
        message = life.message(Kind.EPOCH, CATALOGUE, NO_HEAD, life.name, body)
        flight = Flight(f"{life.name}.epoch.{where}", where, encode_message(message), life.name, True)
        self.fly(flight)

    def _may_complete(self, life: Life, where: str) -> bool:
        has_read_back = self.rules.is_serving(life.readers[where], life.number)
        return has_read_back or self.rules.is_completed_before_read_back

    def complete(self, life: Life, where: str) -> None:
        """Delete one half of an earlier life, or find that none is left."""
        reader = life.readers[where]
        halves = [r for r in life.catalogue.unfinished(reader) if r not in (A, B)]
        if not halves:
            life.completed.add(where)
            return
        if life.appends[where].is_closed(halves[0]) or life.appends[CAT].is_closed(CATALOGUE):
            return
        name = f"{life.name}.completion"
        if self.rules.is_half_bound and life.catalogue.repository_at(PATH) is None:
            self._append_path(life, Kind.BIND, name, bind_body(PATH, halves[0], Partition(0)))
        else:
            message = life.message(Kind.DELETED, halves[0], reader.head(halves[0]), name)
            life.hand_over(where, message, name)

    # -- pushes

    def _push_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        if len(self.pushes) < self.max_pushes:
            for life in self.lives:
                for repository in (A, B):
                    base = self._base(life, repository)
                    if base is not None:
                        yield (
                            f"{life.name} pushes to {LETTERS[repository]}",
                            partial(self.push, life, repository, base),
                        )
        for push in self.pushes:
            if push.is_out:
                yield from self._answer_steps(push)
        yield from self._void_steps()

    def _base(self, life: Life, repository: RepoId) -> RepoHead | None:
        """What a session would build on, None where it may not append."""
        where = self.where(repository)
        if not life.is_up or not life.serves(where):
            return None
        last = [p for p in self.pushes if p.life is life and p.repository == repository and p.is_out]
        if not self.rules.is_flight_single and last:
            return RepoHead(last[-1].append.seq, last[-1].append.digest)
        is_locked = any(p.is_out and p.host == life.host and p.repository == repository for p in self.pushes)
        if is_locked or life.appends[where].is_closed(repository):
            return None
        copy = self.copy(life.host, repository)
        return copy.head if copy.head.seq == life.readers[where].head(repository).seq else None

    def push(self, life: Life, repository: RepoId, base: RepoHead) -> None:
        where = self.where(repository)
        if self.rules.is_flight_single:
            settlement.check_append(life.readers[where], life.number, repository, base.seq, base.digest)
        name = f"push{len(self.pushes) + 1}"
        message = life.message(Kind.PUSH, repository, base, name)
        append = life.hand_over(where, message, name)
        self.pushes.append(Push(name, life.host, life, repository, append, message))

    def _answer_steps(self, push: Push) -> Iterator[tuple[str, Callable[[], None]]]:
        yield f"{push.name} times out", partial(self.tell, push, NOT_CONFIRMED)
        if push.life.is_up:
            outcome = push.life.outcomes.get(push.append.digest)
            if outcome is Outcome.ACCEPTED:
                yield f"{push.name} is told", partial(self.accept, push)
                yield f"{push.name} is told and not kept", partial(self.tell, push, OK)
            elif outcome is Outcome.REFUSED:
                yield f"{push.name} is told", partial(self.tell, push, NOTHING)
            return
        for life in self.lives:
            if life.is_up and life.host == push.host and life.state == "won":
                where = self.where(push.repository)
                outcome = outcome_of_earlier(
                    self._is_read(life, push),
                    append_epoch=Epoch(0) if self.rules.is_epoch_kept_at_restart else push.append.epoch,
                    serving_epoch=life.number if life.serves(where) else Epoch(0),
                )
                if outcome is not Outcome.UNSETTLED:
                    told = OK if outcome is Outcome.ACCEPTED else NOTHING
                    yield f"{push.name} asks {life.name}", partial(self.tell, push, told)

    def _is_read(self, life: Life, push: Push) -> bool:
        where = self.where(push.repository)
        reader = self.rules.reader()
        for number, message in enumerate(self.messages[where][: life.next_offset(where)]):
            if (
                reader.take(message, Offset(number + 1)) is Verdict.COUNTS
                and message.digest == push.append.digest
            ):
                return True
        return False

    def tell(self, push: Push, told: str) -> None:
        push.is_out, push.told = False, told

    def accept(self, push: Push) -> None:
        """The session's own transaction closes: the copy has what the log has."""
        copy = self.copy(push.host, push.repository)
        if copy.head.seq == push.append.seq - 1:
            while copy.head.seq < push.append.seq:
                self.catch_up(push.host, push.repository)
        self.tell(push, OK)

    def _void_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for life in self.lives:
            for where in PARTITIONS if life.is_up and self.voids else ():
                for repository in (A, B):
                    append = life.appends[where].unsettled(repository)
                    if append is not None:
                        yield (
                            f"{life.name} voids {LETTERS[repository]}",
                            partial(self.void, life, where, append),
                        )

    def void(self, life: Life, where: str, append: HandedOver) -> None:
        life.appends[where].leave_unanswered(append.repository)
        (asked,) = [one for one in life.appends[where].voids() if one.repository == append.repository]
        self.voids -= 1
        base = RepoHead(Seq(asked.seq - 1), asked.parent)
        name = f"void{3 - self.voids}"
        life.hand_over(where, life.message(Kind.VOID, asked.repository, base, name), name)

    # -- copies

    def copy(self, host: str, repository: RepoId) -> Copy:
        return self.copies.setdefault((host, repository), Copy(self.rules.reader()))

    def _copy_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for host in ("x", "y"):
            for repository in (A, B):
                copy = self.copy(host, repository)
                if copy.reader.position.offset < len(self.log[self.where(repository)]):
                    name = f"{host} catches up {LETTERS[repository]}"
                    yield name, partial(self.catch_up, host, repository)
                if copy.head.seq:
                    name = f"{host} reopens {LETTERS[repository]}"
                    yield name, partial(self.reopen, host, repository)

    def catch_up(self, host: str, repository: RepoId) -> None:
        """Read one record; if it is the copy's next message, apply all of it in one transaction."""
        copy = self.copy(host, repository)
        offset = copy.reader.position.offset
        message = decode_message(self.log[self.where(repository)][offset])
        verdict = copy.reader.take(message, Offset(offset + 1))
        if verdict is Verdict.COUNTS and message.envelope.repository == repository:
            expect("R1", check_next(copy.head, message) is Verdict.COUNTS, message.envelope)
            copy.head = copy.reader.head(repository)
            copy.parts += [(part, message.digest) for part in ("changesets", "phases", "pushlog")]

    def reopen(self, host: str, repository: RepoId) -> None:
        """The process dies, also in a transaction; the next goes on from what was stored with the state."""
        copy = self.copy(host, repository)
        newest = self.fold_catalogue().newest_epoch
        copy.reader = self.rules.resume(copy.head.position, (repository, copy.head), newest)

    # -- paths

    def _path_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for life in self.lives:
            if (
                life.is_up
                and life.serves("p0")
                and life.serves("p1")
                and len(self.operations) < self.max_pushes
            ):
                yield from self._new_operations(life)
        for op in self.operations:
            if op.state != "done" and op.life.is_up:
                go = self._continuation(op)
                if go is not None:
                    yield f"{op.name} goes on", go

    def _new_operations(self, life: Life) -> Iterator[tuple[str, Callable[[], None]]]:
        binding = life.catalogue.repository_at(PATH)
        is_closed = life.appends[CAT].is_closed(CATALOGUE)
        if binding is None:
            yield f"{life.name} creates", partial(self.create, life)
        elif not is_closed:
            yield f"{life.name} deletes", partial(self.delete, life, binding.repository)
            if life.catalogue.repository_at(NEW_PATH) is None:
                yield f"{life.name} renames", partial(self.rename, life, binding.repository)

    def _operation(self, life: Life, kind: str, repository: RepoId) -> Operation:
        number = 1 + sum(op.kind == kind for op in self.operations)
        op = Operation(f"{kind}{number}", kind, life, repository, PATH)
        self.operations.append(op)
        return op

    def create(self, life: Life) -> None:
        self._fresh += 1
        op = self._operation(life, "create", RepoId(f"{self._fresh:032x}"))
        message = life.message(Kind.CREATED, op.repository, NO_HEAD, op.name)
        op.pending, op.state = life.hand_over("p0", message, f"{op.name}.created"), "created"

    def delete(self, life: Life, repository: RepoId) -> None:
        op = self._operation(life, "delete", repository)
        op.state = "unbind"
        op.pending = self._append_path(life, Kind.UNBIND, op.name, unbind_body(PATH, repository))

    def rename(self, life: Life, repository: RepoId) -> None:
        op = self._operation(life, "rename", repository)
        op.state = "rename"
        op.pending = self._append_path(life, Kind.RENAME, op.name, rename_body(PATH, NEW_PATH, repository))

    def _append_path(self, life: Life, kind: Kind, name: str, body: dict[str, Json]) -> HandedOver:
        message = life.message(kind, CATALOGUE, life.catalogue.head, name, body)
        return life.hand_over(CAT, message, f"{name}.{kind}")

    def _continuation(self, op: Operation) -> Callable[[], None] | None:
        """What the operation does now, None while it has to wait."""
        outcome = op.life.outcomes.get(op.pending.digest) if op.pending else None
        if op.state == "bind" and self.rules.is_bind_settled_by_path and outcome is Outcome.ACCEPTED:
            is_bound = op.life.catalogue.path_of(op.repository) is not None
            outcome = Outcome.ACCEPTED if is_bound else Outcome.REFUSED
        if outcome is None:
            return None
        return partial(self._go_on, op, outcome is Outcome.ACCEPTED)

    def _go_on(self, op: Operation, is_accepted: bool) -> None:
        match op.state, is_accepted:
            case "created", False:
                self._end(op, NOTHING)
            case ("created", True) | ("bind", False):
                self._bind_or_undo(op)
            case ("bind", True) | ("rename", True):
                op.was_bound = True
                self._end(op, OK)
            case ("unbind", True):
                self._end(op, OK)
                self._append_deleted(op)
            case ("undo", _) | ("unbind", False) | ("rename", False):
                self._end(op, NOTHING if is_accepted or op.state != "undo" else NOT_CONFIRMED)

    def _bind_or_undo(self, op: Operation) -> None:
        life = op.life
        if life.number < life.catalogue.newest_epoch:
            self._end(op, NOT_CONFIRMED)
        elif life.appends[CAT].is_closed(CATALOGUE):
            pass
        elif life.catalogue.repository_at(PATH) is None:
            body = bind_body(PATH, op.repository, Partition(0))
            op.pending, op.state = self._append_path(life, Kind.BIND, op.name, body), "bind"
        else:
            op.pending, op.state = self._append_deleted(op), "undo"

    def _append_deleted(self, op: Operation) -> HandedOver | None:
        life = op.life
        if not life.serves("p0") or life.appends["p0"].is_closed(op.repository):
            return None
        message = life.message(Kind.DELETED, op.repository, life.readers["p0"].head(op.repository), op.name)
        return life.hand_over("p0", message, f"{op.name}.deleted")

    def _end(self, op: Operation, told: str) -> None:
        op.state, op.told = "done", told

    # -- promises

    def check(self) -> None:
        lengths = {where: len(messages) for where, messages in self.messages.items()}
        if lengths != self._checked:
            self._counted = {}
            for where in PARTITIONS:
                self._check_partition(where)
            self._checked = lengths
        counted = self._counted
        self._check_pushes(counted)
        self._check_copies(counted)
        self._check_paths()

    def _check_partition(self, where: str) -> None:
        reader, messages = self.fold(where)
        self._counted |= {message.digest: message for message in messages}
        epochs = [message.envelope.epoch for message in messages]
        expect("F1", epochs == sorted(epochs), epochs)
        expect("NoOdd", not reader.parked, reader.parked)
        self._check_resumption(where)

    def _check_pushes(self, counted: dict[Digest, Message]) -> None:
        for push in self.pushes:
            is_in = push.append.digest in counted
            expect("D1", push.told != OK or is_in, push.name)
            expect("D3", push.told != NOTHING or not is_in, push.name)

    def _check_copies(self, counted: dict[Digest, Message]) -> None:
        for (host, repository), copy in self.copies.items():
            chain = [m for m in counted.values() if m.envelope.repository == repository][: copy.head.seq]
            expect("R1", repository not in copy.reader.parked, (host, copy.reader.parked))
            expect("R1", [d for part, d in copy.parts if part == "phases"] == [m.digest for m in chain], host)
            expect("D2", len(copy.parts) == 3 * copy.head.seq, host)
            is_known = all(check_next(copy.head, m) is Verdict.IGNORED for m in chain)
            expect("R6", is_known, host)

    def _check_resumption(self, where: str) -> None:
        """A reader that begins at any stored position arrives where one from the beginning arrives."""
        messages = self.messages[where]
        full, _ = self.fold(where)
        newest = self.fold_catalogue().newest_epoch
        reader = self.rules.reader()
        for number, message in enumerate(messages):
            reader.take(message, Offset(number + 1))
            for repository in full.heads:
                stored = repository, reader.head(repository)
                later = self.rules.resume(reader.position, stored, newest)
                for offset in range(number + 1, len(messages)):
                    later.take(messages[offset], Offset(offset + 1))
                is_equal = later.head(repository).digest == full.head(repository).digest
                expect("Mid", is_equal, (where, number))

    def _check_paths(self) -> None:
        catalogue = self.fold_catalogue()
        expect("Catalogue", not catalogue.parked, catalogue.parked)
        reader, _ = self.fold("p0")
        bound = {binding.repository for binding in catalogue.bindings()}
        expect("BoundCreated", bound <= set(reader.live()), bound)
        for op in self.operations:
            is_bound = op.repository in bound
            was_bound = catalogue.partition_of(op.repository) is not None
            expect("DeletedStays", not (op.kind == "delete" and op.told == OK and is_bound), op.name)
            expect("Nothing", not (op.kind == "create" and op.told == NOTHING and was_bound), op.name)
        self._check_no_half(catalogue, reader)

    def _check_no_half(self, catalogue: Catalogue, reader: PartitionReader) -> None:
        """Once the newest life serves, whatever is half done is one of its own operations."""
        halves = [r for r in catalogue.unfinished(reader) if r not in (A, B)]
        for life in self.lives:
            if not (life.is_up and life.serves("p0") and catalogue.owner.life == life.name):
                continue
            if reader.epoch != life.number:
                continue
            busy = {op.repository for op in self.operations if op.life is life}
            expect("NoHalf", set(halves) <= busy, halves)
