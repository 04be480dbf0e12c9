"""The two programs that sshd runs for hgfleet: the look-up of a key, and the gate (the forced command).

    sshd_client.py keys SOCKET ACCOUNT KEY-TYPE KEY           print the authorized_keys line of an offered key
    sshd_client.py visit SOCKET ACCOUNT KEY-FINGERPRINT       hand 0, 1 and 2 to the reception, wait, exit
    sshd_client.py outage WHAT                                tell that something does not answer

Both start anew for every login, so they are one file of the standard library's cheapest parts, run with
`python -I -S` by any Python since 3.9: twelve milliseconds, of which ten are the interpreter's own.

Promises: whether a key opens an account, and what a visitor may do, is asked of the reception and nobody
else. When that can't be asked, a client is told "temporarily unavailable, nothing was changed" (exit 75), not
"permission denied": its key is then let in to a command that says so and can do nothing else. For a name that
is no account's nothing is printed, in an outage neither. A client that goes away is noticed and takes its
session with it.
Does not: import hgfleet, read the configuration, decide anything or move a session's bytes.
"""

from __future__ import annotations

import os
import select
import sys

# The module behind `socket`, whose own import takes as long as the interpreter's start.
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_SEQPACKET, SOL_SOCKET, socket

INPUT, OUTPUT, ERROR = 0, 1, 2
TEMPORARILY, HUNG_UP = 75, 129
ANSWER_SECONDS = 7.0  # longer than the reception asks the directory; twice that is in the log-in's time
MAX_COMMAND_BYTES = 8192  # what is longer is refused, and need not arrive whole for that
MAX_ANSWER_BYTES = 256 * 1024
ALPHANUMERIC = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
ACCOUNT = ALPHANUMERIC | set("._+@-")
MAX_ACCOUNT_CHARACTERS = 100
PLAIN = ALPHANUMERIC | set("/._+:@=,-")
UNAVAILABLE = "abort: temporarily unavailable, nothing was changed: "
NOT_CONFIRMED = "abort: not confirmed: it may still appear; push again to find out"
OUTAGES = {
    "directory": "the directory of accounts does not answer",
    "reception": "this site's SSH service does not answer",
}


def main(arguments: list[str]) -> int:
    """Do what the arguments say; return the exit status."""
    verb, *rest = arguments
    if verb == "keys":
        return print_keys(*rest)
    return visit(*rest) if verb == "visit" else tell_outage(*rest)


def print_keys(path: str, account: str, key_type: str, key: str) -> int:
    """Print the line that lets the offered key in, if it is one of the account's."""
    if not (is_account(account) and is_plain(key_type) and is_plain(key)):
        return 0  # nobody's, whatever the reception would say; and no line is made of it
    try:
        reception = connect(path)
        reception.send("\0".join((account, key_type, key)).encode("utf-8", "surrogateescape"))
        answer = reception.recv(MAX_ANSWER_BYTES)
    except OSError:
        answer = b""
    if answer.startswith(b"+"):
        write(OUTPUT, answer[1:])
    else:
        what = "directory" if answer.startswith(b"?") else "reception"
        write(OUTPUT, outage_line(what, f"{key_type} {key}").encode())
    return 0


def is_account(text: str) -> bool:
    """Tell whether a name can be an account's: model.ids has the rule."""
    return 0 < len(text) <= MAX_ACCOUNT_CHARACTERS and text[0] in ALPHANUMERIC and not set(text) - ACCOUNT


def is_plain(text: str) -> bool:
    """Tell whether a key's type or text is a word that no parser takes apart: adapters.sshd_config's rule."""
    return bool(text) and not set(text) - PLAIN


def outage_line(what: str, key: str) -> str:
    """Return a line that lets any key in to hear of an outage, and to nothing else."""
    command = " ".join((sys.executable, "-I", "-S", os.path.realpath(__file__), "outage", what))
    return f'restrict,command="{command}" {key}\n'


def visit(path: str, account: str, fingerprint: str) -> int:
    """Have the reception serve this visitor; return the exit status."""
    try:
        reception = connect(path)
        reception.sendmsg([request(account, fingerprint)], [(SOL_SOCKET, SCM_RIGHTS, descriptors())])
    except OSError:
        return tell_outage("reception")
    if not wait(reception):
        return HUNG_UP
    try:
        answer = reception.recv(MAX_ANSWER_BYTES)
    except ConnectionResetError:  # it went away, or sent us away, with our request unread
        return tell_outage("reception")
    except OSError:
        answer = b""
    if not answer:
        write(ERROR, NOT_CONFIRMED.encode() + b"\n")
        return TEMPORARILY
    status, output, error = answer.split(b"\0", 2)
    write(OUTPUT, output)
    write(ERROR, error)
    return int(status)


def request(account: str, fingerprint: str) -> bytes:
    """Return what the reception is told: who, by which key, from where, for whom, and the command."""
    environment = os.environb
    connection = environment.get(b"SSH_CONNECTION", b"").split(b" ")
    fields = (
        account.encode(),
        fingerprint.encode(),
        environment.get(b"HGFLEET_CLIENT_ADDRESS") or connection[0],
        environment.get(b"AUTOLAND_REQUEST_USER", b"")[:MAX_COMMAND_BYTES],
        environment.get(b"SSH_ORIGINAL_COMMAND", b"")[:MAX_COMMAND_BYTES],
    )
    return b"\0".join(fields)


def wait(reception: socket) -> bool:
    """Wait for the answer; False when the client went away first, which only its end of our output shows."""
    poll = select.poll()
    poll.register(reception.fileno(), select.POLLIN)
    poll.register(OUTPUT, 0)
    return any(descriptor == reception.fileno() for descriptor, _ in poll.poll())


def tell_outage(what: str) -> int:
    """Tell the client that something does not answer."""
    write(ERROR, f"{UNAVAILABLE}{OUTAGES[what]}\n".encode())
    return TEMPORARILY


def connect(path: str) -> socket:
    """Connect to the reception. Raises OSError."""
    reception = socket(AF_UNIX, SOCK_SEQPACKET)
    reception.settimeout(ANSWER_SECONDS)
    reception.connect(path)
    return reception


def descriptors() -> bytes:
    """Return our standard streams as SCM_RIGHTS has them."""
    return b"".join(number.to_bytes(4, sys.byteorder) for number in (INPUT, OUTPUT, ERROR))


def write(descriptor: int, data: bytes) -> None:
    """Write everything, or as much as somebody reads."""
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        return


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
