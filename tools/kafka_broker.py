"""Fetches the Kafka broker that tests run: its jars from Maven Central, at pinned versions.

No distribution and no Python package carries a broker; requirements/kafka.xml names what is fetched. Maven
keeps what it has downloaded in the account's own cache.

Promises: .tools/kafka/libs exists only when it is whole and of the pinned versions; two runs at once wait for
each other; an interrupted run is repeated; Maven refuses a file whose checksum is wrong.
Does not: start a broker (tests/support/kafka.py), or bring Java and Maven (tools/programs.py).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools" / "kafka"
LIBS = TOOLS / "libs"
STAMP = TOOLS / "libs-of"
POM = ROOT / "requirements" / "kafka.xml"
MAIN_JAR = "kafka_2.13-*.jar"


def main() -> int:
    """Fetch what is missing; return the exit code."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            if not is_fetched():
                fetch()
        except (OSError, subprocess.CalledProcessError) as failure:
            print(f"hgfleet: Kafka could not be fetched: {failure}", file=sys.stderr)
            return 1
    return 0


def is_fetched() -> bool:
    """Tell whether the jars are there that the list names now."""
    return LIBS.is_dir() and STAMP.exists() and STAMP.read_text() == _digest()


def fetch() -> None:
    """Copy the jars beside their place and move them there whole."""
    print("hgfleet: fetching Kafka's jars from Maven Central", flush=True)
    fresh = TOOLS / "fetching"
    for directory in (fresh, LIBS):
        shutil.rmtree(directory, ignore_errors=True)
    # -U: a look-up that failed once is otherwise not repeated for a day.
    command = ["mvn", "--quiet", "--batch-mode", "--strict-checksums", "-U", "--file", str(POM)]
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"]
    subprocess.run([*command, *goal], env=_environment(), check=True, timeout=900)
    if not list(fresh.glob(MAIN_JAR)):
        raise OSError("Maven has fetched no broker")
    fresh.rename(LIBS)
    STAMP.write_text(_digest())


def _digest() -> str:
    return hashlib.sha256(POM.read_bytes()).hexdigest()


def _environment() -> dict[str, str]:
    """Let Java and Maven be found that tools/programs.py has fetched."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(ROOT / ".tools" / "bin")])
    return os.environ | {"PATH": path}


if __name__ == "__main__":
    sys.exit(main())
