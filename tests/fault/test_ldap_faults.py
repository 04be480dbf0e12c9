"""What real LDAP servers, and the network to them, can do to logins; none of it is ever "no such account"."""

from __future__ import annotations

import itertools
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bench.free_ports import free_port
from hgfleet.adapters.account_cache import AccountCache
from hgfleet.adapters.cached_directory import CachedDirectory, CacheLimits
from hgfleet.adapters.directory_status import DirectoryStatus
from hgfleet.adapters.ldap_check import check_ldap
from hgfleet.adapters.ldap_connections import LdapOptions
from hgfleet.adapters.ldap_directory import LdapDirectory
from hgfleet.errors import ConfigError, TransientError
from hgfleet.model.ids import AccountName
from tests.support.authority import make_authority
from tests.support.relay import Relay
from tests.support.slapd import BIND_DN, GROUPS, PEOPLE, Slapd, person_dn, running_slapd
from tests.support.waiting import wait_until

ALICE, BOB = AccountName("alice@example.org"), AccountName("bob@example.org")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDpmWmJXrIq5DJtm7nTdqYVg3sYzC0hCqOCLcN2cGG3K"
Open = Callable[..., LdapDirectory]
_numbers = itertools.count(1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Slapd]:
    """A server that the test may stop."""
    with running_slapd(tmp_path / "slapd") as server:
        yield server


@pytest.fixture
def open_directory(request: pytest.FixtureRequest) -> Open:
    """Open directories that are closed at the end."""

    def open_it(server: Slapd, **changes: object) -> LdapDirectory:
        options = LdapOptions(
            servers=(server.url,),
            accounts_base=PEOPLE,
            groups_base=GROUPS,
            bind_dn=BIND_DN,
            password_file=server.password_file,
            allow_plain=True,
        )
        directory = LdapDirectory(replace(options, **changes))  # type: ignore[arg-type]
        request.addfinalizer(directory.close)
        return directory

    return open_it


def unreachable(directory: LdapDirectory | CachedDirectory, name: AccountName = ALICE) -> TransientError:
    with pytest.raises(TransientError) as caught:
        directory.account(name)
    assert caught.value.code == "directory.unreachable"
    return caught.value


# ---- the example, as published


def test_the_published_example_says_who_is_who(slapd: Slapd, open_directory: Open) -> None:
    directory = open_directory(slapd)
    alice = directory.account(ALICE)
    assert alice is not None
    assert alice.is_enabled
    assert alice.keys == (KEY,)
    assert alice.groups == {"creators", "developers", "scm_level_1"}
    carol = directory.account(AccountName("carol@example.org"))
    assert carol is not None
    assert not carol.is_enabled
    assert directory.account(AccountName("alice")) is None


def test_what_the_example_lets_us_read_is_no_password(slapd: Slapd, open_directory: Open) -> None:
    directory = open_directory(slapd, key_attribute="userPassword")
    alice = directory.account(ALICE)
    assert alice is not None
    assert alice.keys == ()


def test_names_differ_in_case(slapd: Slapd, open_directory: Open) -> None:
    assert open_directory(slapd).account(AccountName("ALICE@example.org")) is None


@pytest.mark.parametrize(
    "name",
    ["*", "a*", "alice@example.org)(mail=*", "*)(objectClass=*", "\\2a", "\0", "alice@example.org\0", "é"],
)
def test_nothing_in_a_name_is_syntax(slapd: Slapd, open_directory: Open, name: str) -> None:
    assert open_directory(slapd).account(AccountName(name)) is None


def test_an_account_without_the_flag_is_not_enabled(slapd: Slapd, open_directory: Open) -> None:
    name = f"flagless{next(_numbers)}"
    slapd.add_account(name, keys=[KEY])
    slapd.replace(name, "hgAccountEnabled", [])
    found = open_directory(slapd).account(AccountName(name))
    assert found is not None
    assert not found.is_enabled
    found = open_directory(slapd, enabled_attribute="").account(AccountName(name))
    assert found is not None
    assert found.is_enabled


