"""A real slapd, configured by exactly what deploy/ldap publishes: schema, access rules, example entries."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.free_ports import free_port
from tests.support.clients import ROOT
from tests.support.server_process import ServerProcess, find

DEPLOY = ROOT / "deploy" / "ldap"
SUFFIX = "dc=example,dc=org"
PEOPLE, GROUPS = f"ou=people,{SUFFIX}", f"ou=groups,{SUFFIX}"
ADMIN_DN, ADMIN_PASSWORD = f"cn=admin,{SUFFIX}", "secret"
BIND_DN, BIND_PASSWORD = f"uid=bind-hg,ou=logins,{SUFFIX}", "bindpw"
_SCHEMAS = ("/etc/ldap/schema", "/etc/openldap/schema")
_MODULES = ("/usr/lib/ldap", "/usr/lib64/openldap", "/usr/lib/openldap")


class Slapd:
    """One server with the example's entries. `prefix` and `address`: see ServerProcess."""

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        prefix: Sequence[str] = (),
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        """Prepare a server below `directory`; `certificate` (chain, key) adds StartTLS and LDAPS."""
        self.directory = directory
        self._prefix = tuple(prefix)
        (directory / "db").mkdir(parents=True)
        self._config = directory / "slapd.conf"
        self._config.write_text(_config_text(directory, certificate))
        self.password_file = directory / "bind-password"
        self.password_file.write_text(f"{BIND_PASSWORD}\n")
        self.password_file.chmod(0o600)
        self._slapadd(DEPLOY / "example.ldif")
        port = port or free_port(address)
        self._urls = [f"ldap://{address}:{port}"]
        if certificate is not None:
            self._urls.append(f"ldaps://{address}:{free_port(address)}")
        arguments = ["slapd", "-f", str(self._config), "-h", " ".join(self._urls), "-d", "0"]
        self.process = ServerProcess(
            arguments, log=directory / "slapd.log", address=address, port=port, prefix=prefix
        )

    @property
    def url(self) -> str:
        """Its ldap:// URL."""
        return self._urls[0]

    @property
    def tls_url(self) -> str:
        """Its ldaps:// URL."""
        return self._urls[1]

    def start(self) -> Slapd:
        """Start the server, or start it again."""
        self.process.start()
        return self

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop the server; its entries stay."""
        self.process.stop(number)

    def pause(self) -> None:
        """Let it take connections and answer nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        os.kill(self.process.pid, signal.SIGCONT)

    def config_text(self) -> str:
        """Return the tables of a fleet's configuration that name this server."""
        return (
            '[directory]\nkind = "ldap"\n\n[ldap]\n'
            f'servers = ["{self.url}"]\naccounts_base = "{PEOPLE}"\ngroups_base = "{GROUPS}"\n'
            f'bind_dn = "{BIND_DN}"\npassword_file = "{self.password_file}"\nallow_plain = true\n'
        )

    # ---- entries, changed as an administrator would

    def add_account(self, name: str, *, groups: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
        """Add an enabled account; missing groups are made."""
        lines = [f"dn: {person_dn(name)}", "changetype: add"]
        lines += [f"objectClass: {each}" for each in ("inetOrgPerson", "ldapPublicKey", "hgAccount")]
        lines += [f"uid: {name}", f"cn: {name}", f"sn: {name}", f"mail: {name}", "hgAccountEnabled: TRUE"]
        lines += [f"sshPublicKey: {key}" for key in keys]
        self.change("\n".join(lines) + "\n")
        self.set_groups(name, groups)

    def set_enabled(self, name: str, *, is_enabled: bool) -> None:
        """Enable or disable an account."""
        self.replace(name, "hgAccountEnabled", [str(is_enabled).upper()])

    def set_groups(self, name: str, groups: Sequence[str]) -> None:
        """Replace the groups that an account is in; missing groups are made."""
        known = self.search(GROUPS, "(objectClass=posixGroup)", "cn")
        members = self.search(GROUPS, f"(memberUid={name})", "cn")
        for group in members:
            self._change_member("delete", group, name)
        for group in groups:
            if group not in known:
                head = f"dn: cn={group},{GROUPS}\nchangetype: add\nobjectClass: posixGroup\n"
                self.change(f"{head}cn: {group}\ngidNumber: 20000\n")
            self._change_member("add", group, name)

    def replace(self, name: str, attribute: str, values: Sequence[str]) -> None:
        """Replace one attribute of an account."""
        lines = [f"dn: {person_dn(name)}", "changetype: modify", f"replace: {attribute}"]
        self.change("\n".join([*lines, *(f"{attribute}: {value}" for value in values)]) + "\n")

    def delete_people(self) -> None:
        """Delete every account, and take them out of their groups."""
        for dn in self.search(PEOPLE, "(uid=*)", "dn"):
            self.delete(dn)
        for group in self.search(GROUPS, "(memberUid=*)", "cn"):
            self.change(f"dn: cn={group},{GROUPS}\nchangetype: modify\nreplace: memberUid\n")

    def delete(self, dn: str) -> None:
        """Delete an entry."""
        self.change(f"dn: {dn}\nchangetype: delete\n")

    def change(self, ldif: str) -> None:
        """Apply changes in LDIF."""
        who = ["-D", ADMIN_DN, "-w", ADMIN_PASSWORD]
        _run([*self._prefix, find("ldapmodify"), "-x", "-H", self.url, *who], ldif)

    def search(self, base: str, condition: str, attribute: str) -> list[str]:
        """Return the values of one attribute of all entries that match."""
        who = ["-D", ADMIN_DN, "-w", ADMIN_PASSWORD]
        how = ["-o", "ldif-wrap=no", "-LLL"]
        argv = ["-x", "-H", self.url, *who, *how, "-b", base, condition, attribute]
        out = _run([*self._prefix, find("ldapsearch"), *argv])
        start = f"{attribute}: "
        return [line.removeprefix(start) for line in out.splitlines() if line.startswith(start)]

    def _change_member(self, how: str, group: str, name: str) -> None:
        dn = f"cn={group},{GROUPS}"
        self.change(f"dn: {dn}\nchangetype: modify\n{how}: memberUid\nmemberUid: {name}\n")

    def _slapadd(self, ldif: Path) -> None:
        _run(["slapadd", "-q", "-f", str(self._config), "-l", str(ldif)])


def person_dn(name: str) -> str:
    """Return the DN of an account as `add_account` makes it, or as the example names it."""
    example = {f"{uid}@example.org": uid for uid in ("alice", "bob", "carol")}
    return f"uid={example.get(name, name)},{PEOPLE}"


@contextmanager
def running_slapd(directory: Path, *, certificate: tuple[Path, Path] | None = None) -> Iterator[Slapd]:
    """Run a server for as long as the block lasts."""
    server = Slapd(directory, certificate=certificate)
    try:
        yield server.start()
    finally:
        server.stop()


def _config_text(directory: Path, certificate: tuple[Path, Path] | None) -> str:
    """Return the published configuration with this machine's places in it."""
    text = (DEPLOY / "slapd.conf").read_text()
    for name in ("openssh-lpk", "hgfleet"):
        text = text.replace(f"/etc/ldap/schema/{name}.schema", str(DEPLOY / f"{name}.schema"))
    text = text.replace("/etc/ldap/schema", schema_directory())
    text = text.replace("/usr/lib/ldap", _installed(_MODULES))
    text = text.replace("/run/slapd", str(directory)).replace("/var/lib/ldap", str(directory / "db"))
    if certificate is not None:
        chain, key = certificate
        tls = f"TLSCertificateFile {chain}\nTLSCertificateKeyFile {key}\n"
        text = text.replace("database mdb", f"{tls}\ndatabase mdb", 1)
    return text


def schema_directory() -> str:
    """Return where the schema files are that come with slapd."""
    return _installed(_SCHEMAS)


def _installed(places: Sequence[str]) -> str:
    """Return the first place that exists: of the system, or where its package was unpacked."""
    prefix = ROOT / ".tools" / "prefix" / "slapd"
    own = Path(find("slapd")).resolve().is_relative_to(ROOT)
    for place in places:
        path = prefix / place.removeprefix("/") if own else Path(place)
        if path.is_dir():
            return str(path)
    raise AssertionError(f"slapd is installed without {places[0]}")


def _run(command: Sequence[str], stdin: str = "") -> str:
    done = subprocess.run(
        [find(command[0]), *command[1:]], input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
