"""Fingerprints of a repository's state."""

from typing import Any

import pytest

from hgfleet.errors import PoisonError
from hgfleet.model.ids import Digest, Node
from hgfleet.model.state import EMPTY_DIGEST, Fingerprint, digest_lines, parse_fingerprint

FULL = Fingerprint(3, Node("a" * 40), 17, Digest("b" * 64), Digest("c" * 64), 2)


@pytest.mark.parametrize("fingerprint", [Fingerprint(), FULL])
def test_a_fingerprint_is_read_back(fingerprint: Fingerprint) -> None:
    assert parse_fingerprint(fingerprint.to_json()) == fingerprint


def test_the_order_of_lines_does_not_matter_and_each_line_does() -> None:
    assert digest_lines([b"a", b"b"]) == digest_lines([b"b", b"a"])
    assert len({digest_lines(lines) for lines in ([], [b""], [b"a"], [b"a", b"b"], [b"ab"])}) == 5
    assert digest_lines([]) == EMPTY_DIGEST


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {},
        FULL.to_json() | {"more": 1},
        FULL.to_json() | {"pushes": "2"},
        FULL.to_json() | {"pushes": True},
        FULL.to_json() | {"pushes": -1},
        FULL.to_json() | {"changelog_length": 1.5},
        FULL.to_json() | {"tip": "tip"},
        FULL.to_json() | {"tip": "A" * 40},
        FULL.to_json() | {"phases": None},
        FULL.to_json() | {"bookmarks": "0" * 63},
    ],
)
def test_anything_else_is_damaged(fields: Any) -> None:
    with pytest.raises(PoisonError) as poison:
        parse_fingerprint(fields)
    assert poison.value.code == "fingerprint.damaged"
