"""The text of the one hgrc that a process of ours reads: HGRCPATH names it, and nothing else is read.

Promises: our extension is required, so a process that cannot load it does not run; the fixed settings of a
server are the same on every host; every setting that the site chooses is a value of HgrcOptions.
Does not: set what belongs to one repository (its own settings travel in the log).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hgfleet.errors import ConfigError

EXTENSION = "hgfleet.hgext.fleet"
Sections = Mapping[str, Mapping[str, str]]

_FIXED: Sections = {
    "extensions": {EXTENSION: "", f"{EXTENSION}:required": "yes"},
    "ui": {"interactive": "no", "paginate": "never", "color": "no", "merge": "internal:fail"},
    # A host's own accounts decide nothing: what is served belongs to the account that runs us.
    "trusted": {"users": "", "groups": ""},
    "subrepos": {"allowed": "no", "hg:allowed": "no", "git:allowed": "no", "svn:allowed": "no"},
    "server": {"validate": "yes", "bundle1": "no", "bundle1.push": "no"},
    "experimental": {"evolution": "all"},
    "phases": {"new-commit": "draft"},
}


@dataclass(frozen=True, slots=True)
class HgrcOptions:
    """What differs between processes; durations in seconds."""

    role: str  # primary, mirror or web
    host: str
    agent_socket: Path
    spool_directory: Path
    site_url: str
    inline_limit_bytes: int
    append_deadline_seconds: float
    visible_wait_seconds: float
    lock_timeout_seconds: float
    allow_faults: bool


def render_hgrc(options: HgrcOptions, extra: Sections | None = None) -> str:
    """Return the file's text; `extra` adds whole sections that a role needs."""
    sections = {name: dict(items) for name, items in _FIXED.items()}
    sections["ui"]["timeout"] = f"{options.lock_timeout_seconds:g}"
    sections["hgfleet"] = _own_section(options)
    for name, items in (extra or {}).items():
        sections.setdefault(name, {}).update(items)
    return "# Rendered by hgfleet; changes are lost.\n" + "".join(
        _render_section(name, items) for name, items in sections.items()
    )


def mercurial_environment(base: Mapping[str, str], hgrc: Path) -> dict[str, str]:
    """Return the environment of a process that reads `hgrc` and nothing else of this machine's set-up."""
    dropped = ("HG", "CHG", "LC_", "LANG")
    kept = {name: value for name, value in base.items() if not name.startswith(dropped) or _is_ours(name)}
    return kept | {"HGRCPATH": str(hgrc), "HGPLAIN": "1", "HGENCODING": "UTF-8", "LC_ALL": "C.UTF-8"}


def _is_ours(name: str) -> bool:
    return name.startswith("HGFLEET_")


def _own_section(options: HgrcOptions) -> dict[str, str]:
    return {
        "role": options.role,
        "host": options.host,
        "agent-socket": str(options.agent_socket),
        "spool-directory": str(options.spool_directory),
        "site-url": options.site_url,
        "inline-limit": str(options.inline_limit_bytes),
        "append-deadline": f"{options.append_deadline_seconds:g}",
        "visible-wait": f"{options.visible_wait_seconds:g}",
        "allow-faults": "yes" if options.allow_faults else "no",
    }


def _render_section(name: str, items: Mapping[str, str]) -> str:
    lines = [f"{key} = {_checked(value)}".rstrip() for key, value in items.items()]
    return "\n".join(["", f"[{name}]", *lines, ""])


def _checked(value: str) -> str:
    if "\n" in value or value != value.strip():
        raise ConfigError("hgrc.bad-value", "a value that an hgrc cannot carry", value=value)
    return value
