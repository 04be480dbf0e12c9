"""What the commands' reference page is made from."""

from __future__ import annotations

from hgfleet.cli import reference


def test_every_command_and_option_has_a_help_text() -> None:
    assert reference.find_undocumented() == []
