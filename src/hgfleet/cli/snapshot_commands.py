"""`log snapshot`, `log restore` and `repo verify`: how backups are made and restored, and copies compared.

Promises: `snapshot` returns when everything has a snapshot of what was there when it was called, and its
catalogue file names them all; `restore` reports unless it is told to act, and only ever adds repositories;
`verify` changes nothing.
Does not: make snapshots (the mirrors do), copy blobs, or load Mercurial into this process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hgfleet.adapters.agent_answers import BoundPath, NamedSnapshot
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.adapters.files import write_by_rename
from hgfleet.cli.adoption import Lost, find_lost
from hgfleet.cli.copies import read_copy
from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.log_commands import adopt_all, log_group
from hgfleet.cli.output import json_option, print_json, print_table
from hgfleet.cli.process_command import process_command
from hgfleet.cli.repo_commands import repo_group
from hgfleet.errors import FleetError, RejectedError, TransientError
from hgfleet.model.ids import (
    RepoId,
    RepoPath,
    parse_digest,
    parse_repo_id,
    parse_repo_path,
)
from hgfleet.replication.mirror_worker import ApplyWorker, worker_program
from hgfleet.runtime import clock

FORMAT = 1
POLL_SECONDS = 0.2
WORKER_SECONDS = 6 * 3600.0
VERIFY_ATTEMPTS = 5  # a copy may be on its way


@log_group.command("snapshot")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--all", "is_all", is_flag=True, help="of every repository")
@click.option(
    "--catalogue",
    type=click.Path(dir_okay=False, path_type=Path),
    help="write a file that names all paths and their snapshots, which `hgfleet log restore` takes",
)
@click.option("--timeout", "timeout_seconds", type=float, default=3600.0, help="seconds to wait")
@fleet_options
@json_option
def make_snapshots(
    paths: tuple[str, ...],
    catalogue: Path | None,
    timeout_seconds: float,
    fleet: Fleet,
    *,
    is_all: bool,
    as_json: bool,
) -> None:
    """Have the mirrors make snapshots of the repositories at PATHs as they are now, and wait for them."""
    if bool(paths) == is_all:
        raise click.UsageError("give either PATHs or --all")
    with fleet.agent() as agent:
        bound = agent.paths()[0] if is_all else tuple(agent.resolve(parse_repo_path(path)) for path in paths)
        rows = _wait_for_snapshots(agent, bound, timeout_seconds)
        if catalogue is not None:
            listing = {"format": FORMAT, "log_id": agent.hello().log_id, "repositories": rows}
            write_by_rename(catalogue, json.dumps(listing, indent=1).encode() + b"\n")
    if as_json:
        print_json(rows)
    else:
        print_table(("path", "seq", "bytes"), [(row["path"], row["seq"], row["size_bytes"]) for row in rows])


def _wait_for_snapshots(
    agent: LogAgentClient, bound: Sequence[BoundPath], timeout_seconds: float
) -> list[dict[str, Any]]:
    """Say what is wanted in the state topic, which every mirror's log agent reads, until it is there."""
    seq_by_id = {one.repository: agent.last(one.repository).seq for one in bound}
    wishes = {f"snapshot/{repository}": {"seq": seq} for repository, seq in seq_by_id.items()}
    if wishes:
        agent.state_publish(wishes)
    ends_at = clock.monotonic() + timeout_seconds
    rows: list[dict[str, Any]] = []
    waiting = list(bound)
    while waiting:
        newest = _newest(agent, waiting[0].repository)
        if newest is not None and newest.seq >= seq_by_id[waiting[0].repository]:
            rows.append(_row(waiting.pop(0), newest))
        elif agent.last(waiting[0].repository).is_deleted:
            waiting.pop(0)
        elif clock.monotonic() > ends_at:
            raise TransientError(
                "snapshot.late",
                "not every snapshot was made in time",
                hint="the mirrors' logs say why",
                path=waiting[0].path,
            )
        else:
            clock.sleep(POLL_SECONDS)
    if wishes:
        agent.state_publish(dict.fromkeys(wishes))
    return rows


def _newest(agent: LogAgentClient, repository: RepoId) -> NamedSnapshot | None:
    return next(iter(agent.snapshots(repository)), None)


def _row(bound: BoundPath, snapshot: NamedSnapshot) -> dict[str, Any]:
    return {
        "path": bound.path,
        "repository": bound.repository,
        "partition": bound.partition,
        "seq": snapshot.seq,
        "digest": snapshot.digest,
        "state_digest": snapshot.state_digest,
        "sha256": snapshot.blob.sha256,
        "size_bytes": snapshot.blob.size_bytes,
        "at": snapshot.at,
    }


# ---- restoring


