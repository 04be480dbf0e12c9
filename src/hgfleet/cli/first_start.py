"""Makes what a fleet on one machine needs before its first start, and keeps it at every later one.

Promises: nothing that is there is replaced, but for a server certificate of our own authority that ends soon
or lacks a name; private keys and the directory itself are readable by their owner only.
Does not: start anything, or bring back the example account once there is a directory of accounts.
"""

from __future__ import annotations

import ipaddress
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hgfleet.adapters.files import write_by_rename
from hgfleet.adapters.ssh_key_files import ensure_key_pair, format_known_hosts
from hgfleet.adapters.tls import CertificateFiles, ensure_certificates
from hgfleet.adapters.toml_directory_edit import add_account, create_directory_file
from hgfleet.config.layout import FleetLayout
from hgfleet.config.render import render_default_config
from hgfleet.config.schema import FleetConfig
from hgfleet.errors import ConfigError

EXAMPLE_ACCOUNT = "example"
_MAX_SOCKET_PATH = 100  # bytes of a Unix socket's path, of 107 that the kernel takes
_LONGEST_SOCKET = "log-agent.sock"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client on this machine needs; no account and key where they are managed elsewhere."""

    account: str
    key_file: Path | None
    known_hosts: Path
    ca_file: Path | None


def make_directory(directory: Path, config_path: Path) -> None:
    """Make the fleet's directory and its configuration file unless there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            "config.bad-directory",
            "the fleet's directory cannot be made",
            hint="choose another with --dir",
            directory=str(directory),
            reason=error.strerror,
        ) from error
    if not config_path.exists():
        write_by_rename(config_path, render_default_config({}).encode())


def make_run_directory(layout: FleetLayout) -> None:
    """Make the directory of the sockets; a link to a temporary one where the path is too long for sockets."""
    run = layout.run_link
    if not is_path_short(run) and not run.is_dir():
        run.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        run.unlink(missing_ok=True)
        run.symlink_to(tempfile.mkdtemp(prefix="hgfleet-"))
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_path_short(layout.run):
        raise ConfigError(
            "config.path-too-long",
            "the path is too long for sockets",
            hint="set site.run_directory",
            path=run,
        )


def is_path_short(run_directory: Path) -> bool:
    """Tell whether sockets have room in a directory's path."""
    return len(bytes(run_directory / _LONGEST_SOCKET)) <= _MAX_SOCKET_PATH


def make_host_directories(layout: FleetLayout) -> None:
    """Make the directories of the host that this machine is."""
    config = layout.config
    owned = [layout.logs, *(path for host in layout.hosts for path in (host.repositories, host.spool))]
    if config.log.kind == "sqlite":
        owned.append(config.log.path.parent)
    if config.blobs.kind == "directory":
        owned.append(config.blobs.path)
    for path in owned:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def make_files(layout: FleetLayout, directory: Path) -> Credentials:
    """Make directories, certificates, keys and the example account; return what a client needs."""
    config = layout.config
    _make_directories(layout)
    _make_certificates(config)
    host_key = ensure_key_pair(config.ssh.host_key, "hgfleet host key")
    account_directory = directory / "account"
    account_directory.mkdir(mode=0o700, exist_ok=True)
    is_ours = config.directory.kind == "toml"
    credentials = Credentials(
        EXAMPLE_ACCOUNT if is_ours else "",
        account_directory / "id_ed25519" if is_ours else None,
        account_directory / "known_hosts",
        config.http.ca_file,
    )
    if credentials.key_file is not None:
        _make_example_account(config, credentials.key_file)
    hosts = ["localhost", "127.0.0.1", config.ssh.bind]
    known = format_known_hosts(dict.fromkeys(hosts), config.ssh.port, host_key)
    write_by_rename(credentials.known_hosts, known.encode(), mode=0o644)
    return credentials


def _make_directories(layout: FleetLayout) -> None:
    config = layout.config
    owned = [config.log.path.parent, config.blobs.path, layout.logs, config.ssh.host_key.parent]
    owned += [config.http.key.parent, config.directory.path.parent]
    owned += [path for host in layout.hosts for path in (host.repositories, host.spool)]
    for path in owned:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make_certificates(config: FleetConfig) -> None:
    """Unless the certificate is from elsewhere: then there is one, and no key of our authority beside it."""
    http = config.http
    if http.ca_file is None:
        return
    files = CertificateFiles(http.ca_file, http.ca_file.with_name("ca-key.pem"), http.certificate, http.key)
    if files.ca_key.exists() or not files.certificate.exists():
        ensure_certificates(files, list(_certificate_names(config)))


def _certificate_names(config: FleetConfig) -> Iterable[str]:
    names = ["localhost", "127.0.0.1", "::1", config.http.bind, urlsplit(config.base_url).hostname or ""]
    return dict.fromkeys(name for name in names if name and not _is_wildcard(name))


def _is_wildcard(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return False


def _make_example_account(config: FleetConfig, key_file: Path) -> None:
    if config.directory.path.exists():
        return
    key = ensure_key_pair(key_file, EXAMPLE_ACCOUNT)
    create_directory_file(config.directory.path)
    groups = [*config.access.creators, *config.access.default_writers]
    add_account(config.directory.path, EXAMPLE_ACCOUNT, groups=groups, keys=[f"{key} {EXAMPLE_ACCOUNT}"])
