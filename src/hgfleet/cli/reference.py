"""docs/reference/commands.md, generated from the commands themselves.

Promises: every command, argument and option of the tree is on the page.
Does not: add anything that `--help` does not say.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from hgfleet.cli.main import commands

_INTRODUCTION = """\
# Commands

Generated from `hgfleet.cli`. Commands find the fleet by `--config` or `--dir`, then by the environment's
`HGFLEET_CONFIG` or `HGFLEET_DIR`, then in `./hgfleet-data`. Exit status: 0 done, 1 refused, 2 wrong usage,
70 internal error, 75 try again later or not confirmed, 78 the configuration has to be changed.
"""


def render_commands() -> str:
    """Return the page."""
    return "\n".join([_INTRODUCTION, *(_section(name, command) for name, command in _leaves())])


def find_undocumented() -> list[str]:
    """Return the commands and options without a help text."""
    found = [name for name, command in _leaves() if not command.help]
    for name, command in _leaves():
        options = [option for option in command.params if isinstance(option, click.Option)]
        found += [f"{name} {option.opts[0]}" for option in options if not option.help]
    return found


def _leaves() -> Iterator[tuple[str, click.Command]]:
    yield from _walk("hgfleet", commands)


def _walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command, info_name=name)
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        assert found is not None  # noqa: S101 - it was listed
        yield from _walk(f"{name} {child}", found)


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    options = [param.get_help_record(context) for param in command.params]
    rows = [f"| `{record[0]}` | {record[1]} |" for record in options if record and record[1]]
    table = ["| option | meaning |", "|---|---|", *rows, ""] if rows else []
    return "\n".join([f"## {name}", "", f"`{usage}`", "", command.help or "", "", *table])
