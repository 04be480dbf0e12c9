"""The Mercurial of hgfleet's own processes: apply workers and commands, not sessions.

Promises: no configuration file and no environment variable of whoever started the process has a say.
Does not: serve clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mercurial import encoding, extensions, initialization
from mercurial import ui as uimod

EXTENSION = b"hgfleet.hgext.fleet"


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What such a process tells hgext.options."""

    role: str  # primary or mirror
    host: str
    agent_socket: Path | None = None
    spool_directory: Path | None = None
    inline_limit_bytes: int | None = None
    append_deadline_seconds: float = 10.0
    allow_faults: bool = False


def load_ui(chosen: LocalOptions) -> Any:
    """Return a ui with our extension loaded, and seen to be loaded; call it once per process."""
    initialization.init()
    encoding.encoding = b"UTF-8"
    encoding.encodingmode = b"strict"
    ui = uimod.ui()
    for section, name, value in _items(chosen):
        ui.setconfig(section, name, value, b"hgfleet")
    extensions.loadall(ui, [EXTENSION])
    extensions.populateui(ui)
    extensions.find(EXTENSION)  # KeyError: it must not go on without
    return ui


def _items(chosen: LocalOptions) -> list[tuple[bytes, bytes, bytes]]:
    own = {
        "role": chosen.role,
        "host": chosen.host,
        "agent-socket": str(chosen.agent_socket or ""),
        "spool-directory": str(chosen.spool_directory or ""),
        "append-deadline": f"{chosen.append_deadline_seconds:g}",
        "allow-faults": "yes" if chosen.allow_faults else "no",
    }
    if chosen.inline_limit_bytes is not None:
        own["inline-limit"] = str(chosen.inline_limit_bytes)
    return [
        (b"extensions", EXTENSION, b""),
        (b"extensions", EXTENSION + b":required", b"yes"),
        (b"ui", b"interactive", b"no"),
        (b"ui", b"timeout", b"30"),
        (b"experimental", b"evolution", b"all"),
        (b"server", b"bundle1", b"no"),
        (b"worker", b"enabled", b"no"),
        *_mirror_items(chosen.role),
        *((b"hgfleet", name.encode(), value.encode()) for name, value in own.items()),
    ]


def _mirror_items(role: str) -> list[tuple[bytes, bytes, bytes]]:
    """Return what only a mirror may do: believe that what the primary stored needs no repair.

    Mercurial otherwise rebuilds the text of every incoming file to look for the damage of its issue 6528: a
    quarter of the work of applying a small push, half of it when catching up.
    """
    return [(b"storage", b"revlog.issue6528.fix-incoming", b"no")] if role == "mirror" else []
