"""The configuration file: what is accepted, and how everything that is wrong is said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hgfleet.config.load import load_config, override, parse_config, read_tables
from hgfleet.config.render import config_values, render_config, render_default_config
from hgfleet.config.schema import section_classes
from hgfleet.errors import ConfigError


def problems_of(text: str, directory: Path) -> list[str]:
    path = directory / "hgfleet.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.code == "config.invalid"
    return caught.value.hint.splitlines()


def test_the_file_that_init_writes_gives_every_default(tmp_path: Path) -> None:
    path = tmp_path / "hgfleet.toml"
    path.write_text(render_default_config({}))

    assert load_config(path) == parse_config({}, path)


def test_a_configuration_in_force_reads_back_the_same_from_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "hgfleet.toml"
    path.write_text('[http]\ntrusted_proxies = ["10.0.0.0/8"]\nca_file = ""\n[membership]\nlease = "1m"\n')
    elsewhere = tmp_path / "run" / "effective.toml"
    elsewhere.parent.mkdir()

    config = load_config(path)
    elsewhere.write_text(render_config(config))

    assert load_config(elsewhere) == config


def test_relative_paths_start_at_the_files_directory(tmp_path: Path) -> None:
    config = parse_config({"blobs": {"path": "big/things"}}, tmp_path / "hgfleet.toml")

    assert config.blobs.path == tmp_path / "big" / "things"


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    problems = problems_of(
        '[ssh]\nport = "22"\n[log]\npartitions = 0\n[membership]\nlease = "soon"\n', tmp_path
    )

    assert [problem.split(":")[0] for problem in problems] == [
        "log.partitions",
        "ssh.port",
        "membership.lease",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[ssh]\nprot = 1", "ssh.prot: unknown; did you mean port?"),
        ("[mirors]", "mirors: unknown; did you mean mirrors?"),
        ("[ssh]\nzzz = 1", "ssh.zzz: unknown"),
        ("ssh = 3", "ssh: expected a table"),
        ('[membership]\nlease_seconds = "10s"', "membership.lease_seconds: unknown; did you mean lease?"),
        (
            "[membership]\nlease = 10",
            'membership.lease: expected a duration such as "250ms", "30s" or "5m", not 10',
        ),
        ('[ssh]\nbind = "localhost"', "ssh.bind: expected an IP address, not 'localhost'"),
        ("[testing]\nallow_faults = 1", "testing.allow_faults: should be a valid boolean, not 1"),
        ("[ssh]\nport = 70000", "ssh.port: should be less than or equal to 65535, not 70000"),
    ],
)
def test_a_problem_names_its_key_and_what_would_be_right(tmp_path: Path, text: str, problem: str) -> None:
    assert problems_of(text, tmp_path) == [problem]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[membership]\nlease = "3s"', "membership.lease"),
        ("[membership]\nfloor = 2", "membership.floor"),
        ("[mirrors]\ncount = 3\nports = [1, 2]", "mirrors.ports"),
        ('[push]\nappend_deadline = "30s"', "push.append_deadline"),
        ("[ssh]\nport = 8443", "ssh.port, http.https_port"),
    ],
)
def test_settings_that_cannot_both_be_right_are_refused(tmp_path: Path, text: str, key: str) -> None:
    [problem] = problems_of(text, tmp_path)
    assert problem.startswith(f"{key}:")


def test_a_file_that_is_no_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    [problem] = problems_of("[ssh\n", tmp_path)
    assert "line 1" in problem


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "hgfleet.toml")
    assert caught.value.code == "config.missing"
    assert "hgfleet up" in caught.value.hint


def test_options_replace_single_values(tmp_path: Path) -> None:
    path = tmp_path / "hgfleet.toml"
    path.write_text("[mirrors]\ncount = 2\n")

    config = parse_config(override(read_tables(path), {("ssh", "port"): 2022}), path)

    assert (config.ssh.port, config.mirrors.count) == (2022, 2)


def test_every_key_has_a_comment() -> None:
    undocumented = [
        f"{table}.{name}"
        for table, kind in section_classes().items()
        for name, field in kind.model_fields.items()
        if not field.description
    ]
    assert undocumented == []
    assert all(kind.__doc__ for kind in section_classes().values())


def test_show_lists_every_key_that_init_writes(tmp_path: Path) -> None:
    values = config_values(parse_config({}, tmp_path / "hgfleet.toml"))
    written = {line.split(" = ")[0] for line in render_default_config({}).splitlines() if " = " in line}

    assert {key for keys in values.values() for key in keys} <= written


def test_every_setting_is_used_somewhere() -> None:
    sources = Path(__file__).resolve().parents[3] / "src" / "hgfleet"
    files = [path for path in sources.rglob("*.py") if path != sources / "config" / "schema.py"]
    text = "\n".join(path.read_text() for path in files) + "self.site.url"  # FleetConfig.base_url
    kinds = {"kind"}  # one value each so far
    unused = [
        f"{table}.{name}"
        for table, section in section_classes().items()
        for name in section.model_fields.keys() - kinds
        if f".{name}" not in text
    ]
    assert unused == []


LDAP = {"servers": ["ldaps://ldap.example.org"], "accounts_base": "ou=people,dc=example,dc=org"}


@pytest.mark.parametrize(
    ("ldap", "problem"),
    [
        ({}, None),
        ({"servers": []}, "ldap.servers: must be given"),
        ({"accounts_base": ""}, "ldap.accounts_base: must be given"),
        ({"servers": ["ldap://a"]}, "is not encrypted"),
        ({"servers": ["ldap://a"], "start_tls": True}, None),
        ({"servers": ["ldap://a"], "allow_plain": True}, None),
        ({"servers": ["http://a"]}, "expected URLs"),
        ({"servers": ["ldaps://a/dc=x??sub"]}, "expected URLs"),
        ({"bind_dn": "cn=x"}, "one is of no use without the other"),
        ({"groups_filter": "(memberUid=x)"}, "everybody would be in every group"),
        ({"groups_filter": "(memberUid={user})"}, "nothing is put in for user"),
        ({"groups_filter": "(member={dn})"}, None),
        ({"groups_filter": "memberUid={account}"}, "in parentheses"),
        ({"accounts_filter": "(uid={account})"}, "nothing is put in here"),
        ({"key_attribute": "a)(b"}, "ldap.key_attribute"),
        ({"enabled_attribute": ""}, None),
    ],
)
def test_ldap_settings_fit_each_other(tmp_path: Path, ldap: dict[str, Any], problem: str | None) -> None:
    tables = {"directory": {"kind": "ldap"}, "ldap": LDAP | ldap}
    if problem is None:
        assert parse_config(tables, tmp_path / "hgfleet.toml").directory.kind == "ldap"
        return
    with pytest.raises(ConfigError) as caught:
        parse_config(tables, tmp_path / "hgfleet.toml")
    assert problem in caught.value.hint


@pytest.mark.parametrize(
    ("s3", "problem"),
    [
        ({"bucket": "b"}, None),
        ({}, "s3.bucket: must be named"),
        ({"bucket": "b", "endpoint": "s3.example.org"}, "s3.endpoint"),
        ({"bucket": "b", "prefix": "no-slash"}, "s3.prefix"),
        ({"bucket": "b", "part": "1MiB"}, "s3.part"),
    ],
)
def test_s3_settings_have_a_form_that_can_be_right(
    tmp_path: Path, s3: dict[str, Any], problem: str | None
) -> None:
    tables = {"blobs": {"kind": "s3"}, "s3": s3}
    if problem is None:
        assert parse_config(tables, tmp_path / "hgfleet.toml").s3.bucket == "b"
        return
    with pytest.raises(ConfigError) as caught:
        parse_config(tables, tmp_path / "hgfleet.toml")
    assert problem in caught.value.hint
