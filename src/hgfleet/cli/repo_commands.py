"""`hgfleet repo`: create, import, list, show, rename and delete repositories.

Promises: create, rename and delete are messages of the log like every other change, and return once every
mirror in service shows them, or name those that do not yet; delete reports first and acts with --yes.
Does not: touch a host's files: the log does, on each of them.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hgfleet.adapters.agent_answers import NamedSnapshot
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.cli.changes import IDENTITY, await_mirrors, bring_to_primary, new_trace
from hgfleet.cli.copies import CopyState, read_copy
from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.fleet_state import read_view
from hgfleet.cli.import_process import run_import
from hgfleet.cli.output import json_option, print_json, print_table
from hgfleet.cli.process_command import process_command
from hgfleet.cli.progress import shown_progress
from hgfleet.cli.repo_settings import set_repository
from hgfleet.errors import NOTHING_CHANGED, RejectedError
from hgfleet.model.ids import CATALOGUE, RepoId, RepoPath, Seq, parse_repo_path
from hgfleet.model.settings import RepoSettings


@click.group("repo")
def repo_group() -> None:
    """Create, import, list, show, rename and delete repositories."""


repo_group.add_command(set_repository)


@repo_group.command("create")
@click.argument("path")
@click.option("--non-publishing", is_flag=True, help="pushed changesets stay draft")
@click.option("--writers", multiple=True, metavar="GROUP", help="a group that may push; repeatable")
@click.option("--description", default="", help="one line for the pages")
@fleet_options
def create_repository(
    path: str, writers: tuple[str, ...], description: str, fleet: Fleet, *, non_publishing: bool
) -> None:
    """Create an empty repository at PATH."""
    name = parse_repo_path(path)
    settings = RepoSettings(
        writers=writers or fleet.config.access.default_writers,
        is_publishing=not non_publishing,
        description=description,
    )
    with fleet.agent() as agent:
        change = agent.create(name, settings.to_json(), identity=IDENTITY, trace=new_trace())
        bring_to_primary(fleet, change.repository, change.partition)
        click.echo(f"created {name}: {await_mirrors(fleet, agent, CATALOGUE, change.catalogue_seq)}")


@repo_group.command("import")
@click.argument("source")
@click.argument("path")
@click.option("--non-publishing", is_flag=True, help="changesets pushed later stay draft")
@click.option("--writers", multiple=True, metavar="GROUP", help="a group that may push; repeatable")
@fleet_options
def import_repository(
    source: str, path: str, writers: tuple[str, ...], fleet: Fleet, *, non_publishing: bool
) -> None:
    """Bring the repository at SOURCE, a path or URL, to PATH, with phases, bookmarks and obsmarkers.

    Interrupted, it may be repeated: it starts clean, or finds that all is there.
    """
    name = parse_repo_path(path)
    _check_source(source)
    settings = RepoSettings(writers or fleet.config.access.default_writers, not non_publishing)
    with fleet.agent() as agent:
        repository, is_created = _find_or_create(agent, name, settings)
        try:
            done = _import(fleet, repository, source)
        except RejectedError:
            if is_created:
                agent.delete(name, identity=IDENTITY, trace=new_trace())
            raise
        shown = await_mirrors(fleet, agent, repository, Seq(done["seq"]))
    already = "" if done["is_new"] else " was there already"
    click.echo(f"imported {name}{already}: {done['changesets']} changesets; {shown}")


def _check_source(source: str) -> None:
    """Refuse a path where no repository is before anything is created for it; URLs are tried later."""
    if "://" not in source and not Path(source, ".hg").is_dir():
        raise RejectedError(
            "import.no-repository",
            f"no Mercurial repository there; {NOTHING_CHANGED}",
            hint="give the directory that has .hg in it, or a URL",
            source=source,
        )


def _find_or_create(agent: LogAgentClient, name: RepoPath, settings: RepoSettings) -> tuple[RepoId, bool]:
    """Return the repository at a path, and whether it was created just now."""
    try:
        return agent.resolve(name).repository, False
    except RejectedError as error:
        if error.code != "repo.unknown":
            raise
    created = agent.create(name, settings.to_json(), identity=IDENTITY, trace=new_trace())
    return created.repository, True


def _import(fleet: Fleet, repository: RepoId, source: str) -> dict[str, Any]:
    """Run the import in a process of its own: this one never loads Mercurial."""
    effective = fleet.layout.effective_config
    config_path = effective if effective.exists() else fleet.place.config_path
    command = process_command(
        "import", config=config_path, directory=fleet.place.directory, name="import", host=fleet.host
    )
    with shown_progress() as show:
        return run_import(command, repository, source, show)


@repo_group.command("rename")
@click.argument("path")
@click.argument("new_path")
@fleet_options
def rename_repository(path: str, new_path: str, fleet: Fleet) -> None:
    """Give the repository at PATH the path NEW_PATH; the old one leads nowhere afterwards."""
    old, new = parse_repo_path(path), parse_repo_path(new_path)
    with fleet.agent() as agent:
        change = agent.rename(old, new, identity=IDENTITY, trace=new_trace())
        click.echo(f"renamed {old} to {new}: {await_mirrors(fleet, agent, CATALOGUE, change.catalogue_seq)}")


@repo_group.command("delete")
@click.argument("path")
@click.option("--yes", is_flag=True, help="do it")
@fleet_options
def delete_repository(path: str, fleet: Fleet, *, yes: bool) -> None:
    """Delete the repository at PATH on every host; its path may be used again at once."""
    name = parse_repo_path(path)
    with fleet.agent() as agent:
        if not yes:
            repository = agent.resolve(name).repository
            click.echo(f"would delete {name}: repository {repository}, {agent.last(repository).seq} messages")
            raise RejectedError("cli.not-confirmed", "nothing was deleted", hint="repeat with --yes")
        change = agent.delete(name, identity=IDENTITY, trace=new_trace())
        bring_to_primary(fleet, change.repository, change.partition)
        click.echo(f"deleted {name}: {await_mirrors(fleet, agent, CATALOGUE, change.catalogue_seq)}")


@repo_group.command("reconcile")
@click.argument("path")
@click.option("--yes", is_flag=True, help="do it")
@fleet_options
def reconcile_repository(path: str, fleet: Fleet, *, yes: bool) -> None:
    """Build the primary's copy of PATH anew from the log; mirrors do so by themselves.

    For a copy that refuses writes because something else has altered it. The old one stays beside it.
    """
    with fleet.agent() as agent:
        bound = agent.resolve(parse_repo_path(path))
        last = agent.last(bound.repository)
    if not yes:
        click.echo(f"would build the primary's copy of {path} anew from {last.seq} messages")
        raise RejectedError("cli.not-confirmed", "nothing was built", hint="repeat with --yes")
    with fleet.sessions() as sessions:
        sessions.call("catch_up", repository=bound.repository, partition=bound.partition, is_rebuild=True)
    click.echo(f"{path}: built anew from the log")


@repo_group.command("list")
@fleet_options
@json_option
def list_repositories(fleet: Fleet, *, as_json: bool) -> None:
    """List all repositories by path."""
    with fleet.agent() as agent:
        paths, _seq = agent.paths()
    if as_json:
        print_json([asdict(bound) for bound in paths])
    else:
        print_table(("path", "repository", "partition"), [(b.path, b.repository, b.partition) for b in paths])


@repo_group.command("show")
@click.argument("path")
@fleet_options
@json_option
def show_repository(path: str, fleet: Fleet, *, as_json: bool) -> None:
    """Show one repository: its sequence and each host's copy."""
    shown = describe_repository(fleet, path)
    if as_json:
        print_json(shown)
        return
    for name in ("path", "repository", "partition", "seq", "exposed_seq", "digest"):
        click.echo(f"{name + ':':13}{shown[name]}")
    if shown["problem"]:
        click.echo(f"problem:     {shown['problem']}")
    rows = [(copy["host"], copy["seq"], copy["exposed_seq"], copy["path"]) for copy in shown["copies"]]
    print_table(("host", "seq", "exposed seq", "directory"), rows)
    made = [(one["seq"], one["size_bytes"], one["host"], one["sha256"]) for one in shown["snapshots"]]
    if made:
        print_table(("snapshot at seq", "bytes", "made by", "blob"), made)


