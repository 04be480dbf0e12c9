"""Real log agents for tests: in a thread of this process, or as a process that can be killed.

Promises: whatever a test does, nothing that was started here outlives it (use the context managers).
Does not: fake any part.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hgfleet.adapters.agent_answers import AcceptedMessage, AppendRequest, LastMessage
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.directory_blobs import DirectoryBlobs
from hgfleet.adapters.kafka_log import KafkaLog
from hgfleet.adapters.kafka_settings import KafkaSettings
from hgfleet.adapters.sqlite_log import SqliteLog, open_or_create_sqlite_log
from hgfleet.errors import FleetError
from hgfleet.model.ids import HostName, RepoId
from hgfleet.model.message import Kind, payload_ref
from hgfleet.model.settings import RepoSettings
from hgfleet.ports.replication_log import ReplicationLog
from hgfleet.replication.agent_parts import AgentOptions
from hgfleet.replication.log_agent import run_log_agent
from hgfleet.runtime.faults import VARIABLE
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
HOST = HostName("primary")
PARTITIONS = 3


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose sockets' paths are short enough for the kernel."""
    directory = Path(tempfile.mkdtemp(prefix="hgfleet-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass
class AgentPlace:
    """The files of one agent: its own socket and index, a log and blobs that it may share."""

    directory: Path
    name: str = "one"

    @property
    def socket(self) -> Path:
        return self.directory / f"{self.name}.sock"

    @property
    def index(self) -> Path:
        return self.directory / f"{self.name}.index"

    @property
    def log(self) -> Path:
        return self.directory / "log.sqlite"

    @property
    def faults(self) -> Path:
        return self.directory / "faults"

    def open_log(self) -> SqliteLog:
        return open_or_create_sqlite_log(self.log, PARTITIONS)

    def use_kafka(self, settings: KafkaSettings) -> None:
        """Have agents that are processes of their own open their log in Kafka."""
        fields = {"client": dict(settings.client), "topic_prefix": settings.topic_prefix}
        self._kafka.write_text(json.dumps(fields))

    def open_any_log(self) -> SqliteLog | KafkaLog:
        """Open the log in Kafka where one was named, else the embedded one."""
        if not self._kafka.exists():
            return self.open_log()
        return KafkaLog(KafkaSettings(**json.loads(self._kafka.read_text()), append_seconds=2.0))

    @property
    def _kafka(self) -> Path:
        return self.directory / "kafka.json"

    def options(self, log: ReplicationLog, log_id: str, **changes: Any) -> AgentOptions:
        options = AgentOptions(
            socket_path=self.socket,
            host=HOST,
            index_path=self.index,
            log=log,
            log_id=log_id,
            blobs=DirectoryBlobs(self.directory / "blobs"),
            append_deadline_seconds=3.0,
            release="test",
        )
        return replace(options, **changes)

    def client(self, timeout_seconds: float = 20.0) -> LogAgentClient:
        return LogAgentClient(self.socket, timeout_seconds)


class ThreadedAgent:
    """An agent on an event loop in a thread of this process."""

    def __init__(self, options: AgentOptions) -> None:
        self._options = options
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.error: BaseException | None = None

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.error = error

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await run_log_agent(self._options, self._stop)

    def start(self) -> None:
        self._thread.start()
        wait_until(
            lambda: self._options.socket_path.exists() or not self._thread.is_alive(),
            what="the agent listens",
        )

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # it may just have ended
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout=20)
        assert not self._thread.is_alive(), "the agent does not stop"


@contextmanager
def running_agent(options: AgentOptions, *, serving: bool = True) -> Iterator[ThreadedAgent]:
    """Run an agent until the end of the block; wait until it serves, or only answers."""
    agent = ThreadedAgent(options)
    agent.start()
    try:
        with LogAgentClient(options.socket_path) as client:
            wait_for_agent(client, serving=serving)
        yield agent
    finally:
        agent.stop()


def wait_for_agent(client: LogAgentClient, *, serving: bool = True) -> None:
    """Wait until the agent answers, and serves if wanted."""

    def is_there() -> bool:
        try:
            return client.hello().is_serving or not serving
        except FleetError:
            return False

    wait_until(is_there, what="the log agent serves")


@dataclass
class AgentProcess:
    """An agent as a process of its own."""

    place: AgentPlace
    arguments: list[str] = field(default_factory=list)
    popen: subprocess.Popen[bytes] | None = None

    def start(self, *, serving: bool = True) -> None:
        self.place.faults.mkdir(exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "tests.support.agent_main",
            str(self.place.directory),
            self.place.name,
        ]
        self.popen = subprocess.Popen(
            command + self.arguments, cwd=ROOT, env=os.environ | {VARIABLE: str(self.place.faults)}
        )
        with self.place.client() as client:
            wait_for_agent(client, serving=serving)

    def arm(self, point: str, action: str = "kill") -> None:
        (self.place.faults / point).write_text(action)

    def disarm(self, point: str) -> None:
        (self.place.faults / point).unlink(missing_ok=True)

    def wait_for_end(self) -> int:
        assert self.popen is not None
        return self.popen.wait(timeout=20)

    def kill(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait(timeout=20)

    def restart(self) -> None:
        self.kill()
        self.start()


@contextmanager
def agent_process(place: AgentPlace, *arguments: str) -> Iterator[AgentProcess]:
    """Run an agent process until the end of the block."""
    process = AgentProcess(place, list(arguments))
    try:
        process.start()
        yield process
    finally:
        process.kill()


def create_repository(client: LogAgentClient, path: str = "team/app") -> RepoId:
    """Create a repository and return its id."""
    settings = RepoSettings(writers=("developers",)).to_json()
    return client.create(path, settings, identity="alice", trace=f"create-{path}").repository


def push_request(last: LastMessage, repository: RepoId, text: str, **changes: Any) -> AppendRequest:
    """A push of some bytes on top of what `last` says."""
    request = AppendRequest(
        repository=repository,
        base_seq=last.seq,
        base_digest=last.digest,
        epoch=last.serving_epoch,
        kind=Kind.PUSH,
        body={"text": text},
        identity="alice",
        trace=f"push-{text}",
        payload=payload_ref(text.encode()),
        inline=text.encode(),
    )
    return replace(request, **changes)


def push(
    client: LogAgentClient, repository: RepoId, text: str, deadline_seconds: float = 5.0
) -> AcceptedMessage:
    """Append one push on top of what is there."""
    return client.append(push_request(client.last(repository), repository, text), deadline_seconds)
