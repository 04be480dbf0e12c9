"""The service in front of sshd behind a load balancer: reads who the client is, and starts an sshd for it.

Promises: SIGTERM stops listening and ends with 0; sessions that were let in go on without this process.
Does not: know accounts, or anything of what sshd does with the connection.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass

from hgfleet.adapters.prompt_sockets import listen
from hgfleet.adapters.ssh_entrance import EntranceOptions, SshEntrance
from hgfleet.adapters.sshd_connections import SshdConnections, SshdProgram
from hgfleet.errors import ConfigError

_log = logging.getLogger("hgfleet.ssh")


@dataclass(frozen=True, slots=True)
class SshEntranceOptions:
    """Where to listen, whom to believe, and which sshd gets the connections."""

    bind: str
    port: int  # 0: any free one
    entrance: EntranceOptions
    sshd: SshdProgram


def run_ssh_entrance(options: SshEntranceOptions) -> int:
    """Serve until SIGTERM or SIGINT; return 0. Raises ConfigError when it can't start."""
    return asyncio.run(_serve(options))


async def _serve(options: SshEntranceOptions) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        listener = listen(options.bind, options.port)
    except OSError as error:
        raise ConfigError(
            "ssh.listen", "cannot listen for SSH", port=options.port, reason=error.strerror or str(error)
        ) from error
    entrance = SshEntrance(listener, options.entrance, SshdConnections(options.sshd).serve)
    _log.info("ssh.entrance-ready", extra={"address": options.bind, "port": entrance.port})
    await stop.wait()
    entrance.close()
    _log.info("ssh.entrance-stopped")
    return 0