@log_group.command("restore")
@click.argument("catalogue", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--yes", is_flag=True, help="do it")
@fleet_options
@json_option
def restore_catalogue(catalogue: Path, fleet: Fleet, *, yes: bool, as_json: bool) -> None:
    """Bring back what a CATALOGUE file of `hgfleet log snapshot` names and the log has not, from its blobs.

    For an empty log: each repository keeps its id, its push ids and its seqs, and becomes one `reset`.
    Interrupted, it may be repeated.
    """
    rows = read_catalogue(catalogue)
    with fleet.agent() as agent:
        missing = [row for row in rows if not agent.last(row["repository"]).seq]
        if not yes:
            _report_missing(missing, as_json=as_json)
            return
        with _primary_worker(fleet) as worker:
            for row in missing:
                _restore_copy(fleet, agent, worker, row)
        adopted = adopt_all(fleet, agent, _lost_of(fleet, agent, missing))
    if as_json:
        print_json([row | {"adopted_seq": adopted.get(row["repository"])} for row in missing])
    else:
        click.echo(f"restored {len(adopted)} repositories")


def read_catalogue(path: Path) -> list[dict[str, Any]]:
    """Return the file's rows, checked. Raises RejectedError `restore.bad-catalogue`."""
    try:
        fields = json.loads(path.read_bytes())
        if fields["format"] != FORMAT:
            raise ValueError("a format that this release does not know")
        return [_checked(row) for row in fields["repositories"]]
    except (ValueError, KeyError, TypeError, RejectedError) as error:
        raise RejectedError(
            "restore.bad-catalogue", "this is no catalogue of snapshots", reason=str(error)
        ) from error


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    return row | {
        "path": parse_repo_path(row["path"]),
        "repository": parse_repo_id(row["repository"]),
        "digest": parse_digest(row["digest"]),
        "sha256": parse_digest(row["sha256"]),
        "seq": int(row["seq"]),
    }


def _report_missing(missing: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(missing)
        return
    print_table(("path", "seq", "bytes"), [(row["path"], row["seq"], row["size_bytes"]) for row in missing])
    click.echo("nothing was restored; --yes does it" if missing else "the log has them all")


def _restore_copy(fleet: Fleet, agent: LogAgentClient, worker: ApplyWorker, row: dict[str, Any]) -> None:
    """Give the primary the copy that the snapshot is of, unless it has it."""
    primary = fleet.layout.primary
    if read_copy(primary, row["repository"], is_primary=True).seq >= row["seq"]:
        return
    primary.spool.mkdir(parents=True, exist_ok=True)
    source = primary.spool / "restoring"
    try:
        agent.blob_get(row["sha256"], source)
        worker.request(
            "restore",
            directory=str(primary.repositories / row["repository"]),
            source=str(source),
            seq=row["seq"],
            digest=row["digest"],
        )
    finally:
        source.unlink(missing_ok=True)


def _lost_of(fleet: Fleet, agent: LogAgentClient, rows: list[dict[str, Any]]) -> list[Lost]:
    paths = {row["repository"]: RepoPath(row["path"]) for row in rows}
    return [lost for lost in find_lost(fleet.layout, agent, paths) if lost.repository in paths]


@contextmanager
def _primary_worker(fleet: Fleet) -> Iterator[ApplyWorker]:
    """Run an apply worker beside the fleet's processes, for the primary's files or to look at any."""
    effective = fleet.layout.effective_config
    command = process_command(
        "apply-worker",
        config=effective if effective.exists() else fleet.place.config_path,
        directory=fleet.place.directory,
        name="apply-worker-command",
        host=fleet.host or fleet.layout.primary.name,
    )
    worker = ApplyWorker(worker_program(command, {}), WORKER_SECONDS)
    try:
        yield worker
    finally:
        worker.close()


# ---- verifying


@repo_group.command("verify")
@click.argument("path")
@fleet_options
@json_option
def verify_repository(path: str, fleet: Fleet, *, as_json: bool) -> None:
    """Compare the full state of every copy of PATH on this machine: changesets, phases, bookmarks, pushlog.

    Copies at one seq must have one state digest; exit status 1 where they differ.
    """
    with fleet.agent() as agent:
        bound = agent.resolve(parse_repo_path(path))
        last = agent.last(bound.repository)
    with _primary_worker(fleet) as worker:
        rows = _digests_at_one_seq(fleet, worker, bound.repository)
    verdict = _judge(rows)
    if as_json:
        print_json(asdict(bound) | {"seq": last.seq, "verdict": verdict, "copies": rows})
    else:
        print_table(
            ("host", "seq", "state digest"), [(row["host"], row["seq"], row["state_digest"]) for row in rows]
        )
    if verdict == "differs":
        raise RejectedError(
            "repo.differs",
            "copies at one seq are not equal",
            hint="the one that is wrong: hgfleet repo reconcile",
            path=path,
        )


def _digests_at_one_seq(fleet: Fleet, worker: ApplyWorker, repository: RepoId) -> list[dict[str, Any]]:
    """Ask every copy; again when one went on in between."""
    rows: list[dict[str, Any]] = []
    for _ in range(VERIFY_ATTEMPTS):
        rows = [_digest(host.name, host.repositories / repository, worker) for host in fleet.layout.hosts]
        if len({row["seq"] for row in rows}) == 1:
            break
        clock.sleep(POLL_SECONDS)
    return rows


def _digest(host: str, directory: Path, worker: ApplyWorker) -> dict[str, Any]:
    try:
        answer = worker.request("digest", directory=str(directory)).header
    except FleetError as error:
        return {"host": host, "seq": 0, "state_digest": "", "problem": str(error)}
    return {"host": host, "seq": answer["seq"], "state_digest": answer["state_digest"], "problem": ""}


def _judge(rows: list[dict[str, Any]]) -> str:
    """Return `equal`, `differs`, or `behind`: no two copies at one seq differ, but not all are at one."""
    digests: dict[int, set[str]] = {}
    for row in rows:
        digests.setdefault(row["seq"], set()).add(row["state_digest"])
    if any(len(seen) > 1 for seen in digests.values()):
        return "differs"
    return "equal" if len(digests) == 1 and "" not in next(iter(digests.values())) else "behind"
