"""`hgfleet user`: the accounts of the embedded directory.

Promises: a change takes effect at the account's next login; a damaged file is refused, never overwritten.
With an LDAP directory, whose accounts have tools of their own, one is shown as logging in sees it, and every
other command says where they are managed.
Does not: change an LDAP directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hgfleet.adapters import toml_directory_edit
from hgfleet.adapters.toml_directory import TomlDirectory
from hgfleet.cli.fleet import Fleet, fleet_options
from hgfleet.cli.output import json_option, print_json, print_table
from hgfleet.cli.parts import open_plain_directory
from hgfleet.errors import RejectedError
from hgfleet.model.ids import parse_account_name


@click.group("user")
def user_group() -> None:
    """Manage the accounts that may log in."""


@user_group.command("add")
@click.argument("name")
@click.option("--group", "groups", multiple=True, help="a group it is in; repeatable")
@click.option(
    "--key", "keys", multiple=True, help="an SSH public key, or the path of a .pub file; repeatable"
)
@fleet_options
def add_user(name: str, groups: tuple[str, ...], keys: tuple[str, ...], fleet: Fleet) -> None:
    """Add an account, enabled."""
    lines = [line for key in keys for line in _read_keys(key)]
    toml_directory_edit.add_account(_accounts_file(fleet), name, groups=groups, keys=lines)
    click.echo(f"added {name}")


@user_group.command("list")
@fleet_options
@json_option
def list_users(fleet: Fleet, *, as_json: bool) -> None:
    """List all accounts."""
    accounts = [_as_json(account) for account in TomlDirectory(_accounts_file(fleet)).accounts()]
    if as_json:
        print_json(accounts)
        return
    rows = [
        (a["name"], "enabled" if a["is_enabled"] else "disabled", ",".join(a["groups"]), len(a["keys"]))
        for a in accounts
    ]
    print_table(("account", "state", "groups", "keys"), rows)


@user_group.command("show")
@click.argument("name")
@fleet_options
@json_option
def show_user(name: str, fleet: Fleet, *, as_json: bool) -> None:
    """Show one account as the directory has it now."""
    account = open_plain_directory(fleet.config).account(parse_account_name(name))
    if account is None:
        raise RejectedError("account.unknown", "no such account", name=name)
    shown = _as_json(account)
    if as_json:
        print_json(shown)
        return
    click.echo(f"{account.name}: {'enabled' if account.is_enabled else 'disabled'}")
    click.echo(f"groups: {', '.join(shown['groups']) or 'none'}")
    for key in shown["keys"] or ["none"]:
        click.echo(f"key: {key}")


@user_group.command("key")
@click.argument("name")
@click.argument("key")
@click.option("--remove", is_flag=True, help="take the key away instead; its fingerprint is enough")
@fleet_options
def change_key(name: str, key: str, fleet: Fleet, *, remove: bool) -> None:
    """Give an account one more KEY: an SSH public key, or the path of a .pub file."""
    path = _accounts_file(fleet)
    for line in _read_keys(key):
        if remove:
            toml_directory_edit.remove_key(path, name, line)
            click.echo(f"removed the key from {name}")
        else:
            added = toml_directory_edit.add_key(path, name, line)
            click.echo(f"added {added.fingerprint} to {name}")


@user_group.command("groups")
@click.argument("name")
@click.argument("groups", nargs=-1)
@fleet_options
def change_groups(name: str, groups: tuple[str, ...], fleet: Fleet) -> None:
    """Replace the groups that an account is in."""
    toml_directory_edit.set_groups(_accounts_file(fleet), name, groups)
    click.echo(f"{name} is in: {', '.join(groups) or 'no group'}")


@user_group.command("disable")
@click.argument("name")
@fleet_options
def disable_user(name: str, fleet: Fleet) -> None:
    """Refuse an account: log-ins and writes at once, and its open sessions end soon (ssh.account_check)."""
    toml_directory_edit.set_enabled(_accounts_file(fleet), name, is_enabled=False)
    click.echo(f"disabled {name}")


@user_group.command("enable")
@click.argument("name")
@fleet_options
def enable_user(name: str, fleet: Fleet) -> None:
    """Let a disabled account log in again."""
    toml_directory_edit.set_enabled(_accounts_file(fleet), name, is_enabled=True)
    click.echo(f"enabled {name}")


def _accounts_file(fleet: Fleet) -> Path:
    """Return the file of accounts; raise RejectedError `directory.elsewhere` where there is none."""
    if fleet.config.directory.kind != "toml":
        servers = ", ".join(fleet.config.ldap.servers)
        raise RejectedError(
            "directory.elsewhere",
            "the accounts of this fleet are managed in LDAP",
            hint="change them there; `hgfleet user show NAME` says what is seen from here",
            servers=servers,
        )
    return fleet.config.directory.path


def _read_keys(text: str) -> list[str]:
    """Return the key lines: the text itself, or those of the file that it names."""
    if text.startswith(("ssh-", "ecdsa-", "sk-", "SHA256:")):
        return [text]
    try:
        return [line for line in Path(text).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RejectedError("key.unreadable", "neither a public key nor a file with one", key=text) from error


def _as_json(account: Any) -> dict[str, Any]:
    return {
        "name": account.name,
        "is_enabled": account.is_enabled,
        "groups": sorted(account.groups),
        "keys": list(account.keys),
    }
