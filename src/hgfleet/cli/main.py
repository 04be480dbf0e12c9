"""The `hgfleet` command: the tree of subcommands and the one place that turns failures into exit codes.

Promises: a failure is one line on standard error and the exit code of its class (STYLE, "Errors"), never a
traceback; what nobody expected gets an id under which the fleet's logs/commands.log has the details.
Does not: do anything itself.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import uuid
from datetime import UTC, datetime
from pathlib import Path

import click

from hgfleet.cli.config_commands import config_group
from hgfleet.cli.fleet import DEFAULT_DIRECTORY
from hgfleet.cli.log_commands import log_group
from hgfleet.cli.render_commands import render_group
from hgfleet.cli.repo_commands import repo_group
from hgfleet.cli.status_command import status_command
from hgfleet.cli.up_command import up_command
from hgfleet.cli.user_commands import user_group
from hgfleet.errors import FleetError, InvariantError
from hgfleet.runtime import clock

_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hgfleet")
def commands() -> None:
    """Host Mercurial repositories on one machine or many."""


for _command in (up_command, status_command, repo_group, user_group, log_group, config_group, render_group):
    commands.add_command(_command)


def main() -> None:
    """Run the command named by the arguments and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        status = commands.main(args=arguments, prog_name="hgfleet", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
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
    if not error.hint:
        return str(error)
    if "\n" in error.hint:
        return "\n  ".join([f"{error}:", *error.hint.splitlines()])
    return f"{error}; {error.hint}"


def _report_unexpected(error: Exception) -> int:
    name = uuid.uuid4().hex[:12]
    where = _record(name, error)
    print(f"hgfleet: internal error, id {name}: {type(error).__name__}: {error}{where}", file=sys.stderr)
    return InvariantError.exit_code


def _record(name: str, error: Exception) -> str:
    """Append the details to the fleet's own log if there is one; return where they are, for the message."""
    directory = Path(os.environ.get("HGFLEET_DIR", "") or DEFAULT_DIRECTORY) / "logs"
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
