"""Rules about the sources that neither ruff nor import-linter can express.

Promises: `find_faults` is a pure function of a module's name and text, so that the rules themselves are
tested (tests/unit/test_layers.py).
Does not: read files, or know which modules may break which rule; it is told.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

CLOCK = "hgfleet.runtime.clock"
RUNTIME = "hgfleet.runtime"
PROCESSES = "hgfleet.adapters.processes"

# What may be named in one module or package only, by full name.
_ONLY_IN = {
    CLOCK: {
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "time.clock_gettime",
        "time.clock_gettime_ns",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.perf_counter_ns",
        "time.sleep",
        "time.time",
        "time.time_ns",
    },
    # Not the clock itself: sessions import that one, and asyncio would cost each of them its start-up.
    RUNTIME: {"asyncio.sleep"},
    PROCESSES: {
        "asyncio.create_subprocess_exec",
        "asyncio.subprocess.create_subprocess_exec",
        "os.posix_spawn",
        "os.posix_spawnp",
        "os.spawnv",
        "os.spawnve",
    },
}
_SHELLS = {
    "asyncio.create_subprocess_shell",
    "asyncio.subprocess.create_subprocess_shell",
    "os.popen",
    "os.system",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
}
_EMPTY_WORDS = {"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
_PURE = ("hgfleet.model", "hgfleet.errors")
# In the standard library, and yet the world outside.
_IMPURE = {
    *("asyncio", "ctypes", "fcntl", "glob", "http", "io", "mmap", "multiprocessing", "os", "platform", "pty"),
    *("random", "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3"),
    *("ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib"),
}
_PURE_PARTS = {"urllib.parse"}
_BROAD = {"Exception", "BaseException"}


@dataclass(frozen=True)
class Module:
    """A module as the rules see it."""

    name: str  # dotted; a package has the name of its directory
    source: str
    is_package: bool = False
    may_catch_all: bool = False  # it is the outermost frame of a process or a request
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", ast.parse(self.source))


def find_faults(module: Module) -> list[str]:
    """Return one line per breach, `<module>:<line>: <what>`; none when all rules are kept."""
    faults = sorted((line, what) for rule in _RULES for line, what in rule(module))
    return [f"{module.name}:{line}: {what}" for line, what in faults]


def catches_all(module: Module) -> bool:
    """Say whether some handler catches everything and does not raise it again."""
    return any(True for _ in _broad_handlers(module))


def _check_docstring(module: Module) -> Iterator[tuple[int, str]]:
    if not (ast.get_docstring(module.tree) or "").strip():
        yield 1, "no docstring"


def _check_package_is_empty(module: Module) -> Iterator[tuple[int, str]]:
    if module.is_package:
        for statement in module.tree.body[1:]:
            yield statement.lineno, "a package's __init__.py holds its docstring only"


def _check_name(module: Module) -> Iterator[tuple[int, str]]:
    words = set(module.name.rpartition(".")[2].split("_"))
    for word in sorted(words & _EMPTY_WORDS):
        yield 1, f"'{word}' in a module's name says nothing about what it does"


def _check_names_used(module: Module) -> Iterator[tuple[int, str]]:
    for line, name in _names_used(module.tree):
        if name in _SHELLS:
            yield line, f"{name}: argument lists, never a shell"
        for owner, names in _ONLY_IN.items():
            if name in names and not _is_within(module.name, (owner,)):
                yield line, f"{name} belongs to {owner}"


def _check_shell_argument(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) != "False":
            yield node.value.lineno, "shell=...: argument lists, never a shell"


def _check_broad_handlers(module: Module) -> Iterator[tuple[int, str]]:
    if not module.may_catch_all:
        for line in _broad_handlers(module):
            yield line, "catches everything: only the outermost frame of a process or a request may"


def _check_purity(module: Module) -> Iterator[tuple[int, str]]:
    if not _is_within(module.name, _PURE):
        return
    for line, name in _modules_imported(module.tree):
        top = name.partition(".")[0]
        allowed = _is_within(name, _PURE) or (top in sys.stdlib_module_names and top not in _IMPURE)
        if not allowed and name not in _PURE_PARTS:
            yield line, f"imports {name}: model and errors are pure and need the standard library only"


_RULES: tuple[Callable[[Module], Iterator[tuple[int, str]]], ...] = (
    _check_docstring,
    _check_package_is_empty,
    _check_name,
    _check_names_used,
    _check_shell_argument,
    _check_broad_handlers,
    _check_purity,
)


def _broad_handlers(module: Module) -> Iterator[int]:
    """Yield the lines that swallow every exception: handlers without a raise at their end, and suppress()."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _raises_again(node):
            yield node.lineno
        if isinstance(node, ast.Call) and _suppresses(node) and any(map(_is_broad, node.args)):
            yield node.lineno


def _suppresses(call: ast.Call) -> bool:
    return _dotted(call.func) in {"suppress", "contextlib.suppress"}


def _is_broad(caught: ast.expr | None) -> bool:
    if isinstance(caught, ast.Tuple):
        return any(_is_broad(part) for part in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in _BROAD)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and (last.exc is None or last.cause is not None)


def _names_used(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield every dotted name that the code reads, with its imports' aliases resolved."""
    full_name_by_alias = _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, _, rest = _dotted(node).partition(".")
            if first in full_name_by_alias:
                yield node.lineno, full_name_by_alias[first] + (f".{rest}" if rest else "")


def _dotted(node: ast.expr) -> str:
    """Return `a.b.c` for a chain of plain attributes, and nothing for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""


def _aliases(tree: ast.Module) -> dict[str, str]:
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                aliases[name.asname or name.name.partition(".")[0]] = (
                    name.name if name.asname else name.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                aliases[name.asname or name.name] = f"{node.module}.{name.name}"
    return aliases


def _modules_imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def _is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
