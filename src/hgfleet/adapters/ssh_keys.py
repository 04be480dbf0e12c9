"""OpenSSH public keys as people paste them: checked, and reduced to what identifies them.

Promises: a PublicKey is one line of an accepted type; one that is added was read by a real SSH
implementation; options in front
of a key (`command=…`) are refused, so an entry can never widen or narrow what an account may do.
Does not: handle private keys or certificates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from hgfleet.errors import RejectedError

MAX_KEY_LENGTH = 8192  # characters; an RSA key of 16,384 bits needs 2,800
MIN_RSA_BITS = 2048
KEY_TYPES = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key; `text` is "<type> <base64>", which alone decides whether two keys are the same."""

    text: str
    comment: str

    @property
    def fingerprint(self) -> str:
        """The form that `ssh-keygen -l` prints: SHA256:…"""
        digest = hashlib.sha256(base64.b64decode(self.text.split(" ")[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @property
    def line(self) -> str:
        """The whole line, with its comment."""
        return f"{self.text} {self.comment}".rstrip()


def parse_public_key(line: str) -> PublicKey:
    """Check one line of an `.pub` file; raise RejectedError `key.bad`."""
    key = _split(line)
    _check_with_implementation(key)
    return key


def read_public_key(line: str) -> PublicKey:
    """Check the form of a line that another system keeps, at each log-in; raise RejectedError `key.bad`.

    Cheaper than `parse_public_key`: that the numbers in it are a key is left to whoever verifies a signature.
    """
    key = _split(line)
    kind, encoded = key.text.split(" ")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad("its base64 part is damaged") from error
    fields = _fields(data)
    if fields is None or fields[0] != kind.encode():
        raise _bad("its base64 part is not of its type")
    if kind == "ssh-rsa" and int.from_bytes(fields[-1]).bit_length() < MIN_RSA_BITS:
        raise _bad(f"RSA keys need at least {MIN_RSA_BITS} bits")
    return key


def _split(line: str) -> PublicKey:
    words = line.strip().split(None, 2)
    if len(line) > MAX_KEY_LENGTH or not line.strip().isprintable():
        raise _bad("it is too long or more than one line")
    if len(words) < 2 or words[0] not in KEY_TYPES:
        raise _bad("it does not start with an accepted key type")
    return PublicKey(f"{words[0]} {words[1]}", words[2].strip() if len(words) > 2 else "")


def _fields(data: bytes) -> list[bytes] | None:
    """Split an encoded key (RFC 4253, 6.6) into its fields; None when it does not end with one."""
    fields = []
    while data:
        size = int.from_bytes(data[:4])
        if len(data) < 4 + size:
            return None
        fields.append(data[4 : 4 + size])
        data = data[4 + size :]
    return fields if len(fields) > 1 else None


def _check_with_implementation(key: PublicKey) -> None:
    import asyncssh  # slow to import, and only whoever adds a key pays for it

    try:
        base64.b64decode(key.text.split(" ")[1], validate=True)
        parsed = asyncssh.import_public_key(key.text)
    except (asyncssh.KeyImportError, binascii.Error, ValueError) as error:
        raise _bad("its base64 part is damaged") from error
    numbers = getattr(parsed.pyca_key, "key_size", None)
    if parsed.get_algorithm() == "ssh-rsa" and isinstance(numbers, int) and numbers < MIN_RSA_BITS:
        raise _bad(f"RSA keys need at least {MIN_RSA_BITS} bits")


def _bad(reason: str) -> RejectedError:
    return RejectedError(
        "key.bad", f"bad SSH public key: {reason}", hint="paste the one line of a .pub file, without options"
    )
