"""What the configuration says about OpenSSH, as sshd, its two programs and the reception need it.

Promises: the interpreter that sshd is told to run is one that sshd will run: only root can change it or any
directory on the way to it. What is wrong is ConfigError before anything starts.
Does not: start anything.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
import sys
from pathlib import Path

import hgfleet
from hgfleet.adapters.openssh_front import OpenSshOptions
from hgfleet.adapters.sshd_config import SshdOptions, render_sshd_config
from hgfleet.cli.addresses import ssh_listener
from hgfleet.config.layout import FleetLayout
from hgfleet.errors import ConfigError

SYSTEM_PYTHON = Path("/usr/bin/python3")
CLIENT = Path(hgfleet.__file__).resolve().parent / "ssh" / "sshd_client.py"
_SERVICE_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def sshd_config_text(layout: FleetLayout) -> str:
    """Return the sshd_config of this fleet. Raises ConfigError."""
    config, ssh, listener = layout.config, layout.config.ssh, ssh_listener(layout)
    return render_sshd_config(
        SshdOptions(
            site=config.site.name,
            address=listener.address,
            port=listener.port,
            host_key=ssh.host_key,
            keys_command=(*_client(layout), "keys", str(layout.keys_socket)),
            keys_user=_lookup_user(layout).pw_name,
            has_service_accounts=bool(config.access.service_accounts),
            max_connections=ssh.max_connections,
            login_timeout_seconds=ssh.login_timeout_seconds,
            idle_timeout_seconds=ssh.idle_timeout_seconds,
        )
    )


def reception_options(layout: FleetLayout) -> OpenSshOptions:
    """Return where the reception listens for sshd's programs. Raises ConfigError."""
    return OpenSshOptions(
        gate_socket=layout.gate_socket,
        keys_socket=layout.keys_socket,
        gate_command=(*_client(layout), "visit", str(layout.gate_socket)),
        keys_users=frozenset({_lookup_user(layout).pw_uid}),
        keys_group=_lookup_group(layout),
        max_connections=layout.config.ssh.max_connections,
    )


def find_sshd(layout: FleetLayout) -> Path:
    """Return sshd's path. Raises ConfigError `openssh.missing`."""
    program = layout.config.openssh.program
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SERVICE_DIRECTORIES])
    found = shutil.which(program, path=path)
    if found is None:
        raise ConfigError(
            "openssh.missing", "there is no sshd", hint="install it, or set openssh.program", program=program
        )
    return Path(found).absolute()  # sshd starts itself again by this name, which has to be a path


def is_roots_alone(program: Path) -> bool:
    """Tell whether sshd would run this program: nobody but root can change it or a directory above it."""
    try:
        target = program.resolve(strict=True)
        found = [path.stat() for path in (target, *target.parents)]
    except OSError:
        return False
    may_others_write = stat.S_IWGRP | stat.S_IWOTH
    return os.access(target, os.X_OK) and all(
        status.st_uid == 0 and not status.st_mode & may_others_write for status in found
    )


def _client(layout: FleetLayout) -> tuple[str, ...]:
    return (str(choose_python(layout.config.openssh.python)), "-I", "-S", str(CLIENT))


def choose_python(configured: str) -> Path:
    """Return the interpreter of sshd's programs: the configured one or, for "", one that sshd will run."""
    candidates = [Path(configured)] if configured else [Path(sys.executable), SYSTEM_PYTHON]
    for candidate in candidates:
        if is_roots_alone(candidate):
            return candidate
    raise ConfigError(
        "openssh.python",
        "sshd would not run this Python: somebody else than root can change it, or it is not there",
        hint="set openssh.python to one such as /usr/bin/python3",
        python=", ".join(map(str, candidates)),
    )


def _lookup_user(layout: FleetLayout) -> pwd.struct_passwd:
    name = layout.config.openssh.lookup_user
    try:
        return pwd.getpwnam(name or own_name())
    except KeyError as error:
        raise ConfigError(
            "openssh.no-user",
            "sshd's look-up needs a user that exists",
            hint="set openssh.lookup_user",
            name=name,
        ) from error


def own_name() -> str:
    """Return the name of the user that this process runs as. Raises KeyError when it has none."""
    return pwd.getpwuid(os.getuid()).pw_name


def _lookup_group(layout: FleetLayout) -> int | None:
    name = layout.config.openssh.lookup_group
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise ConfigError(
            "openssh.no-group", "there is no such group", hint="set openssh.lookup_group", name=name
        ) from error
