"""What the first start makes, and that later ones keep it."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from hgfleet.adapters.toml_directory import TomlDirectory
from hgfleet.adapters.toml_directory_edit import set_enabled
from hgfleet.cli.first_start import make_directory, make_files, make_run_directory
from hgfleet.config.layout import FleetLayout
from hgfleet.config.load import override, parse_config, read_tables
from hgfleet.errors import ConfigError
from hgfleet.model.ids import AccountName


def make_layout(directory: Path, changes: dict[tuple[str, str], object] | None = None) -> FleetLayout:
    path = directory / "hgfleet.toml"
    make_directory(directory, path)
    layout = FleetLayout(parse_config(override(read_tables(path), changes or {}), path))
    make_run_directory(layout)
    return layout


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "fleet")
    make_files(layout, tmp_path / "fleet")
    before = files_below(tmp_path / "fleet")

    make_files(make_layout(tmp_path / "fleet"), tmp_path / "fleet")

    assert files_below(tmp_path / "fleet") == before


def test_private_files_are_the_owners_alone(tmp_path: Path) -> None:
    directory = tmp_path / "fleet"
    make_files(make_layout(directory), directory)

    private = ["keys/ca-key.pem", "keys/server-key.pem", "keys/ssh_host_ed25519", "account/id_ed25519"]
    assert {name: (directory / name).stat().st_mode & 0o777 for name in private} == dict.fromkeys(
        private, 0o600
    )
    assert directory.stat().st_mode & 0o777 == 0o700


def test_the_example_account_may_push_and_create(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "fleet")
    credentials = make_files(layout, tmp_path / "fleet")

    account = TomlDirectory(layout.config.directory.path).account(AccountName(credentials.account))

    assert account is not None
    assert account.is_enabled
    assert account.groups == {"creators", "developers"}
    public = credentials.key_file.with_name("id_ed25519.pub").read_text()
    assert public.startswith(account.keys[0])


def test_an_example_account_that_was_disabled_stays_so(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "fleet")
    credentials = make_files(layout, tmp_path / "fleet")
    set_enabled(layout.config.directory.path, credentials.account, is_enabled=False)

    make_files(layout, tmp_path / "fleet")

    account = TomlDirectory(layout.config.directory.path).account(AccountName(credentials.account))
    assert account is not None
    assert not account.is_enabled


def test_the_certificate_is_accepted_for_localhost_and_the_bind_address(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "fleet", {("http", "bind"): "127.0.0.7"})
    make_files(layout, tmp_path / "fleet")

    for name in ("localhost", "127.0.0.1", "127.0.0.7"):
        assert handshake(layout, name) == "ok"
    assert "certificate verify failed" in handshake(layout, "example.org")


def handshake(layout: FleetLayout, name: str) -> str:
    http = layout.config.http
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(http.certificate, http.key)
    client = ssl.create_default_context(cafile=str(http.ca_file))
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    except ssl.SSLError as error:
        return str(error)
    finally:
        ours.close()
        thread.join()
    return "ok"


def test_a_new_name_replaces_the_certificate_but_not_the_authority(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "fleet")
    make_files(layout, tmp_path / "fleet")
    http = layout.config.http
    authority, certificate = http.ca_file.read_bytes(), http.certificate.read_bytes()  # type: ignore[union-attr]

    make_files(
        make_layout(tmp_path / "fleet", {("site", "url"): "https://hg.example.org"}), tmp_path / "fleet"
    )

    assert http.ca_file.read_bytes() == authority  # type: ignore[union-attr]
    assert http.certificate.read_bytes() != certificate
    names = x509.load_pem_x509_certificate(http.certificate.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "hg.example.org" in names.value.get_values_for_type(x509.DNSName)


def test_a_certificate_from_elsewhere_is_never_touched(tmp_path: Path) -> None:
    directory = tmp_path / "fleet"
    layout = make_layout(directory)
    (directory / "keys").mkdir()
    layout.config.http.certificate.write_text("theirs")

    make_files(layout, directory)

    assert layout.config.http.certificate.read_text() == "theirs"
    assert not (directory / "keys" / "ca-key.pem").exists()


@pytest.mark.parametrize("depth", [1, 40])
def test_sockets_fit_however_deep_the_directory_lies(tmp_path: Path, depth: int) -> None:
    layout = make_layout(tmp_path.joinpath(*["deep"] * depth) / "fleet")

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(layout.agent_socket))
    listener.close()

    assert make_layout(layout.config.site.run_directory.parent).run == layout.run


def test_known_hosts_follow_the_port(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "fleet", {("ssh", "port"): 22})
    credentials = make_files(layout, tmp_path / "fleet")

    assert credentials.known_hosts.read_text().startswith("localhost,127.0.0.1 ssh-ed25519 ")
    assert replace(credentials).account == "example"


def test_a_directory_that_cannot_be_made_is_the_operator_s_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot be made"):
        make_directory(tmp_path / "file", tmp_path / "file" / "hgfleet.toml")
