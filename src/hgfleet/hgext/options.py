"""What the hgrc of a hgfleet process says: the [hgfleet] section, registered and typed.

Promises: every item is declared here, so Mercurial warns about none; a missing or impossible value is a
ConfigError that names the item.
Does not: read hgfleet.toml; whoever renders the hgrc does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hgfleet.errors import ConfigError
from hgfleet.model.message import INLINE_LIMIT_BYTES

SECTION = b"hgfleet"
ROLES = frozenset({"primary", "mirror", "web"})


@dataclass(frozen=True, slots=True)
class Options:
    """The items in force."""

    role: str  # primary: writes go through the log; mirror: only the log writes; web: nobody writes
    host: str  # this host's name, the identity of what its administrators do
    agent_socket: str  # "" where nothing is written
    spool_directory: (
        str  # payloads on their way to or from the blob store; "" is the repository's own directory
    )
    site_url: str  # base URL that pushers are shown
    inline_limit_bytes: int  # larger payloads go to the blob store
    append_deadline_seconds: float
    visible_wait_seconds: float
    allow_faults: bool  # for tests: honour HGFLEET_FAULTS


def register(item: Any) -> None:
    """Declare every item of the section; `item` is the `registrar.configitem` of an extension."""
    item(SECTION, b"role", default=b"")
    item(SECTION, b"host", default=b"")
    item(SECTION, b"agent-socket", default=b"")
    item(SECTION, b"spool-directory", default=b"")
    item(SECTION, b"site-url", default=b"")
    item(SECTION, b"inline-limit", default=INLINE_LIMIT_BYTES)
    item(SECTION, b"append-deadline", default=b"10")
    item(SECTION, b"visible-wait", default=b"2")
    item(SECTION, b"allow-faults", default=False)
    item(SECTION, b"advertise-clone-bundles", default=True)
    item(SECTION, b"ssh-url", default=b"")  # where to push, told to who tries to over HTTP


def read_options(ui: Any) -> Options:
    """Read and check the section; raise ConfigError `hgrc.bad` otherwise."""
    options = Options(
        role=_text(ui, b"role"),
        host=_text(ui, b"host"),
        agent_socket=_text(ui, b"agent-socket"),
        spool_directory=_text(ui, b"spool-directory"),
        site_url=_text(ui, b"site-url"),
        inline_limit_bytes=ui.configbytes(SECTION, b"inline-limit"),
        append_deadline_seconds=_seconds(ui, b"append-deadline"),
        visible_wait_seconds=_seconds(ui, b"visible-wait"),
        allow_faults=ui.configbool(SECTION, b"allow-faults"),
    )
    _check(options)
    return options


def _check(options: Options) -> None:
    if options.role not in ROLES:
        raise _bad("hgfleet.role must be one of primary, mirror and web", options.role)
    if not options.host:
        raise _bad("hgfleet.host is missing", "")
    if options.role == "primary" and not options.agent_socket:
        raise _bad("hgfleet.agent-socket is missing", "")


def _text(ui: Any, name: bytes) -> str:
    value: bytes = ui.config(SECTION, name)
    return value.decode("utf-8")


def _seconds(ui: Any, name: bytes) -> float:
    text = _text(ui, name)
    try:
        return float(text)
    except ValueError as error:
        raise _bad(f"hgfleet.{name.decode()} is not a number of seconds", text) from error


def _bad(message: str, value: str) -> ConfigError:
    return ConfigError(
        "hgrc.bad", message, hint="this file is rendered by hgfleet; check HGRCPATH", value=value
    )
