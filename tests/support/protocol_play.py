"""Plays schedules of single steps through a world of processes, for tests of the protocol.

A world offers `steps()`, what could happen next by name, and `check()`, which raises BrokenPromiseError when
a promise is broken. A schedule is a list of names; steps that cannot happen in this world are passed over,
which is how a right rule blocks what a wrong one allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

Steps = dict[str, Callable[[], None]]


class BrokenPromiseError(AssertionError):
    """A promise is broken; `promise` is its short name."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise


class World(Protocol):
    """Processes and what they share."""

    def steps(self) -> Steps: ...

    def check(self) -> None: ...


def expect(promise: str, is_kept: bool, detail: object = "") -> None:
    """Raise BrokenPromiseError unless the promise is kept."""
    if not is_kept:
        raise BrokenPromiseError(promise, str(detail))


def play(world: World, schedule: Iterable[str]) -> list[str]:
    """Take each step that can be taken, check after each, return the names of those that could not.

    A name with `*` at its end is taken as often as it can be.
    """
    blocked = []
    for name in schedule:
        if name.endswith("*"):
            while _take(world, name[:-1]):
                pass
        elif not _take(world, name):
            blocked.append(name)
    return blocked


def _take(world: World, name: str) -> bool:
    step = world.steps().get(name)
    if step is None:
        return False
    step()
    world.check()
    return True


def broken_promise(world: World, schedule: Sequence[str]) -> str:
    """Play the schedule, every step of which must be possible; return the promise the last one breaks."""
    for number, name in enumerate(schedule):
        try:
            blocked = play(world, [name])
        except BrokenPromiseError as broken:
            return broken.promise if number == len(schedule) - 1 else f"{broken}, already at {name}"
        if blocked:
            return f"none: {name} was blocked"
    return "none"
