"""The sources keep the rules of tests/support/source_rules.py, and those rules can fail.

The order of the layers itself is import-linter's (pyproject.toml).
"""

from pathlib import Path

import pytest

from tests.support.source_rules import CLOCK, PROCESSES, Module, catches_all, find_faults

SOURCES = Path(__file__).resolve().parents[2] / "src"

# The outermost frames of processes, of requests and of a transaction after its commit point: what nobody
# expected ends here, with an id, in the log, or in the words that the pusher must read whatever happened.
OUTERMOST_FRAMES = frozenset(
    {
        "hgfleet.adapters.asyncssh_front",
        "hgfleet.adapters.openssh_front",
        "hgfleet.cli.main",
        "hgfleet.cli.process",
        "hgfleet.hgext.session_fork",
        "hgfleet.hgext.session_worker",
        "hgfleet.hgext.transactions",  # after the append nothing that is raised means that the push failed
        "hgfleet.web.application",
    }
)


def load(path: Path) -> Module:
    parts = path.relative_to(SOURCES).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    may_catch_all = name in OUTERMOST_FRAMES
    return Module(name, path.read_text(), is_package=is_package, may_catch_all=may_catch_all)


MODULES = [load(path) for path in sorted((SOURCES / "hgfleet").rglob("*.py"))]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_keeps_the_rules(module: Module) -> None:
    assert find_faults(module) == []


def test_no_exemption_outlives_its_need() -> None:
    needed = {module.name for module in MODULES if catches_all(module)}
    assert needed >= OUTERMOST_FRAMES


def faults_of(body: str, name: str = "hgfleet.web.pages", *, is_package: bool = False) -> list[str]:
    return find_faults(Module(name, f'"""A module."""\n{body}', is_package=is_package))


@pytest.mark.parametrize(
    "body",
    [
        "import time\ntime.sleep(1)",
        "import time as t\nnow = t.time",
        "from time import monotonic\nstart = monotonic()",
        "from time import sleep as rest\nrest(1)",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import UTC, datetime\ndatetime.now(UTC)",
        "import time\ntime.clock_gettime(time.CLOCK_BOOTTIME)",
    ],
)
def test_only_the_clock_tells_the_time(body: str) -> None:
    assert [fault for fault in faults_of(body) if CLOCK in fault]
    assert faults_of(body, CLOCK) == []


def test_only_the_runtime_sleeps_in_an_event_loop() -> None:
    body = "import asyncio\nasync def f():\n    await asyncio.sleep(1)"
    assert faults_of(body) == ["hgfleet.web.pages:4: asyncio.sleep belongs to hgfleet.runtime"]
    assert faults_of(body, "hgfleet.runtime.loops") == []


def test_other_parts_of_the_time_modules_are_free() -> None:
    assert faults_of("import time\nfrom datetime import timedelta\ntime.strftime('%Y')\ntimedelta(1)") == []


@pytest.mark.parametrize(
    "body",
    ["import os\nos.posix_spawn('/x', [], {})", "import asyncio\nstart = asyncio.create_subprocess_exec"],
)
def test_only_one_adapter_starts_processes(body: str) -> None:
    assert [fault for fault in faults_of(body) if PROCESSES in fault]
    assert faults_of(body, PROCESSES) == []


@pytest.mark.parametrize(
    "body",
    [
        "import os\nos.system('true')",
        "from os import popen\npopen('true')",
        "import asyncio\nasyncio.create_subprocess_shell('true')",
        "import subprocess\nsubprocess.run('true', shell=True)",
        "import subprocess\nsubprocess.run('true', shell=1)",
        "from subprocess import getoutput\ngetoutput('true')",
    ],
)
def test_nobody_uses_a_shell_not_even_the_adapter_for_processes(body: str) -> None:
    assert [fault for fault in faults_of(body, PROCESSES) if "never a shell" in fault]


def test_shell_false_is_no_shell() -> None:
    assert faults_of("import subprocess\nsubprocess.run(['true'], shell=False)", PROCESSES) == []


@pytest.mark.parametrize(
    "handler",
    [
        "except:\n    pass",
        "except Exception:\n    pass",
        "except BaseException:\n    pass",
        "except (ValueError, Exception) as error:\n    print(error)",
        "except Exception:\n    if x: raise",
    ],
)
def test_catching_everything_is_for_outermost_frames(handler: str) -> None:
    source = f'"""A module."""\ntry:\n    f()\n{handler}\n'
    assert find_faults(Module("hgfleet.web.pages", source)) != []
    assert find_faults(Module("hgfleet.web.pages", source, may_catch_all=True)) == []
    assert catches_all(Module("hgfleet.web.pages", source))


def test_suppressing_everything_is_catching_everything() -> None:
    assert faults_of("import contextlib\nwith contextlib.suppress(Exception):\n    f()") != []
    assert faults_of("import contextlib\nwith contextlib.suppress(OSError):\n    f()") == []


@pytest.mark.parametrize(
    "handler",
    [
        "except ValueError:\n    pass",
        "except Exception:\n    undo()\n    raise",
        "except BaseException as error:\n    raise OSError() from error",
    ],
)
def test_cleaning_up_and_raising_again_is_not_catching(handler: str) -> None:
    assert faults_of(f"try:\n    f()\n{handler}\n") == []


def test_a_module_has_a_docstring() -> None:
    assert find_faults(Module("hgfleet.web.pages", "x = 1\n")) == ["hgfleet.web.pages:1: no docstring"]
    assert find_faults(Module("hgfleet.web.pages", '"""  """\n')) == ["hgfleet.web.pages:1: no docstring"]


def test_a_package_holds_a_docstring_only() -> None:
    assert faults_of("from hgfleet.web import pages", "hgfleet.web", is_package=True) != []
    assert faults_of("", "hgfleet.web", is_package=True) == []


@pytest.mark.parametrize("name", ["utils", "web_helpers", "common", "session_manager", "base"])
def test_a_module_is_named_after_what_it_does(name: str) -> None:
    assert faults_of("", f"hgfleet.web.{name}") != []


def test_database_is_not_base() -> None:
    assert faults_of("", "hgfleet.adapters.database") == []


@pytest.mark.parametrize(
    "imported", ["os", "socket", "time", "pydantic", "os.path", "hgfleet.config.parse", "hgfleet.modelling"]
)
@pytest.mark.parametrize("name", ["hgfleet.model.acceptance", "hgfleet.errors"])
def test_model_and_errors_are_pure(name: str, imported: str) -> None:
    assert faults_of(f"import {imported}", name) != []
    assert faults_of(f"from {imported} import x", name) != []


@pytest.mark.parametrize("imported", ["dataclasses", "hashlib", "hgfleet.errors", "hgfleet.model.ids"])
def test_model_and_errors_may_use_pure_things(imported: str) -> None:
    assert faults_of(f"from {imported} import x", "hgfleet.model.acceptance") == []
