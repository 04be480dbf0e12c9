"""The published LDAP schema in both of its forms; tests of the directory load the rest of deploy/ldap."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.server_process import find
from tests.support.slapd import DEPLOY, schema_directory

_CONFIG = """\
dn: cn=config
objectClass: olcGlobal
cn: config

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

"""


def test_a_server_with_cn_config_takes_the_ldif_files(tmp_path: Path) -> None:
    installed = [Path(schema_directory()) / f"{name}.ldif" for name in ("core", "cosine", "inetorgperson")]
    ours = [DEPLOY / "openssh-lpk.ldif", DEPLOY / "hgfleet.ldif"]
    ldif = tmp_path / "config.ldif"
    ldif.write_text(_CONFIG + "\n".join(path.read_text() for path in (*installed, *ours)))
    (tmp_path / "slapd.d").mkdir()
    command = [find("slapadd"), "-n", "0", "-F", str(tmp_path / "slapd.d"), "-l", str(ldif)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {path.name.partition("}")[2] for path in (tmp_path / "slapd.d").rglob("cn={*.ldif")}
    assert {"openssh-lpk.ldif", "hgfleet.ldif"} <= loaded


@pytest.mark.parametrize("name", ["openssh-lpk", "hgfleet"])
def test_both_forms_of_the_schema_say_the_same(name: str) -> None:
    keywords = {"olcAttributeTypes:": "attributetype", "olcObjectClasses:": "objectclass"}
    ldif = (DEPLOY / f"{name}.ldif").read_text()
    for keyword, plain in keywords.items():
        ldif = ldif.replace(keyword, plain)
    assert definitions(ldif) == definitions((DEPLOY / f"{name}.schema").read_text())
    assert len(definitions(ldif)) >= 2


def definitions(text: str) -> list[str]:
    """Return each attribute type and object class, its white space made equal."""
    found = re.findall(r"^(?:attributetype|objectclass) \([^\n]*(?:\n[ \t]+[^\n]*)*", text, re.MULTILINE)
    return [" ".join(each.split()) for each in found]
