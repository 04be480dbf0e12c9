"""The reference pages say what the code of all layers has."""

from __future__ import annotations

import pytest

from tools.reference import PAGES, find_errors, find_events, render_pages

TEXT_BY_PAGE = render_pages()


@pytest.mark.parametrize("page", TEXT_BY_PAGE)
def test_a_reference_page_is_what_the_code_says(page: str) -> None:
    assert (PAGES / page).read_text() == TEXT_BY_PAGE[page], "run: python -m tools.reference"


def test_errors_and_events_are_found() -> None:
    assert {"port.taken", "repo.bad-path"} <= {entry.name for entry in find_errors()}
    assert "process.started" in {entry.name for entry in find_events()}
