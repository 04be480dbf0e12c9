"""The text of the hgrc that the session server reads, and nothing else beside it.

Apply workers, web workers and commands carry their few settings in code (hgext.local_ui, web.mercurial_ui).

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
    # Mercurial's own warning about a lock that is waited for names a path of the server.
    "ui": {
        "interactive": "no",
        "paginate": "never",
        "color": "no",
        "merge": "internal:fail",
        "timeout.warn": "86400",
    },
    # A host's own accounts decide nothing: what is served belongs to the account that runs us.
    "trusted": {"users": "", "groups": ""},
    "subrepos": {"allowed": "no", "hg:allowed": "no", "git:allowed": "no", "svn:allowed": "no"},
    "server": {"validate": "yes", "bundle1": "no", "bundle1.push": "no"},
    "experimental": {"evolution": "all"},
    "phases": {"new-commit": "draft"},
}


@dataclass(frozen=True, slots=True)
class HgrcOptions:
    """What the site chooses; durations in seconds."""

    host: str
    agent_socket: Path
    spool_directory: Path
    site_url: str
    ssh_url: str
    inline_limit_bytes: int
    append_deadline_seconds: float
    visible_wait_seconds: float
    lock_timeout_seconds: float
    allow_faults: bool
    advertise_bundles: bool = True


def render_hgrc(options: HgrcOptions) -> str:
    """Return the file's text."""
    sections = {name: dict(items) for name, items in _FIXED.items()}
    sections["ui"]["timeout"] = f"{options.lock_timeout_seconds:g}"
    sections["hgfleet"] = _own_section(options)
    return "# Rendered by hgfleet; changes are lost.\n" + "".join(
        _render_section(name, items) for name, items in sections.items()
    )


def without_mercurial_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for our processes: nothing of this machine's Mercurial set-up has a say."""
    kept = {name: value for name, value in environment.items() if _is_neutral(name)}
    return kept | {"HGRCPATH": "", "HGPLAIN": "1", "HGENCODING": "UTF-8", "LC_ALL": "C.UTF-8"}


def _is_neutral(name: str) -> bool:
    return name.startswith("HGFLEET_") or not name.startswith(("HG", "CHG", "LC_", "LANG"))


def _own_section(options: HgrcOptions) -> dict[str, str]:
    return {
        "role": "primary",
        "host": options.host,
        "agent-socket": str(options.agent_socket),
        "spool-directory": str(options.spool_directory),
        "site-url": options.site_url,
        "ssh-url": options.ssh_url,
        "inline-limit": str(options.inline_limit_bytes),
        "append-deadline": f"{options.append_deadline_seconds:g}",
        "visible-wait": f"{options.visible_wait_seconds:g}",
        "advertise-clone-bundles": "yes" if options.advertise_bundles else "no",
        "allow-faults": "yes" if options.allow_faults else "no",
    }


def _render_section(name: str, items: Mapping[str, str]) -> str:
    lines = [f"{key} = {_checked(value)}".rstrip() for key, value in items.items()]
    return "\n".join(["", f"[{name}]", *lines, ""])


def _checked(value: str) -> str:
    if "\n" in value or value != value.strip():
        raise ConfigError("hgrc.bad-value", "a value that an hgrc cannot carry", value=value)
    return value
