"""Builds the S3 server that tests run against: versitygw, a Go program, at one pinned version.

Built by this machine's Go, or else by the one that requirements/go.lock brings as a Python package. What Go
downloads and compiles is kept in the account's own caches, so only a machine's first build takes minutes.

Promises: .tools/bin has the program only after it has run once; one of the pinned version is left alone; two
runs at once wait for each other; its sources are checked by Go against the public checksum database.
Does not: start anything.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
PROGRAM = TOOLS / "bin" / "versitygw"
STAMP = TOOLS / "versitygw-version"
LINK = ROOT / ".venv" / "bin" / "versitygw"
MODULE, VERSION = "github.com/versity/versitygw/cmd/versitygw", "v1.8.0"
OLDEST_GO = (1, 21)  # from there on Go fetches a newer one by itself where a module asks for it


def main() -> int:
    """Build what is missing; return the exit code."""
    (TOOLS / "bin").mkdir(parents=True, exist_ok=True)
    with (TOOLS / "go-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if not _is_built():
                build()
        except (OSError, subprocess.CalledProcessError) as failure:
            print(f"hgfleet: versitygw could not be built: {failure}", file=sys.stderr)
            return 1
    if LINK.parent.is_dir() and not LINK.is_symlink():
        LINK.symlink_to(os.path.relpath(PROGRAM, LINK.parent))
    return 0


def build() -> None:
    """Build the program beside its place, try it, and move it there."""
    print(f"hgfleet: building versitygw {VERSION}, which takes minutes the first time", flush=True)
    fresh = TOOLS / "go-build"
    shutil.rmtree(fresh, ignore_errors=True)
    environment = os.environ | {"GOBIN": str(fresh), "CGO_ENABLED": "0"}
    subprocess.run([find_go(), "install", f"{MODULE}@{VERSION}"], env=environment, check=True)
    subprocess.run([fresh / "versitygw", "--version"], check=True, stdout=subprocess.DEVNULL)
    (fresh / "versitygw").replace(PROGRAM)
    STAMP.write_text(VERSION)


def find_go() -> str:
    """Return a Go that is new enough, fetching one where there is none."""
    found = shutil.which("go")
    if found and _go_version(found) >= OLDEST_GO:
        return found
    subprocess.run([sys.executable, ROOT / "tools" / "environment.py", "go"], check=True)
    (program,) = (TOOLS / "go").glob("lib/python*/site-packages/go/bin/go")
    return str(program)


def _is_built() -> bool:
    return PROGRAM.exists() and STAMP.exists() and STAMP.read_text() == VERSION


def _go_version(program: str) -> tuple[int, ...]:
    """Return the numbers of `go version go1.26.8 linux/amd64`, none where it says something else."""
    done = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    numbers = words[2].removeprefix("go").split(".")[:2] if len(words) > 2 else []
    return tuple(int(number) for number in numbers if number.isdigit())


if __name__ == "__main__":
    sys.exit(main())
