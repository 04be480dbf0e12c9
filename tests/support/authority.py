"""A certificate authority of a test's own, and a certificate for this machine's loopback."""

from __future__ import annotations

from pathlib import Path

from hgfleet.adapters.tls import CertificateFiles, ensure_certificates


def make_authority(directory: Path) -> CertificateFiles:
    """Make both below `directory`; two calls make two that do not know each other."""
    directory.mkdir(parents=True)
    names = ("ca.pem", "ca-key.pem", "chain.pem", "key.pem")
    files = CertificateFiles(*(directory / name for name in names))
    ensure_certificates(files, ["localhost", "127.0.0.1"])
    return files
