"""`hgfleet repo set`: change a repository's settings.

Promises: the change is one message on top of what the repository's log says now, so nobody's change in
between is lost; what is not named stays as it is.
Does not: touch a host's files: the log does, on each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import click

from hgfleet.adapters.agent_answers import AcceptedMessage, AppendRequest, BoundPath
from hgfleet.adapters.agent_client import LogAgentClient
from hgfleet.cli.changes import IDENTITY, await_mirrors, bring_to_primary, new_trace
from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.config.units import parse_duration
from hgfleet.errors import RejectedError, TransientError
from hgfleet.model.bundle_manifest import BundleType
from hgfleet.model.bundle_policy import Wanted
from hgfleet.model.ids import Digest, Seq, parse_repo_path
from hgfleet.model.message import Kind
from hgfleet.model.settings import RepoSettings, parse_repo_settings

_ATTEMPTS = 5
_AS_THE_SITE = "default"
_TYPES = [kind.value for kind in BundleType if kind is not BundleType.OTHER]


@dataclass(frozen=True, slots=True)
class _Base:
    """A repository's settings, and the state that they are of."""

    seq: Seq
    digest: Digest
    settings: RepoSettings


@click.command("set")
@click.argument("path")
@click.option("--writers", multiple=True, metavar="GROUP", help="the groups that may push; repeatable")
@click.option("--publishing/--non-publishing", default=None, help="whether pushed changesets become public")
@click.option("--description", help="one line for the pages")
@click.option(
    "--bundles",
    type=click.Choice([*(wanted.value for wanted in Wanted), _AS_THE_SITE]),
    help="whether it has clone bundles; default: as the site has it",
)
@click.option(
    "--bundle-types",
    metavar="TYPE,…",
    help=f"of {', '.join(_TYPES)}; default: as the site has it",
)
@click.option("--bundle-stores", metavar="NAME,…", help="stores to use; default: all of them")
@click.option("--bundle-max-age", metavar="AGE", help="such as 12h; default: as the site has it")
@click.option("--bundle-growth", metavar="PART", help="such as 0.02; default: as the site has it")
@fleet_options
def set_repository(path: str, fleet: Fleet, **options: Any) -> None:
    """Change settings of the repository at PATH; what is not named stays."""
    change = _change(fleet, options)
    name = parse_repo_path(path)
    with fleet.agent() as agent:
        bound = agent.resolve(name)
        accepted = _append(fleet, agent, bound, change)
        if accepted is None:
            click.echo(f"{name}: nothing to change")
            return
        bring_to_primary(fleet, bound.repository, bound.partition)
        click.echo(f"changed {name}: {await_mirrors(fleet, agent, bound.repository, accepted.seq)}")


def _change(fleet: Fleet, options: dict[str, Any]) -> Callable[[RepoSettings], RepoSettings]:
    """Return what the options do to settings. Raises RejectedError for what is none."""
    own: dict[str, Any] = {}
    if options["writers"]:
        own["writers"] = options["writers"]
    if options["publishing"] is not None:
        own["is_publishing"] = options["publishing"]
    if options["description"] is not None:
        own["description"] = options["description"]
    bundles: dict[str, Any] = {
        name: parse(fleet, options[option]) for name, option, parse in _OF_BUNDLES if options[option]
    }
    if not own and not bundles:
        raise RejectedError("cli.nothing-named", "no setting was named", hint="`hgfleet repo set --help`")

    def change(before: RepoSettings) -> RepoSettings:
        return replace(before, **own, bundles=replace(before.bundles, **bundles))

    return change


def _wanted(_fleet: Fleet, text: str) -> Wanted | None:
    return None if text == _AS_THE_SITE else Wanted(text)


def _types(_fleet: Fleet, text: str) -> tuple[BundleType, ...]:
    names = [] if text == _AS_THE_SITE else text.split(",")
    if not set(names) <= set(_TYPES):
        raise _bad("--bundle-types", f"some of {', '.join(_TYPES)}")
    return tuple(BundleType(name) for name in names)


def _stores(fleet: Fleet, text: str) -> tuple[str, ...]:
    names = [] if text == _AS_THE_SITE else text.split(",")
    if not set(names) <= fleet.config.stores.keys():
        raise _bad("--bundle-stores", f"some of {', '.join(fleet.config.stores) or '(none is configured)'}")
    return tuple(names)


def _max_age(_fleet: Fleet, text: str) -> float | None:
    try:
        return None if text == _AS_THE_SITE else parse_duration(text)
    except ValueError as error:
        raise _bad("--bundle-max-age", str(error).removeprefix("expected ")) from error


def _growth(_fleet: Fleet, text: str) -> float | None:
    try:
        growth = None if text == _AS_THE_SITE else float(text)
    except ValueError:
        growth = -1.0
    if growth is not None and not 0 <= growth < float("inf"):
        raise _bad("--bundle-growth", "a part of the changesets such as 0.02")
    return growth


_OF_BUNDLES: tuple[tuple[str, str, Callable[[Fleet, str], object]], ...] = (
    ("wanted", "bundles", _wanted),
    ("types", "bundle_types", _types),
    ("stores", "bundle_stores", _stores),
    ("max_age_seconds", "bundle_max_age", _max_age),
    ("growth", "bundle_growth", _growth),
)


def _bad(option: str, expected: str) -> RejectedError:
    return RejectedError("cli.bad-option", f"{option}: expected {expected}")


def _append(
    fleet: Fleet, agent: LogAgentClient, bound: BoundPath, change: Callable[[RepoSettings], RepoSettings]
) -> AcceptedMessage | None:
    """Append on top of whatever is newest; None: that has these settings already."""
    for _ in range(_ATTEMPTS):
        base = _read_base(fleet, bound)
        settings = change(base.settings)
        if settings == base.settings:
            return None
        request = AppendRequest(
            repository=bound.repository,
            base_seq=base.seq,
            base_digest=base.digest,
            epoch=agent.last(bound.repository).serving_epoch,
            kind=Kind.SETTINGS,
            body={"settings": settings.to_json()},
            identity=IDENTITY,
            trace=new_trace(),
        )
        try:
            return agent.append(request, fleet.config.push.append_deadline_seconds)
        except TransientError as error:
            if error.code != "push.raced":
                raise
    raise TransientError("repo.busy", "others change the repository all the time", hint="try again")


def _read_base(fleet: Fleet, bound: BoundPath) -> _Base:
    with fleet.sessions() as sessions:
        answer = sessions.call("catch_up", repository=bound.repository, partition=bound.partition).header
    return _Base(Seq(answer["seq"]), Digest(answer["digest"]), parse_repo_settings(answer["settings"]))
