"""The text of HAProxy's configuration for the fleet, from typed values; docs/design tells why.

Promises: the plain port answers 301 to everything; a request goes only to a mirror that says it is ready,
requests for one repository to one mirror unless that one is much busier than the others, and then to none
that shows less of the repository than was already seen; a 502 or a connection that failed is tried on one
other mirror when the request may be repeated, a 503 never; with no ready mirror left, those that are alive
answer, marked stale; what a client says about where it comes from is replaced by what is seen.
Does not: write files, start HAProxy, or check that the named files exist (`haproxy -c` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hgfleet.adapters.haproxy_ssh import SshOptions, ssh_sections
from hgfleet.adapters.haproxy_text import (
    Section,
    address,
    check_intervals,
    format_sections,
    milliseconds,
    name,
    word,
)
from hgfleet.errors import ConfigError
from hgfleet.model.catalogue import WEB_COMMANDS

STALE_HEADER = "Hgfleet-Stale"  # on answers: nobody knows how old they are
LAST_RESORT_HEADER = "Hgfleet-Last-Resort"  # on requests to the mirrors, for the same reason
SEEN_HEADER = "Hgfleet-Seen"  # on requests: what a mirror must show at least
SEQ_HEADER = "X-HgFleet-Seq"  # on answers: what the mirror shows
REPOSITORY_HEADER = "X-HgFleet-Repository"  # on answers: of which repository
READY_PATH = "/-/readyz"
ALIVE_PATH = "/-/livez"
ALIVE_INTERVAL_SECONDS = 2.0  # nobody waits for it: the group is only used when there is no other

# The part of a page's path that follows the repository's: only the affinity depends on it, so a repository
# that is itself called `log` merely shares a mirror with its parent.
_PAGES = "|".join(sorted(WEB_COMMANDS))
_PAGE_SUFFIX = f"(/((json|raw|rss|atom)-)?({_PAGES})(/.*)?|/)$"

# The wire commands that read. A client sends their arguments in a body when it has many.
_READS = (
    *("batch", "between", "branchmap", "branches", "capabilities", "changegroup", "changegroupsubset"),
    *("clonebundles", "clonebundles_manifest", "getbundle", "heads", "known", "listkeys", "lookup"),
)
# Of a repository's answers the newest seq is kept for as long as any mirror may still be behind it, and not
# so long that a fleet restored from a backup would be refused for it.
_SEEN_SIZE = "100k"
_SEEN_SECONDS = 600
_BUFFER_BYTES = 1024 * 1024
_OWN_CSP = "default-src 'none'; frame-ancestors 'none'"


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where one mirror's web workers listen, with TLS."""

    name: str
    address: str
    port: int
    certificate_name: str = "localhost"  # the name in its certificate


@dataclass(frozen=True, slots=True)
class Timing:
    """How fast a mirror's change of readiness is noticed."""

    check_interval_seconds: float = 1.0
    check_timeout_seconds: float = 1.0
    falls: int = 2
    rises: int = 1

    @property
    def detection_seconds(self) -> float:
        """The longest time for which requests still go to a mirror that turned unready or froze."""
        return self.falls * (self.check_interval_seconds + self.check_timeout_seconds)


@dataclass(frozen=True, slots=True)
class HaproxyOptions:
    """Everything that the configuration depends on."""

    bind_address: str
    http_port: int
    https_port: int
    public_name: str  # the host name that redirects point to and the certificate names
    certificate_file: Path  # PEM: chain and key in one file
    mirrors: tuple[Mirror, ...]
    mirrors_ca_file: Path
    ssh: SshOptions | None = None  # None: the primary's SSH server owns its port
    public_port: int | None = None  # in redirects, where clients do not reach the fleet at https_port
    control_socket: Path | None = None
    timing: Timing = Timing()
    max_connections: int = 1000
    quiet_requests: int = 8  # with no more in flight, affinity alone decides
    balance_percent: int = 150  # beyond, a mirror with so much of the average load gets nothing more by it
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
        _mirrors(options),
        _busy_mirrors(options),
        _last_resort(options),
        _seen(),
        *(ssh_sections(options.ssh) if options.ssh is not None else ()),
    )
    return format_sections(sections)


