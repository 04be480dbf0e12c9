"""Appends the whole state of a copy that is ahead of its log, so that the log has it again.

Promises: what is appended is the copy's state at the seq and digest that were asked for, read under its lock;
the copy itself is not changed: it takes the `reset` over like every other copy, from the log.
Does not: choose the copy (cli.adoption) or decide whether the log may take it (replication.agent_adoption).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mercurial import changegroup
from mercurial.node import hex as to_hex

from hgfleet.adapters.agent_answers import AcceptedMessage, AdoptRequest
from hgfleet.errors import RejectedError
from hgfleet.hgext import binding, capture, fingerprint, journal, pushlog, recovery
from hgfleet.hgext.copies import Copy
from hgfleet.hgext.seqfile import SeqState
from hgfleet.hgext.spool import Spool
from hgfleet.model.adoption import Adopted, adopted_fields
from hgfleet.model.ids import Node, RepoId, RepoPath, Seq
from hgfleet.model.message import Envelope, Json, Kind, decode_message
from hgfleet.model.payload import PayloadWriter, PhaseChanges, Tag, Target

if TYPE_CHECKING:
    from hgfleet.adapters.agent_client import LogAgentClient


def adopt(
    copy: Copy, path: RepoPath, wanted: Adopted, agent: LogAgentClient, author: Mapping[str, str]
) -> AcceptedMessage:
    """Append the state of `copy`, which must stand at `wanted`; `author` has `identity` and `trace`.

    Raises RejectedError (`adopt.changed`, `repo.altered`, …) or TransientError: nothing was appended;
    InDoubtError: ask for the report again.
    """
    repo = copy.repo
    bound = binding.of(repo)
    with bound.applying(), repo.lock():
        journal.recover_abandoned(repo)
        state = recovery.consistent_state(repo, bound)
        if Adopted(state.seq, state.digest) != wanted:
            raise RejectedError("adopt.changed", "the copy has changed since it was looked at", seq=state.seq)
        return _append(repo, state, path, agent, author)


def _append(
    repo: Any, state: SeqState, path: RepoPath, agent: LogAgentClient, author: Mapping[str, str]
) -> AcceptedMessage:
    options = binding.of(repo).options
    last = agent.last(state.repository)
    _check_holds_pushes(repo, state, agent)
    spool = Spool(Path(options.spool_directory), options.inline_limit_bytes)
    try:
        write_state(repo, spool)
        payload = spool.finish()
        if spool.path is not None:
            agent.blob_put(spool.path, payload.sha256, payload.size_bytes)
        return agent.adopt(
            AdoptRequest(
                repository=state.repository,
                path=path,
                partition=state.partition,
                base_seq=last.seq,
                base_digest=last.digest,
                body=describe_state(repo, state),
                identity=author["identity"],
                trace=author["trace"],
                payload=payload,
                inline=spool.inline,
            )
        )
    finally:
        spool.discard()


def _check_holds_pushes(repo: Any, state: SeqState, agent: LogAgentClient) -> None:
    """Check that the copy has every push that the log has: what it lacks would be lost to the `reset`.

    A log that was trimmed has the newest ones only. One that the copy has too, at the same seq, stands for
    all before it: two histories never come together again.
    """
    node, compared = repo.changelog.node, 0
    first_seq = _first_seq(state.repository, agent)
    with pushlog.Pushlog(binding.of(repo).store) as rows:
        for push in _pushes(state.repository, first_seq, agent):
            row, changesets = rows.push(int(str(push.body["push_id"]))), push.body.get("changesets")
            tip = changesets.get("tip") if isinstance(changesets, dict) else None
            if row is None or row.seq != push.seq or to_hex(node(row.end_rev - 1)).decode() != tip:
                raise RejectedError("adopt.fork", "the log has pushes that the copy has not", seq=push.seq)
            compared += 1
    if first_seq and not compared:
        raise RejectedError(
            "adopt.trimmed",
            "the log has only snapshots of the pushes that the copy would have to be compared with",
            hint="`hgfleet repo reconcile` builds the copy anew from the log; push what it lacks again",
            snapshot_seq=first_seq,
        )


def _first_seq(repository: RepoId, agent: LogAgentClient) -> Seq:
    """Return the seq after which the log still has everything: 0, or that of the oldest snapshot in force."""
    try:
        agent.read(repository, 0, max_bytes=1)
    except RejectedError as error:
        kept = agent.snapshots(repository)
        if error.code != "log.overrun" or not kept:
            raise
        return kept[-1].seq
    return Seq(0)


def _pushes(repository: RepoId, seq: Seq, agent: LogAgentClient) -> Iterator[Envelope]:
    while messages := agent.read(repository, seq).messages:
        envelopes = [decode_message(message.wire).envelope for message in messages]
        yield from (e for e in envelopes if e.kind is Kind.PUSH and e.body.get("push_id") is not None)
        seq = messages[-1].seq


def write_state(repo: Any, target: Target) -> None:
    """Write everything that the repository has, as one payload."""
    writer = PayloadWriter(target)
    count = len(repo.changelog)
    if count:
        version = changegroup.safeversion(repo)
        writer.write_changegroup(version, capture.changegroup_chunks(repo, version, 0, count))
        writer.write_phases(PhaseChanges(tuple(capture.added_phases(repo, 0, count))))
    if bookmarks := bookmarks_of(repo):
        writer.write_bookmarks(bookmarks)
    obsstore = repo.svfs.tryread(b"obsstore")
    if len(obsstore) > 1:
        writer.write_obsmarkers(obsstore[0], obsstore[1:])
    for tag, name in ((Tag.PUSHERS, pushlog.PUSHERS_NAME), (Tag.PUSHLOG, pushlog.NAME)):
        if data := repo.svfs.tryread(name.encode()):
            writer.write_file(tag, data)
    writer.close()


def describe_state(repo: Any, state: SeqState) -> dict[str, Json]:
    """Return the body of the `reset`."""
    changelog = repo.changelog
    count = len(changelog)
    return {
        "adopts": adopted_fields(Adopted(state.seq, state.digest)),
        "settings": state.settings.to_json(),
        "fingerprint": state.fingerprint.to_json(),
        "changesets": {"count": count, "tip": to_hex(changelog.node(count - 1)).decode() if count else None},
    }


def bookmarks_of(repo: Any) -> dict[str, Node | None]:
    """Return all bookmarks."""
    lines = (line.partition(b" ") for line in fingerprint.bookmark_lines(repo))
    return {name.decode("utf-8"): Node(node.decode()) for node, _space, name in lines}
