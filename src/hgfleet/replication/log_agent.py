"""The log agent of one host: the only process there that holds a client of the replication log.

It reads the log to its end, listens, and where this host may lead becomes the primary's agent. Sessions,
appliers and commands talk to it over a Unix socket. docs/design/log-agent.md tells how the parts fit.

Promises: nothing is answered before the log was read to the end that it had when the agent started; SIGTERM
and SIGINT end it after what is under way; a part that dies ends the whole agent, and its next life begins
from the log.
Does not: read configuration, configure logging or open the log (cli).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from hgfleet.errors import ConfigError
from hgfleet.model.ids import Offset
from hgfleet.model.message import Topic
from hgfleet.ports.replication_log import ReplicationLog
from hgfleet.replication.agent_appends import AppendDesk
from hgfleet.replication.agent_blobs import clean_blobs_regularly
from hgfleet.replication.agent_catalogue import CatalogueDesk
from hgfleet.replication.agent_log_io import LogIo, Place
from hgfleet.replication.agent_parts import AgentOptions, AgentParts
from hgfleet.replication.agent_primary import Candidate, Primary
from hgfleet.replication.agent_progress import Progress
from hgfleet.replication.agent_requests import Requests
from hgfleet.replication.agent_retention import Retention
from hgfleet.replication.agent_server import AgentServer
from hgfleet.replication.agent_start import open_index
from hgfleet.replication.agent_view import FEED_PLACE, AgentView
from hgfleet.replication.agent_visibility import VisibilityDesk
from hgfleet.runtime.lifecycle import STOP_SIGNALS

FLUSH_SECONDS = 0.5
POOL_THREADS = 6
BLOB_THREADS = 3
STOP_GRACE_SECONDS = 3.0  # for requests under way; clients of a cut one ask the next life

_Pools = tuple[ThreadPoolExecutor, ThreadPoolExecutor]

logger = logging.getLogger("hgfleet.replication.log_agent")


async def run_log_agent(options: AgentOptions, stop: asyncio.Event | None = None) -> None:
    """Run until a stop signal, or until `stop` is set (then signals are left alone).

    Raises ConfigError when it cannot start, and what ended it otherwise.
    """
    with _only_agent(options), open_index(options) as (index, known), _pools() as pools:
        feed_offset = options.log.end_offset(*FEED_PLACE)
        view = AgentView(options.log.partitions(Topic.PUSHDATA), index, known, feed_offset)
        async with _log_io(options, view) as io:
            _end_on_broken_callback(io)
            await _catch_up(options.log, view, io, pools[0])
            parts = _assemble(options, view, io, pools)
            await _serve(parts, stop or _stop_on_signals())


@contextmanager
def _pools() -> Iterator[_Pools]:
    """Threads that read the log, and threads that move blobs; at the end their work is waited for."""
    with ThreadPoolExecutor(POOL_THREADS) as reading, ThreadPoolExecutor(BLOB_THREADS) as blobs:
        yield reading, blobs


def _assemble(options: AgentOptions, view: AgentView, io: LogIo, pools: _Pools) -> AgentParts:
    desk = AppendDesk(io, view, options.host)
    candidate = Candidate(options.host, options.may_lead, options.takes_over, options.may_found)
    primary = Primary(candidate, io, view, desk)
    return AgentParts(
        options=options,
        view=view,
        io=io,
        desk=desk,
        primary=primary,
        catalogue_desk=CatalogueDesk(view, desk, primary, options.faults),
        visibility=VisibilityDesk(view),
        progress=Progress(view, options.progress),
        pool=pools[0],
        blob_pool=pools[1],
    )


async def _serve(parts: AgentParts, stop: asyncio.Event) -> None:
    """Serve until told to stop, or until a part fails."""
    retention = Retention(parts)
    server = AgentServer(parts.options.socket_path, Requests(parts, retention))
    await server.start()
    leading = asyncio.create_task(parts.primary.run())
    flushing = asyncio.create_task(_flush_regularly(parts.view))
    keeping = asyncio.create_task(retention.run())
    cleaning = asyncio.create_task(clean_blobs_regularly(parts))
    committing = asyncio.create_task(parts.progress.run())
    stopping = asyncio.create_task(stop.wait())
    logger.info("agent.listening", extra={"socket": str(parts.options.socket_path)})
    try:
        await _until_one_ends(stopping, leading, flushing, keeping, cleaning, parts.io.failed)
    finally:
        await server.stop(STOP_GRACE_SECONDS)
        parts.catalogue_desk.close()
        parts.desk.close()
        for task in (leading, flushing, keeping, cleaning, committing, stopping):
            task.cancel()


async def _until_one_ends(
    stopping: asyncio.Task[Any], leading: asyncio.Task[None], *vital: asyncio.Future[None]
) -> None:
    """Wait for the stop; raise what a part died of. `leading` may end well: then the agent is a standby."""
    watched: set[asyncio.Future[Any]] = {stopping, leading, *vital}
    while not stopping.done():
        done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        for future in done:
            future.result()


async def _flush_regularly(view: AgentView) -> None:
    while True:
        await view.until(lambda: False, FLUSH_SECONDS)
        view.flush_if_due(FLUSH_SECONDS)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


# ---- starting


@contextmanager
def _only_agent(options: AgentOptions) -> Iterator[None]:
    """Keep a second agent away from this host's index and socket; ConfigError `log.agent-running`."""
    path = options.index_path.with_name(f"{options.index_path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError("log.agent-running", "a log agent runs here already", path=str(path)) from error


def _end_on_broken_callback(io: LogIo) -> None:
    """Let no callback fail unnoticed; a failed connection's task is logged and harms nobody else."""

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        error = context.get("exception")
        if error is not None and "handle" in context:
            io.fail(error)

    asyncio.get_running_loop().set_exception_handler(note)


@asynccontextmanager
async def _log_io(options: AgentOptions, view: AgentView) -> AsyncIterator[LogIo]:
    io = LogIo(options.log, view.positions(), view.take)
    io.start()
    try:
        yield io
    finally:
        await asyncio.to_thread(io.stop)


async def _catch_up(log: ReplicationLog, view: AgentView, io: LogIo, pool: ThreadPoolExecutor) -> None:
    """Read everything that is there now. Raises TransientError when the log cannot be read."""
    loop = asyncio.get_running_loop()
    ends: dict[Place, Offset] = {}
    for place in view.positions():
        ends[place] = await loop.run_in_executor(pool, log.end_offset, *place)

    def is_level() -> bool:
        return all(view.positions()[place] >= end for place, end in ends.items())

    reading: asyncio.Future[bool] = asyncio.create_task(view.until(is_level))
    watched: set[asyncio.Future[Any]] = {reading, io.failed}
    await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    if io.failed.done():
        reading.cancel()
        io.failed.result()