def _global(options: HaproxyOptions) -> Section:
    lines = [
        "global",
        f"maxconn {options.max_connections + (options.ssh.max_connections if options.ssh else 0)}",
        "log stdout format raw local0",
        "ssl-default-bind-options ssl-min-ver TLSv1.2",
        "hard-stop-after 1h",  # of the process that a reload has replaced: its clones end first
        # hg sends the heads it knows in hundreds of headers of 1,000 bytes
        f"tune.bufsize {_BUFFER_BYTES}",
        "tune.http.maxhdr 1024",
    ]
    if options.control_socket is not None:
        socket = f"stats socket {word(options.control_socket)} mode 600 level admin expose-fd listeners"
        lines += [socket, "stats timeout 1m"]
    return lines


def _defaults(options: HaproxyOptions) -> Section:
    return [
        "defaults",
        "mode http",
        "log global",
        "option httplog",
        "option dontlog-normal",
        "timeout connect 2s",
        "timeout client 10m",  # that neither sends nor takes anything
        "timeout server 1h",
        # A mirror that is gone without a word is noticed by the kernel, long before that.
        "option srvtcpka",
        "srvtcpka-idle 10s",
        "srvtcpka-intvl 5s",
        "srvtcpka-cnt 3",
        "timeout http-request 15s",
        "timeout http-keep-alive 60s",
        "timeout queue 30s",
        f"timeout check {milliseconds(options.timing.check_timeout_seconds)}",
    ]


def _plain(options: HaproxyOptions) -> Section:
    public_port = options.public_port or options.https_port
    port = "" if public_port == 443 else f":{public_port}"
    target = f"https://{name(options.public_name)}{port}%[pathq]"
    return [
        "frontend plain",
        f"bind {address(options.bind_address, options.http_port)}",
        f"http-request redirect code 301 location {target}",
    ]


def _secure(options: HaproxyOptions) -> Section:
    certificate = f"ssl crt {word(options.certificate_file)} alpn h2,http/1.1"
    return [
        "frontend secure",
        f"bind {address(options.bind_address, options.https_port)} {certificate}",
        f"maxconn {options.max_connections}",
        *_CLEANING,
        # mirrors have no such pages; whatever comes to answer there one day, it is not for the public
        "http-request return status 404 if { path_beg -i /-/status /-/metrics }",
        *_AFFINITY,
        *_own_headers(options),
        "use_backend last_resort if { nbsrv(mirrors) eq 0 }",
        f"use_backend busy_mirrors if {{ be_conn(mirrors),add(txn.busy) ge {options.quiet_requests} }}",
        "default_backend mirrors",
    ]


_CLEANING = (
    "http-request set-header X-Forwarded-For %[src]",
    "http-request set-header X-Forwarded-Proto https",
    "http-request del-header Forwarded",
    "http-request del-header X-Forwarded-Host",
    "http-request del-header hgfleet- -m beg",
    # a WSGI server sees no difference between `_` and `-`
    "http-request del-header _ -m sub",
)
_AFFINITY = (
    f"""http-request set-var(txn.repository) 'path,regsub("{_PAGE_SUFFIX}","")'""",
    "http-request set-var(txn.key) var(txn.repository),sha1",
    "http-request set-var(txn.busy) be_conn(busy_mirrors)",
)


def _own_headers(options: HaproxyOptions) -> Section:
    """Answers of HAProxy's own get what those of a mirror have."""
    policy = f'''"{_OWN_CSP}"'''
    return [
        f"http-after-response set-header Strict-Transport-Security max-age={options.hsts_seconds}",
        "http-after-response set-header X-Content-Type-Options nosniff",
        "http-after-response set-header Referrer-Policy same-origin "
        "unless { res.hdr(Referrer-Policy) -m found }",
        f"http-after-response set-header Content-Security-Policy {policy} "
        "unless { res.hdr(Content-Security-Policy) -m found }",
        "http-after-response set-header Retry-After 2 if { status 503 } !{ res.hdr(Retry-After) -m found }",
    ]


