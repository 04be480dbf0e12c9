"""Builds the Mercurial clients of years ago that tests clone with: .tools/clients/hg-3.6 and so on.

They need Python 2.7 with pip and its headers, and a C compiler. It is looked for under HGFLEET_PYTHON27, on
the PATH and among the versions of pyenv. A machine without it runs the tests without these clients, and
pytest names them; in CI it is a failure.

Promises: nothing that requirements/old-hg.lock does not name and hash is installed; .tools/clients has only
clients that have run once; one of the pinned version is left alone; two runs at once wait for each other.
Does not: touch the Python that it finds. Standard library only, as everything that `make` calls first.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "old-hg.lock"
CLIENTS = ROOT / ".tools" / "clients"
PYTHON = "HGFLEET_PYTHON27"
_IS_2_7 = "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))"
_LAUNCHER = """\
#!{python}
import sys
sys.path.insert(0, {directory!r})
try:
    import hgdemandimport as demandimport
except ImportError:
    from mercurial import demandimport
demandimport.enable()
from mercurial import dispatch
dispatch.run()
"""


def main() -> int:
    """Build what is missing; return the exit code."""
    CLIENTS.mkdir(parents=True, exist_ok=True)
    with (CLIENTS / ".old-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = {version: line for version, line in wanted().items() if not is_built(version, line)}
        if not missing:
            return 0
        python = find_python()
        if python is None:
            return _say_what_is_left_out(missing)
        print(f"hgfleet: building Mercurial {', '.join(missing)} for Python 2.7", flush=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(lambda item: build(python, *item), missing.items())
        return 0 if all(results) else 1


def wanted() -> dict[str, str]:
    """Return the line of the lock by version."""
    lines = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    return {line.split()[0].partition("==")[2]: line for line in lines}


def client_directory(version: str) -> Path:
    """Return where a client lies; bin/hg runs it."""
    return CLIENTS / f"hg-{version}"


def is_built(version: str, line: str) -> bool:
    """Whether the client is there, of exactly the sources that the lock names."""
    stamp = client_directory(version) / ".hgfleet-stamp"
    return stamp.exists() and stamp.read_text() == _stamp(line)


def _stamp(line: str) -> str:
    return "\n".join((str(ROOT), line, _LAUNCHER))


def find_python() -> str | None:
    """Return a Python 2.7 that runs and has pip; shims of pyenv often name one and do not run."""
    return next((python for python in _candidates() if _runs(python)), None)


def build(python: str, version: str, line: str) -> bool:
    """Build one client in its place and try it; False, after saying why, when that failed."""
    target = client_directory(version)
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as directory:
        requirement = Path(directory, "requirement.txt")
        requirement.write_text(line + "\n")
        how = [
            "--quiet",
            "--disable-pip-version-check",
            "--no-cache-dir",
            "--no-deps",
            "--no-binary",
            ":all:",
        ]
        pinned = ["--require-hashes", "--requirement", str(requirement), "--target", str(target / "lib")]
        done = _run([python, "-W", "ignore", "-m", "pip", "install", *how, *pinned])
    if done.returncode == 0:
        _write_launcher(python, target)
        done = _run([str(target / "bin" / "hg"), "version", "--quiet"])
    if done.returncode != 0 or f"(version {version})" not in done.stdout:
        print(
            f"hgfleet: Mercurial {version} could not be built:\n{done.stdout}{done.stderr}", file=sys.stderr
        )
        return False
    (target / ".hgfleet-stamp").write_text(_stamp(line))
    return True


def _candidates() -> Iterator[str]:
    given = os.environ.get(PYTHON)
    if given:
        yield given
        return
    yield from filter(None, map(shutil.which, ("python2.7", "python2")))
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True))


def _runs(python: str) -> bool:
    try:
        return _run([python, "-c", _IS_2_7]).returncode == 0
    except OSError:
        return False


def _write_launcher(python: str, target: Path) -> None:
    program = target / "bin" / "hg"
    program.parent.mkdir(exist_ok=True)
    program.write_text(_LAUNCHER.format(python=python, directory=str(target / "lib")))
    program.chmod(0o755)


def _say_what_is_left_out(missing: dict[str, str]) -> int:
    is_failure = bool(os.environ.get("CI"))
    consequence = "CI needs them" if is_failure else "tests run without them"
    print(
        f"hgfleet: no Python 2.7 with pip here for Mercurial {', '.join(missing)}: {consequence};"
        f" {PYTHON} may name one",
        file=sys.stderr,
    )
    return int(is_failure)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    # Optimising what runs for a second at a time would take most of the build's time.
    environment = os.environ | {"HGRCPATH": "", "HGPLAIN": "1", "CFLAGS": "-O0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    sys.exit(main())
