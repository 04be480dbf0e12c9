"""Makes SSH key pairs and the known_hosts lines that trust a host key.

Promises: an existing key is kept; private keys are readable by their owner only.
Does not: authenticate anybody (the ssh service does).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from hgfleet.adapters.files import write_by_rename

_SSH_PORT = 22


def ensure_key_pair(private: Path, comment: str) -> str:
    """Make an Ed25519 pair at `private` and `private`.pub unless there; return "<type> <base64>"."""
    if not private.exists():
        _make_key_pair(private, comment)
    key = serialization.load_ssh_private_key(private.read_bytes(), password=None)
    return _public_text(key.public_key())


def format_known_hosts(hosts: Iterable[str], port: int, public_key: str) -> str:
    """Return the lines that make an SSH client trust the key for these hosts at this port."""
    names = [host if port == _SSH_PORT else f"[{host}]:{port}" for host in hosts]
    return f"{','.join(names)} {public_key}\n"


def _make_key_pair(private: Path, comment: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = private.with_name(private.name + ".pub")
    write_by_rename(public, f"{_public_text(key.public_key())} {comment}\n".encode(), mode=0o644)
    write_by_rename(private, text, mode=0o600)


def _public_text(key: serialization.SSHPublicKeyTypes) -> str:
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return text.decode("ascii")
