"""The `hgfleet` command: the tree of subcommands and the one place that turns failures into exit codes.

Promises: a failure is one line on standard error and the exit code of its class (STYLE, "Errors"), never a
traceback; what nobody expected gets an id under which the fleet's logs/commands.log has the details.
Does not: do anything itself.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
import uuid
from datetime import UTC, datetime
from pathlib import Path

import click

from hgfleet.errors import FleetError, InvariantError
from hgfleet.runtime import clock

_INTERRUPTED = 130
_DEFAULT_DIRECTORY = "hgfleet-data"
COMMANDS = {
    "bundles": "hgfleet.cli.bundle_commands:bundles_group",
    "config": "hgfleet.cli.config_commands:config_group",
    "doctor": "hgfleet.cli.doctor_command:doctor_command",
    "log": "hgfleet.cli.snapshot_commands:log_group",
    "mirror": "hgfleet.cli.mirror_commands:mirror_group",
    "render": "hgfleet.cli.render_commands:render_group",
    "repo": "hgfleet.cli.snapshot_commands:repo_group",
    "run": "hgfleet.cli.run_command:run_command",
    "status": "hgfleet.cli.status_command:status_command",
    "up": "hgfleet.cli.up_command:up_command",
    "user": "hgfleet.cli.user_commands:user_group",
}


class CommandTree(click.Group):
    """Imports a command's module when it is asked for: the others would take longer than a quick command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(
    cls=CommandTree, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="hgfleet")
def commands() -> None:
    """Host Mercurial repositories on one machine or many."""


def main() -> None:
    """Run the command named by the arguments and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        status = commands.main(args=arguments, prog_name="hgfleet", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return error.exit_code
    except click.ClickException as error:
        print(f"hgfleet: {_describe_usage(error)}", file=sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except InvariantError as error:
        return _report_unexpected(error)
    except FleetError as error:
        print(f"hgfleet: {describe(error)}", file=sys.stderr)
        return error.exit_code
    except Exception as error:  # the outermost frame: nobody sees a traceback
        return _report_unexpected(error)
    return status if isinstance(status, int) else 0


def describe(error: FleetError) -> str:
    """Return a failure as a person reads it: what happened, and what to do about it."""
    if error.code == "local.unreachable":
        return f"{error}; is it running? `hgfleet up` starts it"
    if not error.hint:
        return str(error)
    if "\n" in error.hint:
        return "\n  ".join([f"{error}:", *error.hint.splitlines()])
    return f"{error}; {error.hint}"


def _describe_usage(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    text = error.format_message().rstrip(".")
    return f"{text}; see `{context.command_path} --help`" if context else text


def _report_unexpected(error: Exception) -> int:
    name = uuid.uuid4().hex[:12]
    where = _record(name, error)
    print(f"hgfleet: internal error, id {name}: {type(error).__name__}: {error}{where}", file=sys.stderr)
    return InvariantError.exit_code


def _record(name: str, error: Exception) -> str:
    """Append the details to the fleet's own log if there is one; return where they are, for the message."""
    directory = Path(os.environ.get("HGFLEET_DIR", "") or _DEFAULT_DIRECTORY) / "logs"
    if not directory.is_dir():
        return ""
    path = directory / "commands.log"
    fields = {
        "event": "internal-error",
        "id": name,
        "at": datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds"),
        "process": "command",
        "traceback": traceback.format_exception(error),
    }
    with path.open("a") as file:
        file.write(json.dumps(fields) + "\n")
    return f"; details in {path}"
