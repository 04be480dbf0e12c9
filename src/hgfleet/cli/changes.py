"""What every command that changes a repository does before and after its change.

Promises: a change that the log has is reported as done, and the late mirrors with it, whatever happens to
this host's copy.
Does not: append anything.
"""

from __future__ import annotations

import uuid

from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.cli.fleet import Fleet
from hgfleet.errors import InDoubtError, PoisonError, RejectedError, TransientError
from hgfleet.model.ids import RepoId, Seq

IDENTITY = "host:primary"  # whoever may run commands on the host acts as the host
_LONGEST_WAIT_SECONDS = 30.0


def new_trace() -> str:
    """Return an id that follows a change from here to its notification."""
    return uuid.uuid4().hex


def bring_to_primary(fleet: Fleet, repository: RepoId, partition: int) -> str:
    """Bring the primary's copy to the end of its log now rather than at the next session.

    Return what stood in the way, "" in health: the log has it all, so it is no failure of what was asked.
    """
    host = fleet.layout.own_host
    if host is not None and not host.is_leading:
        return ""  # there is no such copy here
    try:
        with fleet.sessions() as sessions:
            sessions.call("catch_up", repository=repository, partition=partition)
    except (RejectedError, TransientError, InDoubtError, PoisonError) as error:
        return "" if error.code == "repo.deleted" else str(error)
    return ""


def await_mirrors(fleet: Fleet, agent: LogAgentClient, repository: RepoId, seq: Seq) -> str:
    """Wait until every mirror in service shows the change; say how that went."""
    # Whoever is not heard of for a lease is out of service; no person waits for a longer one.
    seconds = min(fleet.config.membership.lease_seconds, _LONGEST_WAIT_SECONDS)
    seen = agent.wait_visible(repository, seq, seconds)
    if not seen.is_visible:
        return f"not yet visible on {', '.join(seen.late) or 'any mirror'}"
    return f"visible on all {len(seen.mirrors)} mirrors"