def test_keys_with_options_or_damage_are_passed_over(slapd: Slapd, open_directory: Open) -> None:
    name = f"keys{next(_numbers)}"
    blob = KEY.split()[1]
    bad = [
        f'command="sh" {KEY}',
        f"restrict {KEY}",
        "ssh-ed25519 AAAA",
        f"ssh-rsa {blob}",
        f"ssh-dss {blob}",
        "ssh-ed25519",
        f"{KEY[:-4]}....",
        "nothing",
    ]
    slapd.add_account(name, keys=[*bad, f"{KEY} laptop of {name}"])
    found = open_directory(slapd).account(AccountName(name))
    assert found is not None
    assert found.keys == (KEY,)


def test_groups_may_name_their_members_by_dn(slapd: Slapd, open_directory: Open) -> None:
    name = f"member{next(_numbers)}"
    slapd.add_account(name)
    group = f"cn=by-dn-{name},{GROUPS}"
    head = f"dn: {group}\nchangetype: add\nobjectClass: groupOfNames\n"
    slapd.change(f"{head}cn: by-dn-{name}\nmember: {person_dn(name)}\n")
    by_dn = "(&(objectClass=groupOfNames)(member={dn}))"
    found = open_directory(slapd, groups_filter=by_dn).account(AccountName(name))
    assert found is not None
    assert found.groups == {f"by-dn-{name}"}


def test_a_dn_of_signs_finds_its_own_groups_only(slapd: Slapd, open_directory: Open) -> None:
    name = f"signs{next(_numbers)}"
    dn = f"uid=\\2A\\28\\29\\5C{name},{PEOPLE}"
    classes = "objectClass: inetOrgPerson\nobjectClass: hgAccount"
    slapd.change(
        f"dn: {dn}\nchangetype: add\n{classes}\nuid: *()\\{name}\ncn: x\nsn: x\nmail: {name}\n"
        "hgAccountEnabled: TRUE\n"
    )
    group = f"cn={name},{GROUPS}"
    slapd.change(f"dn: {group}\nchangetype: add\nobjectClass: groupOfNames\ncn: {name}\nmember: {dn}\n")
    by_dn = "(&(objectClass=groupOfNames)(member={dn}))"
    found = open_directory(slapd, groups_filter=by_dn).account(AccountName(name))
    assert found is not None
    assert found.groups == {name}


def test_two_entries_of_one_name_let_nobody_in(slapd: Slapd, open_directory: Open) -> None:
    name = f"twice{next(_numbers)}"
    slapd.add_account(name)
    slapd.add_account(f"{name}-other")
    slapd.replace(f"{name}-other", "mail", [name])
    with pytest.raises(TransientError) as caught:
        open_directory(slapd).account(AccountName(name))
    assert caught.value.code == "directory.ambiguous"


def test_more_groups_than_allowed_are_an_error_and_not_some_of_them(
    slapd: Slapd, open_directory: Open
) -> None:
    assert "ldap.max_groups" in unreachable(open_directory(slapd, max_groups=2)).hint


def test_a_base_that_is_not_there_is_an_error(slapd: Slapd, open_directory: Open) -> None:
    error = unreachable(open_directory(slapd, accounts_base="ou=nowhere,dc=example,dc=org"))
    assert "ldap.accounts_base" in error.hint


