"""Renders OpenSSH's side of the SSH front: a whole sshd_config, and the lines that let keys in.

Promises: public keys are the only way in, and only those that the look-up names; a session can be nothing but
the forced command: no terminal, forwarding, subsystem, user rc or environment but for the one variable that
service accounts send. Every program and path in it is a plain word, so neither sshd's parser nor the login
shell, which runs forced commands, finds anything to interpret. Read by OpenSSH 9.2 to 10.
Does not: start sshd, or make accounts known to the system: sshd lets in only names that NSS knows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgfleet.errors import ConfigError
from hgfleet.ports.ssh_front import ON_BEHALF_VARIABLE

_PLAIN_WORD = re.compile(r"[A-Za-z0-9/._+:@=,-]+")
_KEEPALIVES = 4
_MAX_LOGINS_PER_ADDRESS = 100
_MAX_SESSIONS_PER_CONNECTION = 10
# Each key that a client's agent offers costs a look-up; people have many.
_MAX_TRIES = 10
_TEMPLATE = """\
# OpenSSH as the front of {site}. Made by `hgfleet render sshd`; made anew, never edited.

ListenAddress {address}
Port {port}
HostKey {host_key}
PidFile none
UseDNS no
VersionAddendum none
LogLevel INFO

# Who: a key that the look-up names, and nothing else. %u is the account, %t and %k the key on offer.
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
PermitEmptyPasswords no
PermitRootLogin no
UsePAM no
AuthorizedKeysFile none
AuthorizedKeysCommand {keys_command} %u %t %k
AuthorizedKeysCommandUser {keys_user}
TrustedUserCAKeys none
AuthorizedPrincipalsFile none
RequiredRSASize 2048

# What: the forced command of that key's line, alone.
PermitTTY no
DisableForwarding yes
AllowAgentForwarding no
AllowTcpForwarding no
AllowStreamLocalForwarding no
GatewayPorts no
PermitTunnel no
X11Forwarding no
PermitUserRC no
PermitUserEnvironment no
{accepted_variables}PrintMotd no
PrintLastLog no
Banner none

# How much: connections that have not logged in, and what keeps a connection.
LoginGraceTime {login_seconds}
MaxAuthTries {max_tries}
MaxStartups {startups}
PerSourceMaxStartups {per_source}
MaxSessions {max_sessions}
ClientAliveInterval {alive_seconds}
ClientAliveCountMax {alive_count}
UnusedConnectionTimeout {unused_seconds}
TCPKeepAlive yes

# ChaCha20 would be chosen first, and costs twice as much as AES-GCM on processors of today.
Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes256-ctr,aes128-ctr
Compression no
RekeyLimit 1G 1h
"""


@dataclass(frozen=True, slots=True)
class SshdOptions:
    """What differs from fleet to fleet."""

    site: str
    address: str
    port: int
    host_key: Path
    keys_command: tuple[str, ...]  # an argument list whose first program only root can change
    keys_user: str
    has_service_accounts: bool
    max_connections: int
    login_timeout_seconds: float
    idle_timeout_seconds: float
    unused_timeout_seconds: float = 60.0  # of a connection in which no session is open


def render_sshd_config(options: SshdOptions) -> str:
    """Return the whole file. Raises ConfigError `openssh.bad-word` for a path that sshd would take apart."""
    accepted = f"AcceptEnv {ON_BEHALF_VARIABLE}\n" if options.has_service_accounts else ""
    half = max(1, options.max_connections // 2)
    return _TEMPLATE.format(
        site="".join(char if char.isprintable() else "?" for char in options.site),
        address=plain_word(options.address),
        port=options.port,
        host_key=plain_word(str(options.host_key)),
        keys_command=" ".join(map(plain_word, options.keys_command)),
        keys_user=plain_word(options.keys_user),
        accepted_variables=accepted,
        login_seconds=math.ceil(options.login_timeout_seconds),
        max_tries=_MAX_TRIES,
        startups=f"{half}:30:{options.max_connections}",
        per_source=min(_MAX_LOGINS_PER_ADDRESS, options.max_connections),
        max_sessions=_MAX_SESSIONS_PER_CONNECTION,
        alive_seconds=math.ceil(options.idle_timeout_seconds / _KEEPALIVES),
        alive_count=_KEEPALIVES,
        unused_seconds=math.ceil(options.unused_timeout_seconds),
    )


def authorized_key(command: Sequence[str], key_type: str, key: str) -> str:
    """Return the authorized_keys line that lets a key in to one command and nothing else."""
    words = " ".join(map(plain_word, command))
    return f'restrict,command="{words}" {plain_word(key_type)} {plain_word(key)}\n'


def plain_word(word: str) -> str:
    """Return a word that no parser on its way changes; raise ConfigError `openssh.bad-word` otherwise."""
    if _PLAIN_WORD.fullmatch(word) is None:
        raise ConfigError(
            "openssh.bad-word",
            "a path or name that sshd is given has a character that it would interpret",
            hint="use letters, digits and / . _ + : @ = , - only",
            word=word,
        )
    return word
