"""Makes the certificate authority and the server certificate of a fleet on one machine.

Promises: private keys are readable by their owner only; what is there and still fits is kept; a server
certificate that ends within a month or lacks a name is replaced, by rename.
Does not: serve a fleet that has certificates from elsewhere: those are configured, and never touched.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hgfleet.adapters.files import write_by_rename
from hgfleet.runtime import clock

_CA_DAYS = 3650
_SERVER_DAYS = 397
_RENEW_DAYS = 30


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the authority's and the server's certificate and key lie."""

    ca: Path
    ca_key: Path
    certificate: Path
    key: Path


def ensure_certificates(files: CertificateFiles, names: Sequence[str]) -> bool:
    """Make what is missing or no longer fits the names (host names or addresses); say whether it did."""
    if not files.ca.exists() or not files.ca_key.exists():
        _make_authority(files)
    elif files.key.exists() and _is_fit(files, names):
        return False
    _make_server(files, names)
    return True


def _make_authority(files: CertificateFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("hgfleet local authority")
    builder = _builder(name, name, key, _CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(is_authority=True), critical=True)
    write_by_rename(files.ca_key, _key_bytes(key), mode=0o600)
    write_by_rename(files.ca, _pem(builder.sign(key, hashes.SHA256())), mode=0o644)


def _make_server(files: CertificateFiles, names: Sequence[str]) -> None:
    authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
    authority_key = serialization.load_pem_private_key(files.ca_key.read_bytes(), password=None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)  # noqa: S101 - we made it
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(names[0]), authority.subject, key, _SERVER_DAYS)
    builder = builder.add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(is_authority=False), critical=True)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(usage, critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(issuer, critical=False)
    write_by_rename(files.key, _key_bytes(key), mode=0o600)
    write_by_rename(files.certificate, _pem(builder.sign(authority_key, hashes.SHA256())), mode=0o644)


def _is_fit(files: CertificateFiles, names: Iterable[str]) -> bool:
    if not files.certificate.exists():
        return False
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    is_lasting = certificate.not_valid_after_utc > _now() + timedelta(days=_RENEW_DAYS)
    return is_lasting and set(_general_names(names)) <= set(present)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - timedelta(hours=1))
        .not_valid_after(_now() + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    return [_general_name(name) for name in names]


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _now() -> datetime:
    return datetime.fromtimestamp(clock.now(), UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
