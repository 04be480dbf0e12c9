"""With whose rights a session writes: those that its account has at that moment, not those it came in with.

Promises: the groups are the directory's answer of now, or the cache's within its bound; when neither is to be
had this is TransientError, and nothing was changed. An account that was disabled or removed, or that lost the
key by which this session was let in, is RejectedError.
Does not: know what a write needs (session_worker), or hang up (the reception does).
"""

from __future__ import annotations

from pathlib import Path

from hgfleet.adapters.local_client import LocalClient
from hgfleet.errors import InDoubtError, TransientError
from hgfleet.hgext.session_request import ServeRequest

_ANSWER_SECONDS = 15.0  # longer than the reception asks the directory


class SessionRights:
    """Asks the SSH front's process about the account of one session."""

    def __init__(self, socket: Path, request: ServeRequest) -> None:
        self._socket = socket
        self._request = request

    def groups(self) -> frozenset[str]:
        """Return the groups that count now. Raises RejectedError or TransientError."""
        request = self._request
        try:
            with LocalClient(self._socket, _ANSWER_SECONDS) as client:
                answer = client.call("rights", account=request.account, key=request.key)
        except InDoubtError as error:  # a question changes nothing
            raise _unknown() from error
        except TransientError as error:
            raise (_unknown() if error.code == "local.unreachable" else error) from error
        return frozenset(answer.header["groups"])


def _unknown() -> TransientError:
    return TransientError("rights.unknown", "the account cannot be looked up now", hint="try again soon")
