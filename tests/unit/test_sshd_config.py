"""What sshd is given: nothing that its parser or a login shell would take apart."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hgfleet.adapters.openssh_front import HandedStreams, fingerprint, key_data, parse_visit
from hgfleet.adapters.openssh_socket import Packet
from hgfleet.adapters.sshd_config import SshdOptions, authorized_key, plain_word, render_sshd_config
from hgfleet.cli.openssh import choose_python, is_roots_alone
from hgfleet.errors import ConfigError, PoisonError

OPTIONS = SshdOptions(
    site="hgfleet",
    address="127.0.0.1",
    port=22,
    host_key=Path("/etc/hgfleet/key"),
    keys_command=("/usr/bin/python3", "-I", "-S", "/opt/client.py", "keys", "/run/keys.sock"),
    keys_user="hgfleet",
    has_service_accounts=False,
    max_connections=200,
    login_timeout_seconds=30,
    idle_timeout_seconds=300,
)
HOSTILE = [
    "",
    "a b",
    "a\nPermitTTY yes",
    'a"b',
    "a'b",
    "a\\b",
    "a%u",
    "a$b",
    "a`b`",
    "a;b",
    "a#b",
    "a\0b",
    "é",
]


@pytest.mark.parametrize("word", HOSTILE)
def test_a_word_that_would_be_interpreted_is_refused(word: str) -> None:
    with pytest.raises(ConfigError) as refused:
        plain_word(word)
    assert refused.value.code == "openssh.bad-word"


@pytest.mark.parametrize("word", HOSTILE)
def test_no_line_is_made_of_such_words(word: str) -> None:
    for options in (
        replace(OPTIONS, host_key=Path(f"/x y/{word}")),
        replace(OPTIONS, keys_command=(word,)),
        replace(OPTIONS, keys_user=word),
        replace(OPTIONS, address=word),
    ):
        with pytest.raises(ConfigError):
            render_sshd_config(options)
    for command, key_type, key in ((word, "ssh-rsa", "AA"), ("gate", word, "AA"), ("gate", "ssh-rsa", word)):
        with pytest.raises(ConfigError):
            authorized_key((command,), key_type, key)


@given(st.text(min_size=1))
def test_a_line_has_one_command_in_its_quotes_whatever_the_words(word: str) -> None:
    try:
        line = authorized_key(("gate", word), "ssh-ed25519", "AAAA")
    except ConfigError:
        return
    assert re.fullmatch(r'restrict,command="gate [A-Za-z0-9/._+:@=,-]+" ssh-ed25519 AAAA\n', line)


def test_a_sites_name_stays_within_its_comment() -> None:
    text = render_sshd_config(replace(OPTIONS, site="x\nPermitTTY yes"))
    assert "\nPermitTTY yes" not in text


def test_a_clients_environment_is_accepted_only_for_service_accounts() -> None:
    assert "AcceptEnv" not in render_sshd_config(OPTIONS)
    text = render_sshd_config(replace(OPTIONS, has_service_accounts=True))
    assert re.findall("^AcceptEnv.*$", text, re.MULTILINE) == ["AcceptEnv AUTOLAND_REQUEST_USER"]


def test_a_keyword_is_given_once() -> None:
    lines = [line.split()[0] for line in render_sshd_config(OPTIONS).splitlines() if line and line[0] != "#"]
    assert sorted(set(lines)) == sorted(lines)


def test_a_program_that_others_can_change_is_none_for_sshd(tmp_path: Path) -> None:
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    assert not is_roots_alone(program)
    assert not is_roots_alone(tmp_path / "missing")
    assert is_roots_alone(Path("/bin/sh"))
    with pytest.raises(ConfigError) as refused:
        choose_python(str(program))
    assert refused.value.code == "openssh.python"


@pytest.mark.parametrize("fields", [(), ("a",), ("a", "b", "c", "d", "e", "f")])
def test_a_packet_of_another_form_is_no_visit(fields: tuple[str, ...]) -> None:
    with pytest.raises(PoisonError):
        parse_visit(Packet(fields, ()))


@given(st.text())
def test_keys_are_compared_by_their_bytes(text: str) -> None:
    assert isinstance(key_data(text), bytes)
    assert key_data("AAAA") == b"\0\0\0"
    assert fingerprint(b"").startswith("SHA256:")


@given(st.lists(st.text()), st.lists(st.text()), st.integers(0, 255))
def test_an_answer_has_three_fields_whatever_is_said(shown: list[str], told: list[str], status: int) -> None:
    streams = HandedStreams((), None)  # type: ignore[arg-type]
    for text in shown:
        streams.show(text)
    for line in told:
        streams.tell(line)
    fields = streams.format_answer(status).split(b"\0")
    assert len(fields) == 3
    assert fields[0] == str(status).encode()
