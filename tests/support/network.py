"""Hosts as network namespaces with addresses and names of their own, and links that can be cut or slowed.

    with Network(("primary", "mirror1", "client")) as network:
        mirror = network.host("mirror1")
        child = mirror.start(Program([...]))     # its processes see only this network
        network.cut(mirror)                      # silently: packets vanish both ways
        network.cut(mirror, hears=False)         # one way: it sends, and hears nothing
        network.cut(mirror, from_=primary)       # these two only
        network.slow(mirror, delay_seconds=0.05) # each way
        network.lose(mirror, percent=20)
        network.heal()

Every host hangs on one router, so every rule is in one place: nftables there decides what passes, and a slow
host's packets take a way through a process of ours (tests.support.wire), because kernels may lack netem.

Promises: needs root, or else a kernel that lets anybody make user namespaces (and, for slow links, a
/dev/net/tun that is open to all, as it is on an ordinary machine). Nothing of the machine's own
network is touched, and nothing stays: a namespace lives as long as the process that holds it, which ends with
the test's process however that ends. The hosts share the machine's files, but for /etc/hosts.
Does not: start anything on the hosts by itself.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from hgfleet.adapters.processes import PIPE, Child, Program, start
from tests.support.clients import ROOT, Outcome, run
from tests.support.fleet import is_alive
from tests.support.server_process import find
from tests.support.socket_donor import SocketDonor
from tests.support.waiting import wait_until

DOMAIN = "hg.test"
_SUBNET = "10.77.0"
_ROUTER = f"{_SUBNET}.254"
_TABLE = """\
table inet faults
delete table inet faults
table inet faults {
  chain passing {
    type filter hook forward priority 0
RULES
  }
}
"""
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")  # entering a user namespace forgets it


class Namespace:
    """A network of its own, held by a process that ends when our end of its standard input is closed."""

    def __init__(self, name: str, *, inside: Namespace | None = None) -> None:
        self.name = name
        is_root = os.geteuid() == 0
        new_user = () if is_root or inside is not None else ("-U", "-r")
        enter = inside._enter(with_network=False) if inside is not None and not is_root else ()
        self._enters_user = not is_root
        argv = (*enter, find("unshare"), *new_user, "-n", "-m", find("cat"))
        self._holder = start(Program(argv, stdin=PIPE))
        wait_until(self._is_apart, what=f"{name} has a network of its own")
        self.inode = self._inode(self.pid)
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """The process that holds it."""
        return self._holder.pid

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command to run it here; the process that is started becomes it."""
        return self._enter(with_network=True)

    def prefix_in(self, directory: Path) -> tuple[str, ...]:
        """The same, in a working directory."""
        return self._enter(with_network=True, directory=directory)

    def _enter(self, *, with_network: bool, directory: Path | None = None) -> tuple[str, ...]:
        where = (f"--wd={directory}",) if directory is not None else ()
        user = ("-U", "--preserve-credentials") if self._enters_user else ()
        networks = ("-n", "-m") if with_network else ()
        after = _ENDS_WITH_US if self._enters_user else ()
        return (find("nsenter"), "-t", str(self.pid), *user, *networks, *where, "--", *after)

    def run(self, *argv: str, stdin: bytes = b"") -> Outcome:
        """Run a command to its end; raise AssertionError when it fails."""
        return run([*self.prefix, find(argv[0]), *argv[1:]], stdin=stdin).ok()

    def has_device(self, name: str) -> bool:
        """Tell whether there is a network device of that name."""
        return run([*self.prefix, find("ip"), "link", "show", name]).status == 0

    def start(self, program: Program) -> Child:
        """Start a program."""
        directory = program.directory
        prefix = self.prefix if directory is None else self.prefix_in(directory)
        arguments = (*prefix, find(program.arguments[0]), *program.arguments[1:])
        return start(replace(program, arguments=arguments, directory=None))

    def pids(self) -> list[int]:
        """Return the processes that run here, without the holder."""
        running = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        own = [pid for pid in running if pid != self.pid and self._inode(pid) == self.inode]
        return [pid for pid in own if is_alive(pid)]

    def kill_all(self) -> None:
        """End everything that runs here at once, as when the power fails."""
        for pid in self.pids():
            _kill(pid)
        wait_until(lambda: not self._kill_rest(), what=f"nothing runs on {self.name}")

    def close(self) -> None:
        """Let the namespace go."""
        self._holder.stdin.close()
        self._holder.stop(2)
        self._holder.close()

    def _kill_rest(self) -> list[int]:
        pids = self.pids()
        for pid in pids:
            _kill(pid)
        return pids

    def _is_apart(self) -> bool:
        assert self._holder.exit_status() is None, f"{self.name}: no network namespace could be made"
        own = self._inode(os.getpid())
        is_program = "cat" in Path(f"/proc/{self.pid}/comm").read_text()
        return is_program and self._inode(self.pid) not in (0, own)

    @staticmethod
    def _inode(pid: int) -> int:
        try:
            return Path(f"/proc/{pid}/ns/net").stat().st_ino
        except OSError:
            return 0


@dataclass(frozen=True, slots=True)
class Rule:
    """Packets that the router drops; "" is anybody."""

    source: str = ""
    target: str = ""
    percent: int = 100

    def format(self) -> str:
        """Format it for nft."""
        source = f"ip saddr {self.source} " if self.source else ""
        target = f"ip daddr {self.target} " if self.target else ""
        some = f"numgen random mod 100 < {self.percent} " if self.percent < 100 else ""
        return f"{source}{target}{some}drop"


