"""Who may write and create."""

import pytest

from hgfleet.errors import RejectedError
from hgfleet.model.access import Access, create_access, write_access


@pytest.mark.parametrize(
    ("is_enabled", "groups", "writers", "access"),
    [
        (True, {"scm"}, ("scm", "it"), Access(True, "the group scm is among the writers of this repository")),
        (
            True,
            {"x"},
            ("scm", "it"),
            Access(False, "none of the account's groups is among the writers of this repository: it, scm"),
        ),
        (True, {"x"}, (), Access(False, "no group is among the writers of this repository")),
        (True, set(), ("scm",), write_access(True, {"other"}, ("scm",))),
        (False, {"scm"}, ("scm",), Access(False, "the account is disabled")),
    ],
)
def test_a_writer_is_enabled_and_in_one_of_the_groups(
    is_enabled: bool, groups: set[str], writers: tuple[str, ...], access: Access
) -> None:
    assert write_access(is_enabled, groups, writers) == access


def test_creating_asks_the_sites_creators() -> None:
    assert create_access(True, ["a"], ["a"]).is_allowed
    denied = create_access(True, ["a"], ["b"])
    with pytest.raises(RejectedError) as refused:
        denied.require("access.denied", "you may not create repositories")
    assert (refused.value.code, refused.value.status) == ("access.denied", 403)
    assert refused.value.hint == "none of the account's groups is among the creators of this site: b"
    create_access(True, ["a"], ["a"]).require("access.denied", "you may not create repositories")
