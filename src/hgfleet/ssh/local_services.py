"""The log agent and the session server as the reception asks them: from the event loop, through threads.

Promises: an agent that does not answer in time is TransientError; connections are kept and used by one thread
at a time.
Does not: repeat changes (adapters.agent_client says what may be repeated).
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from hgfleet.adapters.agent_answers import BoundPath, CatalogueChange, Visibility
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.local_client import LocalClient
from hgfleet.adapters.session_client import OpenSession, open_session
from hgfleet.errors import InDoubtError, TransientError
from hgfleet.model.ids import CATALOGUE, AccountName, RepoPath
from hgfleet.model.settings import RepoSettings, parse_repo_settings

QUESTION_SECONDS = 5.0  # for one try; a question is asked twice
CHANGE_SECONDS = 20.0  # a change in doubt takes the agent a while to settle
T = TypeVar("T")


class LocalServices:
    """The two local sockets."""

    def __init__(self, agent_socket: Path, sessions_socket: Path, executor: Executor) -> None:
        self._agent_socket = agent_socket
        self._sessions_socket = sessions_socket
        self._executor = executor
        self._clients: queue.SimpleQueue[LogAgentClient] = queue.SimpleQueue()

    async def resolve(self, path: RepoPath) -> BoundPath:
        """Return where a path leads. Raises RejectedError `repo.unknown`, TransientError."""
        return await self._ask(lambda agent: agent.resolve(path))

    async def create(
        self, path: RepoPath, settings: RepoSettings, identity: AccountName, trace: str
    ) -> CatalogueChange:
        """Create a repository. Raises RejectedError, TransientError or InDoubtError."""

        def create() -> CatalogueChange:
            with LogAgentClient(self._agent_socket, CHANGE_SECONDS) as agent:
                return agent.create(path, settings.to_json(), identity=identity, trace=trace)

        return await asyncio.get_running_loop().run_in_executor(self._executor, create)

    async def wait_created(self, change: CatalogueChange, timeout_seconds: float) -> Visibility:
        """Wait until the mirrors in service show a change of the catalogue, or the time is over."""
        return await self._ask(
            lambda agent: agent.wait_visible(CATALOGUE, change.catalogue_seq, timeout_seconds)
        )

    async def settings(self, bound: BoundPath) -> RepoSettings:
        """Return a repository's settings as of the end of its log. Raises TransientError."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._read_settings, bound)

    async def check_sessions(self) -> None:
        """Return when the session server answers. Raises TransientError."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._check_sessions)

    async def open_session(self, request: dict[str, object], streams: tuple[int, int, int]) -> OpenSession:
        """Start a session worker on the descriptors. Raises TransientError or RejectedError."""
        return await open_session(self._sessions_socket, request, streams)

    def _check_sessions(self) -> None:
        try:
            with LocalClient(self._sessions_socket, QUESTION_SECONDS) as client:
                client.call("status")
        except (TransientError, InDoubtError) as error:
            raise TransientError("sessions.unreachable", "the session server does not answer") from error

    def _read_settings(self, bound: BoundPath) -> RepoSettings:
        with LocalClient(self._sessions_socket, CHANGE_SECONDS) as client:
            answer = client.call("catch_up", repository=bound.repository, partition=bound.partition)
            return parse_repo_settings(answer.header["settings"])

    async def _ask(self, question: Callable[[LogAgentClient], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._use_client, question)

    def _use_client(self, question: Callable[[LogAgentClient], T]) -> T:
        client = self._take_client()
        try:
            return question(client)
        finally:
            self._clients.put(client)

    def _take_client(self) -> LogAgentClient:
        with suppress(queue.Empty):
            return self._clients.get_nowait()
        return LogAgentClient(self._agent_socket, QUESTION_SECONDS)
