"""Many small disasters in a row, from a seed: what was told stays true, and everything converges."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
from collections.abc import Callable, Iterator

import pytest
from mercurial import error

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.errors import FleetError
from tests.support.mirror_fleet import Mirror, MirrorFleet, Repository, use_agent

ACTIONS = 70
ENOUGH_LOOKS = 20
POINTS = (
    *("apply-before-transaction", "apply-before-close", "apply-after-close"),
    *("applier-before-expose", "applier-after-expose"),
)
DAMAGED_FILES = ("phaseroots", "00changelog.i", "hgfleet-seq")


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MirrorFleet]:
    directory = tmp_path_factory.mktemp("storm")
    use_agent(directory)
    fleet = MirrorFleet(directory, mirrors=3)
    try:
        yield fleet.start()
    finally:
        fleet.close()


class Storm:
    """What may happen to a fleet, chosen by a seed."""

    def __init__(self, fleet: MirrorFleet, seed: int) -> None:
        self.fleet = fleet
        self.random = random.Random(seed)
        self.repositories = [fleet.create(f"storm/repo{number}") for number in range(4)]
        self._created = len(self.repositories)
        self._actions: dict[Callable[[], None], float] = {
            self.push: 30,
            self.push_many: 5,
            self.create: 2,
            self.delete: 2,
            self.kill_applier: 3,
            self.freeze_applier: 3,
            self.thaw_all: 6,
            self.arm: 4,
            self.kill_coordinator: 2,
            self.restart_agent: 1,
            self.damage: 1,
            self.wipe: 0.5,
        }

    def next_action(self) -> None:
        """Do one thing, then restart some of what has died."""
        action = self.random.choices([*self._actions], [*self._actions.values()])[0]
        with contextlib.suppress(
            FleetError, error.Abort, error.RepoError
        ):  # a write may be refused meanwhile
            action()
        for process in self.fleet.processes:
            if not process.is_running and self.random.random() < 0.5:
                process.start()

    def calm(self) -> None:
        """Heal everything."""
        for process in self.fleet.processes:
            process.disarm_all()
            if process.is_running:
                process.thaw()
            else:
                process.start()
        self.fleet.wait_agent()
        self.fleet.wait(lambda: all(m.is_ready for m in self.fleet.mirrors), "every mirror is ready", 90)

    def push(self) -> None:
        self.fleet.push(self._any_repository())

    def push_many(self) -> None:
        self.fleet.push(self._any_repository(), 10)

    def create(self) -> None:
        self._created += 1
        self.repositories.append(self.fleet.create(f"storm/repo{self._created}"))

    def delete(self) -> None:
        if len(self.repositories) > 3:
            doomed = self.repositories.pop(self.random.randrange(3, len(self.repositories)))
            self.fleet.delete(doomed)

    def kill_applier(self) -> None:
        process = self._any_mirror().process
        if process.is_running:
            process.kill()

    def freeze_applier(self) -> None:
        process = self._any_mirror().process
        if process.is_running:
            process.freeze()

    def thaw_all(self) -> None:
        for mirror in self.fleet.mirrors:
            if mirror.process.is_running:
                mirror.process.thaw()

    def arm(self) -> None:
        self._any_mirror().process.arm(self.random.choice(POINTS), self.random.choice(("kill", "enospc")))

    def kill_coordinator(self) -> None:
        if self.fleet.coordinator.is_running:
            self.fleet.coordinator.kill()

    def restart_agent(self) -> None:
        self.fleet.agent.kill()
        self.fleet.agent.start()
        self.fleet.wait_agent()

    def damage(self) -> None:
        store = self._any_mirror().hg_directory(self._any_repository().id) / "store"
        path = store / self.random.choice(DAMAGED_FILES)
        if path.exists():
            path.write_bytes(path.read_bytes()[:-3])

    def wipe(self) -> None:
        mirror = self._any_mirror()
        if mirror.process.is_running:
            mirror.process.kill()
        (mirror.home / "serving.json").unlink(missing_ok=True)
        shutil.rmtree(mirror.home, ignore_errors=True)

    def _any_repository(self) -> Repository:
        return self.random.choice(self.repositories)

    def _any_mirror(self) -> Mirror:
        return self.random.choice(self.fleet.mirrors)


class Witness(threading.Thread):
    """Notes what the fleet calls visible on all mirrors, and looks whether every ready mirror shows it."""

    def __init__(self, storm: Storm) -> None:
        super().__init__(name="witness")
        self._storm = storm
        self._client = LogAgentClient(storm.fleet.directory / "agent.sock")
        self._told: dict[str, int] = {}
        self._is_over = threading.Event()
        self.looks = 0
        self.rounds = 0
        self.lies: list[str] = []

    def run(self) -> None:
        while not self._is_over.wait(0.005):
            for repository in list(self._storm.repositories):
                self._ask(repository)
                for mirror in self._storm.fleet.mirrors:
                    self._look(mirror, repository)
            self.rounds += 1

    def end(self) -> None:
        """Stop and wait for it."""
        self._is_over.set()
        self.join()

    def _ask(self, repository: Repository) -> None:
        with contextlib.suppress(FleetError, AssertionError):  # no agent just now, or not created here yet
            seq = repository.seq
            if self._client.wait_visible(repository.id, seq, 0.05).is_visible:
                self._told[repository.id] = max(self._told.get(repository.id, 0), seq)

    def _look(self, mirror: Mirror, repository: Repository) -> None:
        told = self._told.get(repository.id, 0)
        if not told or not self._is_answering(mirror, repository):
            return
        self.looks += 1
        shown = mirror.exposed(repository.id)
        if shown < told and self._is_answering(mirror, repository) and repository in self._storm.repositories:
            self.lies.append(f"{mirror.name} shows {repository.path} at {shown}, told {told}")

    @staticmethod
    def _is_answering(mirror: Mirror, repository: Repository) -> bool:
        return mirror.is_ready and repository.id not in mirror.parked()


@pytest.mark.parametrize("seed", [1])
def test_what_was_called_visible_is_shown_by_every_ready_mirror_in_any_storm(
    fleet: MirrorFleet, seed: int
) -> None:
    storm = Storm(fleet, seed)
    witness = Witness(storm)
    witness.start()
    try:
        for _ in range(ACTIONS):
            rounds = witness.rounds
            storm.next_action()
            fleet.wait(lambda: witness.rounds > rounds, "the witness has looked round")  # noqa: B023
        storm.calm()
        for repository in storm.repositories:
            fleet.push(repository)
        fleet.assert_converged(*storm.repositories)
        fleet.wait(lambda: witness.looks > ENOUGH_LOOKS, "the witness has seen enough")
    finally:
        witness.end()
    assert witness.lies == []
