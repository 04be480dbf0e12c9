"""The reference pages say what the code has; `python -m tests.unit.cli.test_reference_pages` writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgfleet.cli import metrics, reference
from hgfleet.config import render

PAGES = Path(__file__).resolve().parents[3] / "docs" / "reference"
TEXT_BY_PAGE = {
    "config.md": render.render_reference(),
    "metrics.md": metrics.render_reference(),
    "commands.md": reference.render_commands(),
}


@pytest.mark.parametrize("page", TEXT_BY_PAGE)
def test_a_reference_page_is_what_the_code_says(page: str) -> None:
    assert (PAGES / page).read_text() == TEXT_BY_PAGE[page], (
        "run python -m tests.unit.cli.test_reference_pages"
    )


def test_every_command_and_option_has_a_help_text() -> None:
    assert reference.find_undocumented() == []


if __name__ == "__main__":
    for name, text in TEXT_BY_PAGE.items():
        (PAGES / name).write_text(text)
