"""docs/reference/messages.md names every kind, field and section that there is."""

import json
from pathlib import Path

import pytest

from hgfleet.model.ids import NO_DIGEST, Epoch, RepoId, Seq
from hgfleet.model.message import Envelope, Kind, make_message
from hgfleet.model.payload import Tag
from hgfleet.model.settings import RepoSettings
from hgfleet.model.state import Fingerprint

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "messages.md").read_text()
HEADER = json.loads(
    make_message(
        Envelope(Kind.VOID, RepoId("0" * 32), Seq(1), NO_DIGEST, Epoch(1), 0.0, "host:one", "t")
    ).header
)


@pytest.mark.parametrize(
    "name",
    [
        *(kind.value for kind in Kind),
        *HEADER,
        *HEADER["payload"],
        *RepoSettings().to_json(),
        *Fingerprint().to_json(),
    ],
)
def test_every_name_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("tag", [tag for tag in Tag if tag is not Tag.END])
def test_every_section_is_on_the_page_with_its_number(tag: Tag) -> None:
    assert f"| {tag.value} | `{tag.name.lower()}` |" in PAGE