# What a mirror has not even taken by then is asked of another one.
_UNACKNOWLEDGED = "tcp-ut 5s"
_READY_RULES = [
    "retry-on conn-failure empty-response 502",
    "retries 1",
    "option redispatch 1",
    # What is posted can be repeated when it only reads and has come whole.
    f"acl is_posted_read url_param(cmd) -m str {' '.join(_READS)}",
    "http-request wait-for-body time 10s if { method POST } is_posted_read",
    "http-request disable-l7-retry if !{ method GET HEAD } !{ method POST }",
    "http-request disable-l7-retry if { method POST } !is_posted_read",
    # The least that a mirror must show is what was seen of the repository, by anybody.
    "http-request set-var(txn.seen) var(txn.key),table_gpt(0,seen)",
    "http-request set-var(txn.seen_of) var(txn.key),table_gpt(1,seen)",
    "acl is_seen var(txn.seen) -m int gt 0",
    f"http-request set-header {SEEN_HEADER} %[var(txn.seen_of)]:%[var(txn.seen)] if is_seen",
    f"http-response set-var(txn.seq) res.hdr({SEQ_HEADER}),add(0)",
    f"http-response set-var(txn.of) res.hdr({REPOSITORY_HEADER}),crc32",
    "acl is_news var(txn.seq),sub(txn.seen) gt 0",
    "acl is_news var(txn.of),sub(txn.seen_of) lt 0",  # another repository has the path now
    "acl is_news var(txn.of),sub(txn.seen_of) gt 0",
    "http-response track-sc0 var(txn.key) table seen if is_news",
    "http-response sc-set-gpt(0,0) var(txn.seq) if is_news",
    "http-response sc-set-gpt(1,0) var(txn.of) if is_news",
]
_STALE_RULES = [
    "retries 1",
    "option redispatch 1",
    f"http-request set-header {LAST_RESORT_HEADER} 1",
    f"http-after-response set-header {STALE_HEADER} 1",
]


def _mirrors(options: HaproxyOptions) -> Section:
    """Few requests: each to the mirror that has its repository in memory."""
    return [*_by_repository("mirrors"), *_READY_RULES, *_checked_servers(options, READY_PATH)]


def _busy_mirrors(options: HaproxyOptions) -> Section:
    """More than that: none gets much more than its share."""
    return [
        *_by_repository("busy_mirrors"),
        f"hash-balance-factor {options.balance_percent}",
        *_READY_RULES,
        f"default-server {_tls(options)} {_UNACKNOWLEDGED}",
        *(f"{_server(mirror)} track mirrors/{mirror.name}" for mirror in options.mirrors),
    ]


def _last_resort(options: HaproxyOptions) -> Section:
    """No mirror is ready: any answer is better than none, if it says so."""
    return [*_by_repository("last_resort"), *_STALE_RULES, *_checked_servers(options, ALIVE_PATH)]


def _by_repository(title: str) -> Section:
    return [f"backend {title}", "balance hash var(txn.repository)", "hash-type consistent djb2 avalanche"]


def _checked_servers(options: HaproxyOptions, path: str) -> Section:
    timing = options.timing
    seconds = timing.check_interval_seconds if path == READY_PATH else ALIVE_INTERVAL_SECONDS
    checks = f"check {check_intervals(seconds)} fall {timing.falls} rise {timing.rises}"
    return [
        "option httpchk",
        f"http-check send meth GET uri {path} ver HTTP/1.1 hdr Host {name(options.public_name)}",
        "http-check expect status 200",
        f"default-server {_tls(options)} {_UNACKNOWLEDGED} {checks}",
        *(f"{_server(mirror)} check-sni {mirror.certificate_name}" for mirror in options.mirrors),
    ]


def _tls(options: HaproxyOptions) -> str:
    return f"ssl verify required ca-file {word(options.mirrors_ca_file)}"


def _server(mirror: Mirror) -> str:
    place, own = address(mirror.address, mirror.port), name(mirror.certificate_name)
    return f"server {name(mirror.name)} {place} verifyhost {own} sni str({own})"


def _seen() -> Section:
    table = f"type binary len 20 size {_SEEN_SIZE} expire {_SEEN_SECONDS}s store gpt(2)"
    return ["backend seen", f"stick-table {table}"]
