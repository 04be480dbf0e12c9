"""Writes docs/reference from the code: settings, commands, metrics, error codes, log events.

    python -m tools.reference            write the pages
    python -m tools.reference --check    only say which ones are out of date

Promises: every error that is made with a literal code and every log line with a literal name is listed; a
page that is out of date fails the tests (tests/unit/cli/test_reference_pages.py).
Does not: explain; a code or event is explained where it is raised or logged, which the page names.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hgfleet import errors
from hgfleet.cli import metrics, reference
from hgfleet.config import render

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src"
PAGES = ROOT / "docs" / "reference"
_LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_LOGGERS = frozenset({"log", "_log", "logger", "_logger"})
_ERRORS = {name: kind for name, kind in vars(errors).items() if name.endswith("Error")}


@dataclass(frozen=True, order=True)
class Entry:
    """One row: a code or event, what there is to say about it, and the modules that have it."""

    name: str
    details: tuple[str, ...]
    module: str


def main() -> int:
    """Write or check the pages; return the exit status."""
    is_check = "--check" in sys.argv[1:]
    outdated = [name for name, text in render_pages().items() if _read(PAGES / name) != text]
    for name in outdated:
        if not is_check:
            (PAGES / name).write_text(render_pages()[name])
        print(f"docs/reference/{name}: {'out of date' if is_check else 'written'}")
    return int(is_check and bool(outdated))


def render_pages() -> dict[str, str]:
    """Return every page's text by its name."""
    return {
        "config.md": render.render_reference(),
        "commands.md": reference.render_commands(),
        "metrics.md": metrics.render_reference(),
        "errors.md": _page("Error codes", _ERRORS_INTRODUCTION, ("code", "class", "message"), find_errors()),
        "log-events.md": _page("Log events", _EVENTS_INTRODUCTION, ("event", "level"), find_events()),
    }


_ERRORS_INTRODUCTION = """\
Generated from the code. The class says what to do about an error: RejectedError (exit 1) is refused, and will
be again; TransientError (75) may succeed later, this changed nothing; InDoubtError (75) may take effect yet;
ConfigError (78) needs an operator; PoisonError parks one repository; InvariantError (70) is a defect."""
_EVENTS_INTRODUCTION = (
    "Generated from the code: the names (`event`) of the structured lines that processes log."
)


def find_errors() -> set[Entry]:
    """Return the errors that are made with a literal code."""
    return {
        Entry(_literal(call.args[0]), (_callee(call), _literal(call.args[1])), module)
        for module, call in _calls()
        if _callee(call) in _ERRORS and len(call.args) >= 2 and isinstance(call.args[0], ast.Constant)
    }


def find_events() -> set[Entry]:
    """Return the log lines with a literal name."""
    return {
        Entry(_literal(call.args[0]), (_callee(call),), module)
        for module, call in _calls()
        if _is_logging(call) and call.args and isinstance(call.args[0], ast.Constant)
    }


def _is_logging(call: ast.Call) -> bool:
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in _LEVELS:
        return False
    owner = function.value
    return isinstance(owner, ast.Name) and owner.id in _LOGGERS


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((SOURCES / "hgfleet").rglob("*.py")):
        module = ".".join(path.relative_to(SOURCES).with_suffix("").parts).removeprefix("hgfleet.")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield module, node


def _callee(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _literal(node: ast.expr) -> str:
    """Return a string as written; what is put in at run time becomes an ellipsis."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return "…"


def _page(title: str, introduction: str, headings: tuple[str, ...], entries: set[Entry]) -> str:
    modules_by_row: dict[tuple[str, ...], list[str]] = {}
    for entry in sorted(entries):
        modules_by_row.setdefault((f"`{entry.name}`", *entry.details), []).append(entry.module)
    rows = [
        "| " + " | ".join([*(cell.replace("|", "\\|") for cell in row), ", ".join(modules)]) + " |"
        for row, modules in modules_by_row.items()
    ]
    columns = (*headings, "where")
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([f"# {title}", "", introduction, "", *head, *rows, ""])


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
