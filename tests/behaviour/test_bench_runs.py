"""`make bench` measures: it brings rows for what it was asked, whatever their values are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.support.clients import ROOT, Outcome, clean_environment, run


def test_a_measurement_brings_its_rows_as_table_json_and_markdown(tmp_path: Path) -> None:
    wanted = ("--json", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "rows.md"))
    outcome = bench(tmp_path, "--quick", "apply", *wanted).ok()
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert row["benchmark"] == "apply"
    assert all(value > 0 for value in row["ours"]["values"])
    assert len(row["plain"]["values"]) >= 10
    assert row["ratio"] > 0
    assert row["goal"]["limit"] == 40
    for text in (outcome.out, (tmp_path / "rows.md").read_text()):
        assert "CPU to apply one small push on a mirror" in text
        assert "`hg pull` process" in text
        assert str(tmp_path) not in text
    shown = bench(tmp_path, "--show", str(tmp_path / "rows.json")).ok()
    assert shown.out == (tmp_path / "rows.md").read_text()


def test_an_unknown_measurement_is_refused_by_name(tmp_path: Path) -> None:
    outcome = bench(tmp_path, "everything")
    assert outcome.status == 2
    assert "no such measurement: everything" in outcome.err


def bench(home: Path, *args: str) -> Outcome:
    """Run the measurements as `make bench` does."""
    return run([sys.executable, "-m", "bench", *args], cwd=ROOT, env=clean_environment(home))
