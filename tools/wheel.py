"""Builds the wheel and tries it: installed in a fresh environment from the locks, its commands must start.

Promises: dist/ holds exactly the new wheel, and it has worked once without this source tree.
Does not: publish anything.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".boot" / "venv" / "bin" / "uv"
DIST = ROOT / "dist"


def main() -> int:
    """Build, install, start; return the exit code."""
    shutil.rmtree(DIST, ignore_errors=True)
    try:
        # The build backend is in the locked environment, so nothing is fetched to build.
        _run(UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable)
        (wheel,) = DIST.glob("*.whl")
        with tempfile.TemporaryDirectory() as directory:
            _try(wheel, Path(directory))
    except subprocess.CalledProcessError as failure:
        print(f"hgfleet: `{Path(failure.cmd[0]).name} {failure.cmd[1]}` failed", file=sys.stderr)
        return 1
    print(f"hgfleet: {wheel.relative_to(ROOT)}")
    return 0


def _try(wheel: Path, environment: Path) -> None:
    binaries = environment / "bin"
    install = (UV, "pip", "install", "--quiet", "--python", binaries / "python")
    _run(UV, "venv", "--quiet", "--python", sys.executable, environment)
    _run(*install, "--require-hashes", "--requirement", ROOT / "requirements" / "runtime.lock")
    _run(*install, "--no-deps", wheel)
    _run(binaries / "hgfleet", "--version")
    _run(binaries / "hg", "version", "--quiet")


def _run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
