"""Makes the Python environments that the Makefile asks for, from locked and hashed requirements.

    environment.py dev    .venv: hgfleet itself (editable), what it needs, and the development tools
    environment.py hg6    .tools/clients/hg-6.9: an older Mercurial client, for tests
    environment.py go     .tools/go: a Go toolchain, for machines without one
    environment.py lock   requirements/*.lock again, newest versions first

Promises: nothing that the locks do not name is installed; an environment that is up to date is left alone;
two runs at once wait for each other; a run that was interrupted is repeated. Standard library only: it runs
before anything is installed.
Does not: choose the Python that runs it (tools/find-python), fetch what is not Python (tools/programs.py,
tools/go_programs.py).
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
BOOT = ROOT / ".boot"
UV = BOOT / "venv" / "bin" / "uv"
# The Python is given, never downloaded, and a project file above this directory has no say here.
UV_SETTINGS = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROJECT": "1", "UV_CUSTOM_COMPILE_COMMAND": "make lock"}


@dataclass(frozen=True)
class Environment:
    """One virtual environment and what belongs into it."""

    directory: Path
    lock: Path
    with_project: bool = False
    newest_python: tuple[int, int] | None = None  # the last one that its packages have compiled parts for

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.directory / "bin" / "python"


ENVIRONMENTS = {
    "dev": Environment(ROOT / ".venv", REQUIREMENTS / "test.lock", with_project=True),
    "hg6": Environment(
        ROOT / ".tools" / "clients" / "hg-6.9", REQUIREMENTS / "hg6.lock", newest_python=(3, 13)
    ),
    "go": Environment(ROOT / ".tools" / "go", REQUIREMENTS / "go.lock"),
}
# An old Mercurial on a Python that came after it: its Python modules alone, imported at once. Such a client
# is slower and knows no zstd, but it is the same client, and needs neither compiler nor headers.
WITHOUT_COMPILED_PARTS = """\
import os; os.environ.update(HGMODULEPOLICY="py", HGDEMANDIMPORT="disable")
"""
# In this order: a later lock takes the versions that an earlier one of its line has chosen.
LOCKS = {
    "boot.lock": ["requirements/boot.in"],
    "runtime.lock": ["pyproject.toml"],
    "test.lock": ["pyproject.toml", "--group", "test", "--constraint", "requirements/runtime.lock"],
    "hg6.lock": ["requirements/hg6.in"],
    "go.lock": ["requirements/go.in"],
}


def main(arguments: list[str]) -> int:
    """Run one command of the module's docstring; return the exit code."""
    if len(arguments) != 1 or arguments[0] not in {*ENVIRONMENTS, "lock"}:
        print(__doc__, file=sys.stderr)
        return 64
    BOOT.mkdir(exist_ok=True)
    try:
        with (BOOT / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if arguments[0] == "lock":
                refresh_locks()
            else:
                bring_up_to_date(ENVIRONMENTS[arguments[0]])
    except subprocess.CalledProcessError as failure:
        command = " ".join(Path(str(word)).name for word in failure.cmd[:3])
        print(f"hgfleet: `{command} ...` failed; its message is above", file=sys.stderr)
        return 1
    return 0


def bring_up_to_date(environment: Environment) -> None:
    """Make the environment match its lock and the project, doing only what has changed."""
    # A moved directory breaks the scripts inside an environment, so its place counts like the interpreter.
    base = _digest(sys.version, sys.executable, str(environment.directory))
    contents = _digest(environment.lock.read_bytes())
    project = _digest(_installed_part_of_project()) if environment.with_project else ""
    stamp = environment.directory / ".hgfleet-stamp"
    old_base, old_contents, old_project = _read_stamp(stamp)
    if base != old_base:
        print(f"hgfleet: making {environment.directory.relative_to(ROOT)}", flush=True)
        _uv("venv", "--clear", "--python", sys.executable, environment.directory)
        old_contents = old_project = ""
    if contents != old_contents:
        stamp.unlink(missing_ok=True)
        _install_packages(environment)
        old_project = ""
    if project != old_project:
        # Its build backend is in the lock, so building it needs nothing from outside.
        how = ("--no-deps", "--no-build-isolation")
        _uv("pip", "install", *how, "--python", environment.python, "--editable", ROOT)
    if (base, contents, project) != (old_base, old_contents, old_project):
        stamp.write_text("\n".join((base, contents, project)))


def refresh_locks() -> None:
    """Resolve all requirements anew, for every supported Python and platform at once."""
    how = ["--quiet", "--upgrade", "--universal", "--python-version", "3.11", "--generate-hashes"]
    # The locks say what, not from where: whoever installs them uses the index of their own configuration.
    how += ["--no-emit-index-url", "--no-emit-find-links", "--no-annotate"]
    for lock, sources in LOCKS.items():
        _uv("pip", "compile", *how, *sources, "--output-file", f"requirements/{lock}")
        print(f"hgfleet: requirements/{lock}", flush=True)


def _install_packages(environment: Environment) -> None:
    sync = ("pip", "sync", "--require-hashes", "--python", environment.python)
    newest = environment.newest_python
    if newest is None or sys.version_info[:2] <= newest:
        _uv(*sync, environment.lock)
        return
    _uv(*sync, "--python-version", "{}.{}".format(*newest), "--only-binary", ":all:", environment.lock)
    (packages,) = environment.directory.glob("lib/python*/site-packages")
    (packages / "without-compiled-parts.pth").write_text(WITHOUT_COMPILED_PARTS)


def _installed_part_of_project() -> str:
    """Return those tables of pyproject.toml that decide what an installed hgfleet is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return json.dumps([project["build-system"], project["project"], project["tool"]["hatch"]])


def _read_stamp(stamp: Path) -> tuple[str, str, str]:
    try:
        base, contents, project = stamp.read_text().split("\n")
    except (FileNotFoundError, ValueError):
        return "", "", ""
    return base, contents, project


def _uv(*arguments: str | Path) -> None:
    """Run the locked uv, installing it first where that has not been done."""
    _install_uv()
    subprocess.run([UV, "--quiet", *arguments], cwd=ROOT, env=os.environ | UV_SETTINGS, check=True)


def _install_uv() -> None:
    lock = REQUIREMENTS / "boot.lock"
    stamp = BOOT / "venv" / ".hgfleet-stamp"
    wanted = _digest(sys.version, str(BOOT), lock.read_bytes())
    if stamp.exists() and stamp.read_text() == wanted:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", BOOT / "venv"], check=True)
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    python = BOOT / "venv" / "bin" / "python"
    subprocess.run([python, *pip, "--require-hashes", "--requirement", lock], check=True)
    stamp.write_text(wanted)


def _digest(*parts: str | bytes) -> str:
    encoded = (part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.sha256(b"\0".join(encoded)).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
