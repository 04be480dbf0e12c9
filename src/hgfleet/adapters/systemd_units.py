"""systemd's unit of one `hgfleet run`: kept up, told when to stop, and shut off from everything else.

The hardening is what systemd.exec(5) offers to a service that needs its own directories, the network and
nothing more. What is left out, and why: ProcSubset=pid, for a mirror reads the kernel's boot id to tell
whether its lease was written before a reboot.

Promises: only the directories that are named can be written; the unit names no secret.
Does not: make users, or directories outside /run, /var/lib and /var/log, which systemd makes itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgfleet.errors import ConfigError

STOP_SECONDS = 90  # longer than everything in a tree has to finish what is in hand
_MADE_BY_SYSTEMD = {
    Path("/run"): "RuntimeDirectory",
    Path("/var/lib"): "StateDirectory",
    Path("/var/log"): "LogsDirectory",
}
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))


@dataclass(frozen=True, slots=True)
class UnitOptions:
    """What differs between the units of a fleet."""

    role: str
    host: str
    site: str
    program: Path  # hgfleet
    config: Path
    user: str
    writable: Sequence[Path]
    after: Sequence[str] = ()  # units of the same host that should be up first
    has_low_ports: bool = False  # it listens below 1024


def unit_name(role: str) -> str:
    """Return the unit's file name."""
    return f"hgfleet-{role}.service"


def render_unit(options: UnitOptions) -> str:
    """Return the unit's text. Raises ConfigError for a path that a unit cannot carry."""
    sections = {
        "Unit": _unit(options),
        "Service": [*_service(options), *_directories(options), *_hardening(options)],
        "Install": ["WantedBy=multi-user.target"],
    }
    parts = ["\n".join([f"[{name}]", *lines, ""]) for name, lines in sections.items()]
    return "# Rendered by hgfleet.\n" + "\n".join(parts)


def _unit(options: UnitOptions) -> list[str]:
    after = " ".join(["network-online.target", *map(unit_name, options.after)])
    return [
        f"Description={_word(options.site)}: {options.role} on {options.host}",
        f"After={after}",
        "Wants=network-online.target",
        "StartLimitIntervalSec=0",
    ]


def _service(options: UnitOptions) -> list[str]:
    words = [options.program, "run", options.role, "--config", options.config, "--host", options.host]
    return [
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={' '.join(_word(str(word)) for word in words)}",
        f"User={_word(options.user)}",
        "UMask=0077",
        "Restart=always",
        "RestartSec=1",
        "# The configuration has to be changed; starting again would not help.",
        "RestartPreventExitStatus=78",
        "# It is ready when the log and everything else that it needs answer, however long that takes.",
        "TimeoutStartSec=infinity",
        f"TimeoutStopSec={STOP_SECONDS}",
        "# Its own processes are ended by it, in their order. What is left then has nobody to talk to:",
        "# an sshd's session ends with its reception, which is one of them.",
        "KillMode=mixed",
        "LimitNOFILE=65536",
    ]


def _directories(options: UnitOptions) -> Iterator[str]:
    """Yield what can be written: as directories that systemd makes, or as paths that must be there."""
    for path in sorted({*options.writable}):
        place = next((place for place in _MADE_BY_SYSTEMD if path.is_relative_to(place)), None)
        if place is None or path == place:
            yield f"ReadWritePaths={_word(str(path))}"
        else:
            yield f"{_MADE_BY_SYSTEMD[place]}={_word(str(path.relative_to(place)))}"
    # Other roles of this host use the same directory.
    yield "RuntimeDirectoryPreserve=yes"
    yield from (f"{name}Mode=0700" for name in _MADE_BY_SYSTEMD.values())


def _hardening(options: UnitOptions) -> list[str]:
    used = (options.program, options.config, *options.writable)
    is_at_home = any(path.is_relative_to(home) for path in used for home in _HOMES)
    capability = "CAP_NET_BIND_SERVICE" if options.has_low_ports else ""
    return [
        "NoNewPrivileges=yes",
        f"CapabilityBoundingSet={capability}",
        f"AmbientCapabilities={capability}",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if is_at_home else 'yes'}",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "ProtectProc=invisible",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "RemoveIPC=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
    ]


def _word(text: str) -> str:
    """Return a value as one word; `%` and `$` mean something to systemd."""
    if any(character.isspace() or character in "\"'\\;" for character in text):
        raise ConfigError("systemd.bad-word", "a unit cannot carry this", hint="choose another", value=text)
    return text.replace("%", "%%").replace("$", "$$")
