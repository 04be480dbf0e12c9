"""docs/reference/messages.md names every kind, field and section that there is."""

import json
from pathlib import Path

import pytest

from hgfleet.model.feed_records import OVERRUN, FeedEntry, Opening, encode_feed_record
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


ENTRY = FeedEntry(1, 1, RepoId("0" * 32), Seq(1), Seq(0), "push", "a", 0.0)
FEED_FIELDS = {
    name
    for record in (ENTRY, Opening(1, "h", "l", 0.0))
    for name in json.loads(encode_feed_record(record).partition(b"\n")[2])
}


@pytest.mark.parametrize("name", sorted(FEED_FIELDS | {OVERRUN}))
def test_every_field_of_the_feed_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE.partition("## The feed")[2]
