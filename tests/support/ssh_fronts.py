"""SSH fronts without a fleet behind them: a scripted reception, a host key, one account with one key.

Each context yields a Running front; `header` is what a load balancer in front of it would send first.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.free_ports import free_port
from hgfleet.adapters.asyncssh_front import AsyncSshFront, FrontOptions
from hgfleet.adapters.openssh_front import OpenSshFront, OpenSshOptions
from hgfleet.adapters.prompt_sockets import listen
from hgfleet.adapters.ssh_entrance import EntranceOptions, SshEntrance
from hgfleet.adapters.ssh_key_files import ensure_key_pair
from hgfleet.adapters.sshd_config import SshdOptions, render_sshd_config
from hgfleet.adapters.sshd_connections import SshdConnections, SshdProgram
from hgfleet.cli.openssh import CLIENT, choose_python, own_name
from hgfleet.ports.ssh_front import SshFront
from tests.support.clients import ROOT, Outcome, clean_environment, run
from tests.support.openssh import Sshd
from tests.support.receptions import LoopThread, ScriptedReception
from tests.support.waiting import wait_until

ACCOUNT = "alice@example.org"
NO_PROXY = EntranceOptions()
BEHIND_PROXY = EntranceOptions(trusted_proxies=("127.0.0.0/8",), header_timeout_seconds=1.0)


@dataclass
class Running:
    """A front that runs, its reception, and a client's way to it."""

    directory: Path
    reception: ScriptedReception
    port: int
    header: bytes = b""
    log: Callable[[], str] = str
    restart: Callable[[], AbstractContextManager[None]] = nullcontext  # without its reception meanwhile

    def words(self, options: Sequence[str] = (), *, key: str = "key", account: str = ACCOUNT) -> list[str]:
        """Return the ssh command line up to the host's name."""
        known = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes")
        settings = [*known, "LogLevel=ERROR", *self._proxy(), *options]
        words = ["ssh", "-F", "none", "-i", str(self.directory / key), "-p", str(self.port), "-l", account]
        return [*words, *(word for setting in settings for word in ("-o", setting)), "localhost"]

    def ssh(
        self,
        *command: str,
        options: Sequence[str] = (),
        stdin: bytes = b"",
        key: str = "key",
        account: str = ACCOUNT,
    ) -> Outcome:
        """Run a command over SSH to its end."""
        words = [*self.words(options, key=key, account=account), *command]
        return run(words, env=clean_environment(self.directory), stdin=stdin)

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command over SSH; the caller ends it."""
        return subprocess.Popen(
            [*self.words(), command],
            env=clean_environment(self.directory),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def _proxy(self) -> list[str]:
        if not self.header:
            return []
        script = ROOT / "tests" / "support" / "proxied.py"
        return [f"ProxyCommand={sys.executable} {script} %h %p {self.header.hex()}"]


@contextmanager
def embedded_front(directory: Path, entrance: EntranceOptions = NO_PROXY) -> Iterator[Running]:
    """Run the embedded server."""
    running = prepare(directory)
    options = FrontOptions("127.0.0.1", running.port, directory / "host", entrance=entrance)
    with in_loop(AsyncSshFront(options, running.reception)):
        yield running


@contextmanager
def openssh_front(directory: Path, unused_timeout_seconds: float = 60.0) -> Iterator[Running]:
    """Run the reception and an sshd that listens itself."""
    running = prepare(directory)
    sshd = prepare_sshd(running, unused_timeout_seconds)
    with ExitStack() as reception:

        def start_reception() -> None:
            reception.enter_context(in_loop(OpenSshFront(gate_options(directory), running.reception)))

        @contextmanager
        def restart() -> Iterator[None]:
            reception.pop_all().close()
            yield
            start_reception()

        start_reception()
        running.restart = restart
        sshd.start()
        try:
            ready = partial(sshd.is_listening, "127.0.0.1", running.port)
            wait_until(ready, what="sshd answers", explain=sshd.explain)
            yield running
        finally:
            sshd.stop()


@contextmanager
def openssh_behind_proxy(directory: Path, entrance: EntranceOptions = BEHIND_PROXY) -> Iterator[Running]:
    """Run the reception and the entrance that starts an sshd for each connection."""
    running = prepare(directory)
    sshd = prepare_sshd(running)
    program = SshdProgram(sshd.write_wrapper(), sshd.config)
    with in_loop(OpenSshFront(gate_options(directory), running.reception)) as loop:

        def accept() -> SshEntrance:
            listener = listen("127.0.0.1", running.port)
            return SshEntrance(listener, entrance, SshdConnections(program).serve)

        accepting = loop.call(accept)
        try:
            yield running
        finally:
            loop.call(accepting.close)


def prepare(directory: Path) -> Running:
    """Make the keys and the reception that knows one of them."""
    key = ensure_key_pair(directory / "key", "")
    ensure_key_pair(directory / "other", "")
    ensure_key_pair(directory / "host", "")
    return Running(directory, ScriptedReception({ACCOUNT: (key,)}), free_port())


def prepare_sshd(running: Running, unused_timeout_seconds: float = 60.0) -> Sshd:
    """Write sshd's configuration and its accounts."""
    sshd = Sshd(running.directory / "sshd")
    sshd.accounts.write([ACCOUNT, "nobody-here"])
    keys = (str(choose_python("")), "-I", "-S", str(CLIENT), "keys", str(running.directory / "keys.sock"))
    sshd.write_config(
        render_sshd_config(
            SshdOptions(
                site="a test",
                address="127.0.0.1",
                port=running.port,
                host_key=running.directory / "host",
                keys_command=keys,
                keys_user=own_name(),
                has_service_accounts=True,
                max_connections=50,
                login_timeout_seconds=30,
                idle_timeout_seconds=300,
                unused_timeout_seconds=unused_timeout_seconds,
            )
        )
    )
    running.log = sshd.explain
    return sshd


def gate_options(directory: Path) -> OpenSshOptions:
    """Return the reception's options."""
    gate = directory / "gate.sock"
    command = (str(choose_python("")), "-I", "-S", str(CLIENT), "visit", str(gate))
    return OpenSshOptions(gate, directory / "keys.sock", command)


@contextmanager
def in_loop(front: SshFront) -> Iterator[LoopThread]:
    """Run a front in an event loop of its own."""
    loop = LoopThread()
    loop.run(front.start())
    try:
        yield loop
    finally:
        loop.run(front.stop(1.0))
        loop.stop()