def test_a_wrong_password_is_an_error_that_names_the_setting(
    slapd: Slapd, open_directory: Open, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("wrong")
    error = unreachable(open_directory(slapd, password_file=tmp_path / "password"))
    assert "ldap.password_file" in error.hint
    assert "wrong" not in str(error)


def test_an_empty_password_never_becomes_an_anonymous_login(
    slapd: Slapd, open_directory: Open, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("\n")
    unreachable(open_directory(slapd, password_file=tmp_path / "password"))


def test_a_changed_password_is_taken_from_its_file(
    server: Slapd, open_directory: Open, tmp_path: Path
) -> None:
    password_file = tmp_path / "password"
    password_file.write_text("bindpw\n")
    directory = open_directory(server, password_file=password_file)
    assert directory.account(ALICE) is not None
    server.change(f"dn: {BIND_DN}\nchangetype: modify\nreplace: userPassword\nuserPassword: another\n")
    password_file.write_text("another\n")
    server.stop()
    server.start()
    assert directory.account(ALICE) is not None
    password_file.unlink()
    server.stop()
    server.start()
    assert directory.account(ALICE) is not None


# ---- the date of the last use


def access_dates(server: Slapd, name: str) -> list[str]:
    return server.search(PEOPLE, f"(mail={name})", "hgAccessDate")


def test_the_last_use_is_written_once_a_day(slapd: Slapd, open_directory: Open) -> None:
    name = AccountName(f"dated{next(_numbers)}")
    slapd.add_account(name)
    directory = open_directory(slapd)
    directory.touch(name)
    [date] = wait_until(lambda: access_dates(slapd, name), what="the date is written")
    assert date.startswith(time.strftime("%Y%m%d", time.gmtime()))
    slapd.replace(name, "hgAccessDate", ["19990101000000Z"])
    directory.touch(name)
    directory.close()
    assert access_dates(slapd, name) == ["19990101000000Z"]


def test_todays_date_in_the_directory_is_not_written_again_after_a_restart(
    slapd: Slapd, open_directory: Open
) -> None:
    name = AccountName(f"dated{next(_numbers)}")
    slapd.add_account(name)
    today = time.strftime("%Y%m%d000000Z", time.gmtime())
    slapd.replace(name, "hgAccessDate", [today])
    directory = open_directory(slapd)
    directory.account(name)
    directory.touch(name)
    directory.close()
    assert access_dates(slapd, name) == [today]


def test_a_date_that_may_not_be_written_is_counted_and_in_nobodys_way(
    slapd: Slapd, open_directory: Open
) -> None:
    directory = open_directory(slapd, access_date_attribute="description")
    started_at = time.monotonic()
    directory.touch(BOB)
    assert time.monotonic() - started_at < 1
    wait_until(lambda: directory.failed_touches == 1, what="the failure is counted")
    assert directory.account(BOB) is not None


# ---- servers that are down, slow or not who they say


def test_a_server_that_is_down_is_passed_over(server: Slapd, open_directory: Open) -> None:
    nobody = f"ldap://127.0.0.1:{free_port()}"
    directory = open_directory(server, servers=(nobody, server.url))
    assert directory.account(ALICE) is not None
    server.stop()
    error = unreachable(directory)
    assert nobody in str(error)
    assert server.url in str(error)
    server.start()
    assert directory.account(ALICE) is not None


def test_a_kept_connection_that_the_server_closed_is_replaced_unnoticed(
    server: Slapd, open_directory: Open
) -> None:
    directory = open_directory(server)
    assert directory.account(ALICE) is not None
    server.stop(signal.SIGKILL)
    server.start()
    assert directory.account(ALICE) is not None


def test_a_listener_that_never_answers_is_given_up_in_time_and_then_passed_over(
    server: Slapd, open_directory: Open
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        silent_url = f"ldap://127.0.0.1:{silent.getsockname()[1]}"
        alone = open_directory(server, servers=(silent_url,), search_timeout_seconds=1.0)
        started_at = time.monotonic()
        assert "timed out" in str(unreachable(alone)).lower()
        assert time.monotonic() - started_at < 4
        started_at = time.monotonic()
        unreachable(alone)
        assert time.monotonic() - started_at < 0.9
        both = open_directory(server, servers=(silent_url, server.url), search_timeout_seconds=1.0)
        assert both.account(ALICE) is not None
        started_at = time.monotonic()
        assert both.account(BOB) is not None
        assert time.monotonic() - started_at < 0.9


def test_a_silent_tls_listener_is_given_up_in_time(server: Slapd, open_directory: Open) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"ldaps://127.0.0.1:{silent.getsockname()[1]}"
        started_at = time.monotonic()
        unreachable(open_directory(server, servers=(url,), search_timeout_seconds=1.0))
        assert time.monotonic() - started_at < 4


def test_a_directory_that_takes_ten_seconds_is_said_to_be_unavailable(
    server: Slapd, open_directory: Open
) -> None:
    relay = Relay(server.process.port)
    slow = open_directory(server, servers=(f"ldap://127.0.0.1:{relay.port}",), search_timeout_seconds=1.0)
    directory = CachedDirectory(slow)
    assert directory.account(ALICE) is not None
    relay.delay_seconds = 10.0
    started_at = time.monotonic()
    unreachable(directory, BOB)
    assert directory.account(ALICE) is not None, "it was known a moment ago"
    assert time.monotonic() - started_at < 9
    relay.close()


def test_only_servers_of_the_given_authority_are_asked(tmp_path: Path, open_directory: Open) -> None:
    mine, other = make_authority(tmp_path / "mine"), make_authority(tmp_path / "other")
    with running_slapd(tmp_path / "slapd", certificate=(mine.certificate, mine.key)) as server:
        for changes in ({"start_tls": True}, {"servers": (server.tls_url,)}):
            secure = {"allow_plain": False, **changes}
            assert open_directory(server, ca_file=mine.ca, **secure).account(ALICE) is not None
            for ca_file in (other.ca, None):
                error = unreachable(open_directory(server, ca_file=ca_file, **secure))
                assert "certificate" in str(error).lower()


def test_a_server_that_cannot_encrypt_is_refused_where_that_is_asked_for(
    slapd: Slapd, open_directory: Open
) -> None:
    unreachable(open_directory(slapd, start_tls=True))


def test_files_that_cannot_be_used_keep_the_directory_from_opening(
    slapd: Slapd, open_directory: Open, tmp_path: Path
) -> None:
    for changes in ({"password_file": tmp_path / "absent"}, {"ca_file": tmp_path / "absent"}):
        with pytest.raises(ConfigError):
            open_directory(slapd, **changes)


# ---- over an outage


def test_known_accounts_log_in_over_an_outage_and_others_are_told_the_truth(
    server: Slapd, open_directory: Open, tmp_path: Path
) -> None:
    directory = CachedDirectory(open_directory(server), cache=AccountCache(tmp_path / "cache.sqlite"))
    alice = directory.account(ALICE)
    assert alice is not None
    assert directory.account(AccountName("nobody")) is None
    server.stop()
    assert directory.account(ALICE) == alice
    unreachable(directory, BOB)
    unreachable(directory, AccountName("nobody"))
    assert directory.status == DirectoryStatus(is_reachable=False, answered=1, refused=2)
    server.start()
    server.set_enabled(ALICE, is_enabled=False)
    after = directory.account(ALICE)
    assert after is not None
    assert not after.is_enabled
    assert directory.status.is_reachable


def test_a_restart_during_an_outage_forgets_nobody(
    server: Slapd, open_directory: Open, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.sqlite"
    before = CachedDirectory(open_directory(server), cache=AccountCache(cache)).account(ALICE)
    server.stop()
    restarted = CachedDirectory(open_directory(server), cache=AccountCache(cache))
    assert restarted.account(ALICE) == before
    unreachable(restarted, BOB)
    limits = CacheLimits(outage_seconds=0.0)
    unreachable(CachedDirectory(open_directory(server), limits, AccountCache(cache)))


# ---- what an operator is told


def test_a_check_tells_how_many_accounts_are_enabled(slapd: Slapd, open_directory: Open) -> None:
    findings = check_ldap(open_directory(slapd).options)
    assert [finding.is_good for finding in findings] == [True] * len(findings), findings
    assert "accounts are enabled" in findings[-1].text


def test_a_check_names_the_server_and_the_setting_that_is_wrong(
    slapd: Slapd, open_directory: Open, tmp_path: Path
) -> None:
    options = open_directory(slapd).options
    nobody = f"ldap://127.0.0.1:{free_port()}"
    findings = check_ldap(replace(options, servers=(nobody, slapd.url)))
    assert [finding.is_good for finding in findings][:2] == [False, True]
    assert nobody in findings[0].text
    (tmp_path / "password").write_text("wrong")
    (tmp_path / "password").chmod(0o600)
    [finding] = check_ldap(replace(options, password_file=tmp_path / "password"))
    assert "ldap.password_file" in finding.remedy
    findings = check_ldap(replace(options, key_attribute="noSuchAttribute"))
    assert any("noSuchAttribute" in f.text and "ldap.key_attribute" in f.remedy for f in findings)
    findings = check_ldap(replace(options, accounts_filter="(objectClass=nothing)"))
    assert not findings[-1].is_good
    assert "ldap.accounts_filter" in findings[-1].remedy
