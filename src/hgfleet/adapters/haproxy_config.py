"""The text of HAProxy's configuration for the fleet's HTTP side, from typed values.

Promises: the plain port answers 301 to everything; a request goes only to a mirror that says it is ready,
and a client's requests for one repository to one mirror as long as that one is ready; a 502 or a connection
that failed is tried on one other mirror when the request may be repeated, a 503 never; with no ready mirror
left, those that are alive answer, marked stale; what a client says about where it comes from is replaced by
what is seen.
Does not: write files, start HAProxy, or check that the named files exist (`haproxy -c` does).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hgfleet.errors import ConfigError
from hgfleet.model.catalogue import WEB_COMMANDS

STALE_HEADER = "Hgfleet-Stale"
READY_PATH = "/-/readyz"
ALIVE_PATH = "/-/livez"
ALIVE_INTERVAL_SECONDS = 2.0  # nobody waits for it: the group is only used when there is no other

# The part of a page's path that follows the repository's: only the affinity depends on it, so a repository
# that is itself called `log` merely shares a mirror with its parent.
_PAGES = "|".join(sorted(WEB_COMMANDS))
_PAGE_SUFFIX = f"/((json|raw|rss|atom)-)?({_PAGES})(/.*)?$"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where one mirror's web workers listen, with TLS."""

    name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a mirror's change of readiness is noticed."""

    check_interval_seconds: float = 0.5
    check_timeout_seconds: float = 1.0
    falls: int = 2
    rises: int = 1

    @property
    def detection_seconds(self) -> float:
        """The longest time for which requests still go to a mirror that turned unready or froze."""
        return self.falls * (self.check_interval_seconds + self.check_timeout_seconds)


@dataclass(frozen=True, slots=True)
class HaproxyOptions:
    """Everything that the HTTP part depends on."""

    bind_address: str
    http_port: int
    https_port: int
    public_name: str  # the host name that redirects point to and the certificate names
    certificate_file: Path  # PEM: chain and key in one file
    mirrors: tuple[Mirror, ...]
    mirrors_ca_file: Path
    mirrors_name: str  # the name that the mirrors' certificates carry
    control_socket: Path | None = None
    timing: Timing = Timing()
    max_connections: int = 1000
    hsts_seconds: int = 31_536_000


def render_haproxy(options: HaproxyOptions) -> str:
    """Return the configuration's text; raise ConfigError `haproxy.bad-value` for what it can't carry."""
    if not options.mirrors:
        raise ConfigError("haproxy.no-mirrors", "a load balancer needs at least one mirror")
    sections = (
        _global(options),
        _defaults(options),
        _plain(options),
        _secure(options),
        _backend(options, "mirrors", _READY_RULES, _Check(READY_PATH, options.timing.check_interval_seconds)),
        _backend(options, "last_resort", _STALE_RULES, _Check(ALIVE_PATH, ALIVE_INTERVAL_SECONDS)),
    )
    return "\n".join(_format_section(section) for section in sections)


def _global(options: HaproxyOptions) -> list[str]:
    lines = [
        "global",
        f"maxconn {options.max_connections}",
        "log stdout format raw local0",
        "ssl-default-bind-options ssl-min-ver TLSv1.2",
        # hg sends the heads it knows in hundreds of headers of 1,000 bytes
        "tune.bufsize 1048576",
        "tune.http.maxhdr 1024",
    ]
    if options.control_socket is not None:
        lines.append(f"stats socket {_word(options.control_socket)} mode 600 level admin")
    return lines


def _defaults(options: HaproxyOptions) -> list[str]:
    return [
        "defaults",
        "mode http",
        "log global",
        "option httplog",
        "option dontlog-normal",
        "timeout connect 2s",
        "timeout client 1h",
        "timeout server 1h",
        "timeout http-request 30s",
        "timeout http-keep-alive 60s",
        "timeout queue 30s",
        f"timeout check {_milliseconds(options.timing.check_timeout_seconds)}",
    ]


