"""Sees to it that the programs exist that no Python package brings: HAProxy, an SSH client; for tests, more.

    programs.py               fetch what is missing, fail where that is impossible
    programs.py --optional    what a fleet needs, but only say so; one failed attempt is not repeated

A program of the system is taken as it is. Otherwise its Debian package and what that depends on are
downloaded with package lists of our own and unpacked below .tools: no root, no lock of the system's package
manager, no package installed. A wrapper in .tools/bin makes each program find its libraries.

Promises: a program is in .tools/bin only after it has run once; an interrupted run is repeated; two runs at
once wait for each other; nothing outside .tools is written, except links in .venv/bin for what is not on the
system's PATH.
Does not: configure or start anything.
"""

import argparse
import fcntl
import os
import shutil
import ssl
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
BIN = TOOLS / "bin"
LISTS = TOOLS / "apt"
GIVEN_UP = TOOLS / "not-available"
LINKS = ROOT / ".venv" / "bin"
# Where services are installed, and what the PATH of an ordinary account often lacks.
SERVICE_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
WRAPPER = """\
#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")/{prefix}
LD_LIBRARY_PATH={library_path}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}
export LD_LIBRARY_PATH
exec "$root/{program}" "$@"
"""


@dataclass(frozen=True)
class Package:
    """A Debian package and those of its programs that we use; the first one stands for all."""

    name: str
    programs: tuple[str, ...]
    probe: str  # the option that makes the first one print its version
    library: str = ""  # what is looked for in a package without programs, below a library directory
    is_for_tests: bool = False

    @property
    def first(self) -> str:
        """The name of the program or library that is looked for."""
        return Path((*self.programs, self.library)[0]).name


PACKAGES = (
    Package("haproxy", ("usr/sbin/haproxy",), "-v"),
    Package("openssh-client", ("usr/bin/ssh", "usr/bin/ssh-keygen"), "-V"),
    Package("slapd", ("usr/sbin/slapd", "usr/sbin/slapadd"), "-VV", is_for_tests=True),
    Package("ldap-utils", ("usr/bin/ldapsearch", "usr/bin/ldapmodify"), "-VV", is_for_tests=True),
    Package("openssh-server", ("usr/sbin/sshd",), "-V", is_for_tests=True),
    Package("iproute2", ("usr/sbin/ip",), "-V", is_for_tests=True),
    Package("systemd", ("usr/bin/systemd-analyze",), "--version", is_for_tests=True),
    Package("nftables", ("usr/sbin/nft",), "-v", is_for_tests=True),
    # Accounts for sshd that this machine's need not know, without root.
    Package("libnss-wrapper", (), "", library="libnss_wrapper.so", is_for_tests=True),
    # In this order: Maven is a Java program and is tried with the Java that is there then.
    Package("openjdk-17-jre-headless", ("usr/lib/jvm/*/bin/java",), "-version", is_for_tests=True),
    Package("maven", ("usr/share/maven/bin/mvn",), "--version", is_for_tests=True),
)


class UnavailableError(Exception):
    """A program is missing and cannot be fetched; the text is for the person at the terminal."""


def main(arguments: Sequence[str]) -> int:
    """Fetch what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Fetch programs that no Python package brings.")
    parser.add_argument("--optional", action="store_true", help="only say what cannot be fetched")
    optional = parser.parse_args(arguments).optional
    BIN.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = bring_up_to_date(optional=optional)
        link_into_environment()
    if missing:
        print(f"hgfleet: missing: {missing}; `make setup-test` tries again", file=sys.stderr)
    return int(bool(missing) and not optional)


def bring_up_to_date(*, optional: bool) -> str:
    """Fetch what is missing, if it is worth an attempt; return the names of what still is."""
    wanted = [package for package in PACKAGES if not (optional and package.is_for_tests)]
    missing = [package for package in wanted if not is_present(package)]
    names = " ".join(package.first for package in missing)
    if missing and not (optional and names == _given_up()):
        names = " ".join(package.first for package in missing if not _try_fetch(package))
        GIVEN_UP.write_text(names)
    return names


def is_present(package: Package) -> bool:
    """Look for the program; one that only services' directories have is linked into ours."""
    if package.library:
        return find_library(package) is not None
    path = [entry for entry in os.get_exec_path() if not Path(entry).is_relative_to(ROOT)]
    if shutil.which(package.first, path=os.pathsep.join(path)) or (BIN / package.first).exists():
        return True
    found = shutil.which(package.first, path=os.pathsep.join(SERVICE_DIRECTORIES))
    if found:
        (BIN / package.first).unlink(missing_ok=True)
        (BIN / package.first).symlink_to(found)
    return found is not None