def describe_repository(fleet: Fleet, path: str) -> dict[str, Any]:
    """Return what `repo show --json` prints; brings the primary's copy to the end of its log first.

    In a fleet of several hosts the copies are this host's, and what is exposed is what all mirrors show.
    """
    with fleet.agent() as agent:
        bound = agent.resolve(parse_repo_path(path))
        last = agent.last(bound.repository)
        snapshots = agent.snapshots(bound.repository)
        shown = read_view(agent).visible_seq(bound.repository) if fleet.host else None
    problem = bring_to_primary(fleet, bound.repository, bound.partition)
    copies = _read_copies(fleet, bound.repository)
    return asdict(bound) | {
        "seq": last.seq,
        "digest": last.digest,
        "problem": problem,
        "exposed_seq": min(copy.exposed_seq for copy in copies) if shown is None else shown,
        "copies": [asdict(copy) for copy in copies],
        "snapshots": [_describe_snapshot(snapshot) for snapshot in snapshots],
    }


def _describe_snapshot(snapshot: NamedSnapshot) -> dict[str, Any]:
    fields = asdict(snapshot)
    return {name: fields[name] for name in ("seq", "digest", "state_digest", "changesets", "at", "host")} | {
        "sha256": snapshot.blob.sha256,
        "size_bytes": snapshot.blob.size_bytes,
    }


def _read_copies(fleet: Fleet, repository: RepoId) -> list[CopyState]:
    layout = fleet.layout
    mirrors = [mirror.name for mirror in layout.mirrors]
    return [read_copy(host, repository, is_primary=host.name not in mirrors) for host in layout.hosts]
