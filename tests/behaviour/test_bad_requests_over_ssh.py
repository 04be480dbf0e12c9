"""What a client must not get away with over SSH: one clear line, exit 1, nothing run, nothing changed."""

from __future__ import annotations

import pytest

from tests.support.clients import run
from tests.support.fleet import FRONTS, Fleet

pytestmark = pytest.mark.parametrize("one_mirror", FRONTS, indirect=True)

REFUSED = {
    "another program": "id",
    "a shell": "bash -i",
    "options after the repository": "hg -R tests/x serve --stdio --debugger",
    "an option as the repository": "hg -R --debugger serve --stdio",
    "a config option": "hg -R tests/x --config ui.ssh=x serve --stdio",
    "an empty repository": "hg -R '' serve --stdio",
    "a parent directory": "hg -R ../secret serve --stdio",
    "an inner parent directory": "hg -R a/../b serve --stdio",
    "an absolute path": "hg -R /etc serve --stdio",
    "a home directory": "hg -R ~root serve --stdio",
    "a newline": "hg -R 'a\nb' serve --stdio",
    "unicode": "hg -R réponse serve --stdio",
    "bytes that are not UTF-8": "hg -R r\udce9ponse serve --stdio",
    "ten kilobytes": f"hg -R {'a' * 10_000} serve --stdio",
    "a second command": "hg -R a serve --stdio; id",
    "a substitution": "hg -R $(id) serve --stdio",
    "an unbalanced quote": "hg -R 'a serve --stdio",
    "a repository of git": "git-upload-pack 'a.git'",
}


@pytest.mark.parametrize("command", REFUSED.values(), ids=REFUSED.keys())
def test_a_malformed_command_is_refused_in_one_line(one_mirror: Fleet, command: str) -> None:
    outcome = one_mirror.ssh(command)

    assert outcome.status == 1, outcome
    assert outcome.out == ""
    assert len(outcome.err.strip().splitlines()) == 1, outcome
    assert "Traceback" not in outcome.err


def test_an_unknown_repository_is_one_line(one_mirror: Fleet) -> None:
    outcome = one_mirror.ssh("hg -R tests/not-there serve --stdio")

    assert outcome.status == 1
    assert len(outcome.err.strip().splitlines()) == 1


def test_no_command_prints_who_you_are(one_mirror: Fleet) -> None:
    outcome = one_mirror.ssh("").ok()

    assert one_mirror.endpoints["account"] in outcome.text


def test_an_unknown_account_may_not_log_in(one_mirror: Fleet) -> None:
    outcome = one_mirror.ssh("", account="nobody-here")

    assert outcome.status == 255
    assert "Permission denied" in outcome.err


def test_a_disabled_account_is_refused(one_mirror: Fleet) -> None:
    key = one_mirror.directory.parent / "carol"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]).ok()
    one_mirror.cli("user", "add", "carol", "--group", "developers", "--key", f"{key}.pub").ok()
    one_mirror.ssh("", account="carol", key_file=key).ok()

    one_mirror.cli("user", "disable", "carol").ok()

    assert one_mirror.ssh("", account="carol", key_file=key).status != 0