def find_library(package: Package) -> Path | None:
    """Return where a package's library lies: the system's, or the one that was fetched."""
    places = (Path("/"), _prefix(package))
    found = (path for place in places for path in place.glob(f"usr/lib/*-linux-*/{package.library}"))
    return next(found, None)


def fetch(package: Package) -> None:
    """Download and unpack the package, try its program, and write the wrappers."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise UnavailableError("no apt-get here; install it with this system's package manager")
    print(f"hgfleet: fetching {package.name}", flush=True)
    prefix = _prefix(package)
    archives = LISTS / "archives" / package.name
    for directory in (prefix, archives):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    (LISTS / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    _run("apt-get", *_apt_options(), "update")
    # Resolved against what this machine has installed: only what it lacks is fetched, never another libc.
    plan = _run("apt-get", *_apt_options(), "--simulate", "--no-install-recommends", "install", package.name)
    needed = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    _run("apt-get", *_apt_options(), "download", *needed, directory=archives)
    for archive in sorted(archives.glob("*.deb")):
        _run("dpkg-deb", "--extract", archive, prefix)
    shutil.rmtree(archives)
    _keep_links_inside(prefix)
    _write_java_authorities(prefix)
    for program in package.programs:
        found = [str(path.relative_to(prefix)) for path in sorted(prefix.glob(program))]
        if not found:
            raise UnavailableError(f"{package.name} has no {program}")
        probe = package.probe if program == package.programs[0] else None
        _write_wrapper(found[-1], prefix, probe=probe)


def link_into_environment() -> None:
    """Let everything in .tools/bin be found beside `hgfleet` too, also by whoever calls it directly."""
    for program in BIN.iterdir():
        link = LINKS / program.name
        if LINKS.is_dir() and not link.is_symlink():
            link.symlink_to(os.path.relpath(program, LINKS))


def _prefix(package: Package) -> Path:
    return TOOLS / "prefix" / package.name


def _keep_links_inside(prefix: Path) -> None:
    """Let absolute links, such as Java's to its settings in /etc, point to what was unpacked with them."""
    for link in prefix.rglob("*"):
        if link.is_symlink() and link.readlink().is_absolute():
            inside = prefix / link.readlink().relative_to("/")
            if inside.exists():
                link.unlink()
                link.symlink_to(os.path.relpath(inside, link.parent))


def _write_java_authorities(prefix: Path) -> None:
    """Give a Java that was unpacked the system's certificate authorities, as installing it would."""
    bundle = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")
    for security in prefix.glob("usr/lib/jvm/*/lib/security"):
        with warnings.catch_warnings():  # some authorities' certificates are odd
            warnings.simplefilter("ignore")
            certificates = x509.load_pem_x509_certificates(bundle.read_bytes())
        entries = [PKCS12Certificate(each, b"%d" % number) for number, each in enumerate(certificates)]
        # Java opens it without a password.
        store = serialize_java_truststore(entries, NoEncryption())
        (security / "cacerts").unlink(missing_ok=True)
        (security / "cacerts").write_bytes(store)


def _given_up() -> str:
    return GIVEN_UP.read_text() if GIVEN_UP.exists() else ""


def _try_fetch(package: Package) -> bool:
    try:
        fetch(package)
    except UnavailableError as reason:
        print(f"hgfleet: {package.first}: {reason}", file=sys.stderr)
        return False
    return True


def _apt_options() -> list[str]:
    settings = {
        "Dir::State::Lists": LISTS / "lists",
        "Dir::Cache": LISTS,
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "",
        "APT::Get::List-Cleanup": "0",
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
    }
    return ["--quiet", *(f"--option={name}={value}" for name, value in settings.items())]


def _write_wrapper(program: str, prefix: Path, *, probe: str | None) -> None:
    patterns = ("usr/lib/*-linux-*", "lib/*-linux-*", "usr/lib/*-linux-*/systemd")
    directories = [path for pattern in patterns for path in prefix.glob(pattern)]
    text = WRAPPER.format(
        prefix=prefix.relative_to(TOOLS),
        library_path=":".join(f"$root/{path.relative_to(prefix)}" for path in directories),
        program=program,
    )
    new = BIN / f"{Path(program).name}.new"
    new.write_text(text)
    new.chmod(0o755)
    try:
        if probe is not None:
            _run(new, probe)
        new.rename(BIN / Path(program).name)
    finally:
        new.unlink(missing_ok=True)


def _run(*command: str | Path, directory: Path = ROOT) -> str:
    """Run a command to its end and return its output; its last line becomes the reason of a failure."""
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, check=False, capture_output=True, text=True, timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise UnavailableError(str(failure)) from failure
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise UnavailableError(f"{Path(command[0]).name}: {lines[-1]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