def _plain(options: HaproxyOptions) -> list[str]:
    port = "" if options.https_port == 443 else f":{options.https_port}"
    target = f"https://{_name(options.public_name)}{port}%[pathq]"
    return [
        "frontend plain",
        f"bind {_address(options.bind_address, options.http_port)}",
        f"http-request redirect code 301 location {target}",
    ]


def _secure(options: HaproxyOptions) -> list[str]:
    certificate = f"ssl crt {_word(options.certificate_file)} alpn h2,http/1.1"
    return [
        "frontend secure",
        f"bind {_address(options.bind_address, options.https_port)} {certificate}",
        "http-request set-header X-Forwarded-For %[src]",
        "http-request set-header X-Forwarded-Proto https",
        "http-request del-header Forwarded",
        "http-request del-header X-Forwarded-Host",
        # a WSGI server sees no difference between `_` and `-`
        "http-request del-header _ -m sub",
        "http-request set-var(txn.client) src",
        f"""http-request set-var(txn.affinity) 'path,regsub("{_PAGE_SUFFIX}",""),concat(" ",txn.client)'""",
        f"http-after-response set-header Strict-Transport-Security max-age={options.hsts_seconds}",
        "use_backend last_resort if { nbsrv(mirrors) eq 0 }",
        "default_backend mirrors",
    ]


_READY_RULES = (
    "retry-on conn-failure empty-response 502",
    "http-request disable-l7-retry if !{ method GET HEAD }",
    "retries 1",
    "option redispatch 1",
)
_STALE_RULES = (
    "retries 1",
    "option redispatch 1",
    f"http-after-response set-header {STALE_HEADER} 1",
)


@dataclass(frozen=True, slots=True)
class _Check:
    path: str
    interval_seconds: float


def _backend(options: HaproxyOptions, name: str, rules: tuple[str, ...], check: _Check) -> list[str]:
    return [
        f"backend {name}",
        # one client never goes back in time; a repository that everybody clones is spread over all mirrors
        "balance hash var(txn.affinity)",
        "hash-type consistent djb2 avalanche",
        *rules,
        "option httpchk",
        f"http-check send meth GET uri {check.path} ver HTTP/1.1 hdr Host {_name(options.mirrors_name)}",
        "http-check expect status 200",
        f"default-server {_server_settings(options, check.interval_seconds)}",
        *(f"server {_name(m.name)} {_address(m.address, m.port)}" for m in options.mirrors),
    ]


def _server_settings(options: HaproxyOptions, interval_seconds: float) -> str:
    timing, name = options.timing, _name(options.mirrors_name)
    tls = f"ssl verify required ca-file {_word(options.mirrors_ca_file)} verifyhost {name} sni str({name})"
    interval = _milliseconds(interval_seconds)
    return f"{tls} check check-sni {name} inter {interval} fall {timing.falls} rise {timing.rises}"


def _format_section(lines: list[str]) -> str:
    return "\n".join([lines[0], *(f"    {line}" for line in lines[1:])]) + "\n"


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _name(text: str) -> str:
    """Pass a host name or a server's name, which must not need quoting."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is None:
        raise _bad_value(text)
    return text


def _address(address: str, port: int) -> str:
    """Format an IPv4 or IPv6 address or a host name, with its port."""
    if re.fullmatch(r"[0-9a-fA-F:.]+:[0-9a-fA-F:.]*", address):
        return f"ipv6@[{address}]:{port}"
    return f"{_name(address)}:{port}"


def _word(path: Path) -> str:
    """Format a file's path as one word; within single quotes HAProxy takes every character as it is."""
    text = str(path)
    if re.search(r"['\x00-\x1f\x7f]", text):
        raise _bad_value(text)
    return f"'{text}'"


def _bad_value(text: str) -> ConfigError:
    return ConfigError("haproxy.bad-value", "a value that HAProxy's configuration cannot carry", value=text)
