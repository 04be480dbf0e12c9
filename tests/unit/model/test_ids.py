"""Names are checked once, when they are parsed."""

from collections.abc import Callable

import pytest

from hgfleet.errors import RejectedError
from hgfleet.model.ids import (
    new_repo_id,
    parse_account_name,
    parse_digest,
    parse_host_name,
    parse_node,
    parse_repo_id,
    parse_repo_path,
)

BAD_PATHS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/./b",
    ".hidden",
    "-R",
    "a/-b",
    "_a",
    "a b",
    "a\nb",
    "a\n",
    "a\0b",
    "a\\b",
    "ünï",
    "a/ß",
    "a%2fb",
    "a;b",
    "a/b.hg",
    "a.git/b",
    "a.HG",
    "x" * 101,
    "/".join(["part"] * 50),
    "a" * 10_000,
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_could_be_anything_but_a_name_is_refused(path: str) -> None:
    with pytest.raises(RejectedError) as refused:
        parse_repo_path(path)
    assert (refused.value.code, refused.value.status) == ("repo.bad-path", 404)


@pytest.mark.parametrize("path", ["a", "A", "9", "team/app", "a.b-c_d/e", "hg", "a/hg", "x" * 100])
def test_an_ordinary_path_is_kept_as_it_is(path: str) -> None:
    assert parse_repo_path(path) == path


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (parse_repo_id, "0123456789abcdef" * 2, ["", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"]),
        (parse_node, "0123456789" * 4, ["", "tip", "0" * 39, "F" * 40, "0" * 40 + "\n"]),
        (parse_digest, "0123456789abcdef" * 4, ["0" * 63, "F" * 64, "0" * 64 + "\n", " "]),
        (parse_digest, "", ["0"]),
        (parse_host_name, "mirror-1.example", ["", "-a", ".a", "Mirror", "a/b", "a_b", "a" * 64, "a\n"]),
        (parse_account_name, "ann.b+c@example.org", ["", "-a", "a b", "a/b", "a\n", "a" * 101, "ä"]),
    ],
)
def test_a_name_has_exactly_one_form(parse: Callable[[str], str], good: str, bad: list[str]) -> None:
    assert parse(good) == good
    for text in bad:
        with pytest.raises(RejectedError):
            parse(text)


def test_a_new_repository_id_is_one_that_parses_and_never_the_same() -> None:
    ids = {new_repo_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(parse_repo_id(text) == text for text in ids)
