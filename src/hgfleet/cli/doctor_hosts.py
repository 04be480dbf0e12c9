"""What `hgfleet doctor` finds out about the other hosts: their admin listeners, and what mirrors serve.

Promises: a host that does not answer is a finding; hosts are compared with this one: release, configuration
and clock.
Does not: log in anywhere.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from cryptography import x509

from hgfleet.cli.addresses import mirror_addresses, reachable
from hgfleet.cli.fleet import Fleet
from hgfleet.cli.fleet_state import configuration_digest
from hgfleet.cli.host_states import Told, ask_hosts
from hgfleet.config.hosts import is_ip
from hgfleet.model.finding import Finding
from hgfleet.runtime import clock

ASK_SECONDS = 10.0
MAX_CLOCK_SECONDS = 2.0
CERTIFICATE_DAYS = 14
_HOSTS, _CERTIFICATES = "hosts", "certificates"


def check_hosts(fleet: Fleet) -> Iterator[Finding]:
    """Ask every host of the configuration for its status."""
    told = ask_hosts(fleet.config, ASK_SECONDS)
    for each in told:
        yield from judge_host(each, version("hgfleet"), configuration_digest(fleet.config))


def judge_host(told: Told, release: str, digest: str) -> Iterator[Finding]:
    """Compare what a host said with what holds here."""
    name, state = told.host, told.state
    if state is None:
        remedy = f"see whether hgfleet runs there (systemctl status 'hgfleet-*' on {name})"
        yield Finding(_HOSTS, False, f"{name} does not answer: {told.reason}", remedy)
        return
    wrong = list(_differences(told, state, release, digest))
    yield from (Finding(_HOSTS, False, f"{name} {text}", remedy) for text, remedy in wrong)
    for problem in state.get("problems", ()):
        yield Finding(_HOSTS, False, f"{name}: {problem}", f"see its logs and journal on {name}")
    if not wrong:
        yield Finding(_HOSTS, True, f"{name} runs release {state.get('release')} with this configuration")


def _differences(
    told: Told, state: Mapping[str, Any], release: str, digest: str
) -> Iterator[tuple[str, str]]:
    if state.get("release") != release:
        yield f"runs release {state.get('release')}, this host {release}", "finish the update"
    if state.get("configuration_digest") != digest:
        remedy = "copy the file to every host and restart what runs there; hgfleet config show prints it"
        yield "runs with another configuration than this host's file", remedy
    if abs(told.clock_seconds) > MAX_CLOCK_SECONDS:
        yield f"has a clock {told.clock_seconds:+.1f} s from this host's", "let both follow NTP (chrony)"


def check_certificates(fleet: Fleet) -> Iterator[Finding]:
    """Look at the certificate that each mirror serves; one that ends soon is not well."""
    for mirror in mirror_addresses(fleet.config) if _has_ports(fleet) else []:
        address = reachable(mirror.address) if is_ip(mirror.address) else mirror.address
        try:
            ends_at = _served_until(address, mirror.port)
        except (OSError, ValueError) as error:
            remedy = f"see whether its web workers run: hgfleet run web on {mirror.name}"
            yield Finding(_CERTIFICATES, False, f"{mirror.name} serves none: {error}", remedy)
        else:
            yield judge_certificate(mirror.name, ends_at, datetime.fromtimestamp(clock.now(), UTC))


def _has_ports(fleet: Fleet) -> bool:
    return bool(fleet.config.hosts or fleet.layout.effective_config.exists())


def judge_certificate(name: str, ends_at: datetime, now: datetime) -> Finding:
    """Say how long a certificate is good for."""
    days = (ends_at - now).days
    if days >= CERTIFICATE_DAYS:
        return Finding(_CERTIFICATES, True, f"{name}'s is good for {days} days")
    remedy = "replace http.certificate and http.key, and restart hgfleet run web"
    return Finding(_CERTIFICATES, False, f"{name}'s ends on {ends_at:%Y-%m-%d}", remedy)


def _served_until(address: str, port: int) -> datetime:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an expired one is to be looked at, too
    with (
        socket.create_connection((address, port), ASK_SECONDS) as connection,
        context.wrap_socket(connection) as secured,
    ):
        data = secured.getpeercert(binary_form=True)
    if not data:
        raise ValueError("no certificate was shown")
    return x509.load_der_x509_certificate(data).not_valid_after_utc