class Host(Namespace):
    """A host of the network."""

    def __init__(self, name: str, number: int, router: Namespace, hosts_file: Path) -> None:
        super().__init__(name, inside=router)
        self.number = number
        self.address = f"{_SUBNET}.{number}"
        self._donor: SocketDonor | None = None
        self.run("mount", "--bind", str(hosts_file), "/etc/hosts")
        self._connect(router)

    def _connect(self, router: Namespace) -> None:
        """Lay a cable to the router; every host is a network of its own, so that all else is routed."""
        link = f"h{self.number}"
        router.run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        router.run("ip", "link", "set", link, "up")
        router.run("ip", "route", "add", self.address, "dev", link)
        self.run("ip", "address", "add", f"{self.address}/32", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", _ROUTER, "dev", "eth0")
        self.run("ip", "route", "add", "default", "via", _ROUTER, "dev", "eth0", "src", self.address)

    def connect(self, address: str, port: int, *, timeout_seconds: float = 10.0) -> socket.socket:
        """Return a connection from here to a port of any host, for use in this process."""
        if self._donor is None:
            self._donor = SocketDonor(self.prefix)
        return self._donor.connect(address, port, timeout_seconds=timeout_seconds)

    def kill_all(self) -> None:
        """End everything that runs here, the process that connects for us included: there will be another."""
        if self._donor is not None:
            self._donor.close()
            self._donor = None
        super().kill_all()

    def close(self) -> None:
        """End everything here and let the namespace go."""
        self.kill_all()
        super().close()


@dataclass
class Network:
    """The hosts and their router."""

    names: Sequence[str]
    directory: Path
    site: str = ""  # the host that has the domain's own name, too
    rules: list[Rule] = field(default_factory=list)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._router = Namespace("router")
            stack.callback(self._router.close)
            self._router.run("ip", "address", "add", f"{_ROUTER}/32", "dev", "lo")
            self._router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
            self.hosts: dict[str, Host] = {}
            self._wires: dict[str, _Wire] = {}
            hosts_file = self._write_names()
            for number, name in enumerate(self.names, 1):
                host = Host(name, number, self._router, hosts_file)
                stack.callback(host.close)
                self.hosts[name] = host
            stack.callback(self._end_wires)
            self._apply()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def host(self, name: str) -> Host:
        """Return a host by its name."""
        return self.hosts[name]

    def _write_names(self) -> Path:
        path = self.directory / "hosts"
        lines = ["127.0.0.1 localhost"]
        for number, name in enumerate(self.names, 1):
            own = f" {DOMAIN}" if name == self.site else ""
            lines.append(f"{_SUBNET}.{number} {name} {name}.{DOMAIN}{own}")
        path.write_text("\n".join([*lines, ""]))
        return path

    # ---- faults

    def cut(
        self, host: Host, *, from_: Host | None = None, hears: bool = False, sends: bool | None = None
    ) -> None:
        """Let packets vanish: both ways unless told what still passes; between two hosts or with everybody.

        `hears=False, sends=True`: what it sends arrives, and it hears nothing. `hears=True` is the reverse.
        """
        is_sending = False if sends is None else sends
        other = from_.address if from_ is not None else ""
        if not hears:
            self.rules.append(Rule(other, host.address))
        if not is_sending:
            self.rules.append(Rule(host.address, other))
        self._apply()

    def lose(self, host: Host, percent: int) -> None:
        """Let a part of the packets to and from a host vanish."""
        self.rules += [Rule("", host.address, percent), Rule(host.address, "", percent)]
        self._apply()

    def slow(self, host: Host, *, delay_seconds: float, jitter_seconds: float = 0.0) -> None:
        """Delay every packet to and from a host; connections go on."""
        self._end_wire(host)
        self._wires[host.name] = _Wire(self._router, host, f"{delay_seconds}", f"{jitter_seconds}")

    def heal(self, *hosts: Host) -> None:
        """Take all faults back, or those of some hosts."""
        addresses = {host.address for host in hosts}
        self.rules = [rule for rule in self.rules if hosts and not addresses & {rule.source, rule.target}]
        for host in hosts or self.hosts.values():
            self._end_wire(host)
        self._apply()

    def _apply(self) -> None:
        rules = "\n".join(f"    {rule.format()}" for rule in self.rules)
        self._router.run("nft", "-f", "-", stdin=_TABLE.replace("RULES", rules).encode())

    def _end_wire(self, host: Host) -> None:
        wire = self._wires.pop(host.name, None)
        if wire is None:
            return
        wire.close()

    def _end_wires(self) -> None:
        for host in self.hosts.values():
            self._end_wire(host)


class _Wire:
    """A second cable beside a host's first, which everything takes from now on."""

    def __init__(self, router: Namespace, host: Host, *timing: str) -> None:
        self._router = router
        self._host = host
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            self._ends = [
                self._start(router, f"slow{host.number}", ours, timing),
                self._start(host, "slow", theirs, timing),
            ]
        router.run("ip", "route", "replace", host.address, "dev", f"slow{host.number}")
        host.run("ip", "route", "replace", "default", "dev", "slow", "src", host.address)

    @staticmethod
    def _start(place: Namespace, device: str, end: socket.socket, timing: tuple[str, ...]) -> Child:
        argv = (sys.executable, "-m", "tests.support.wire", str(end.fileno()), device, *timing)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        child = place.start(Program(argv, environment=environment, descriptors=(end.fileno(),)))
        wait_until(lambda: place.has_device(device), what=f"{device} is there")
        place.run("ip", "link", "set", device, "up")
        return child

    def close(self) -> None:
        """Go back to the first cable."""
        host = self._host
        self._router.run("ip", "route", "replace", host.address, "dev", f"h{host.number}")
        host.run("ip", "route", "replace", "default", "via", _ROUTER, "dev", "eth0", "src", host.address)
        for end in self._ends:
            end.stop(2)
            end.close()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
