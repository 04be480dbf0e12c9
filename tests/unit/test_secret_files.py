"""Files with secrets that others may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgfleet.adapters.secret_files import check_secret_file


@pytest.mark.parametrize(("mode", "count"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)])
def test_a_file_that_everybody_may_read_is_found(tmp_path: Path, mode: int, count: int) -> None:
    path = tmp_path / "secret"
    path.touch()
    path.chmod(mode)
    findings = list(check_secret_file("directory", path))
    assert len(findings) == count
    assert all(f"chmod o= {path}" in finding.remedy for finding in findings)


def test_no_file_is_no_finding(tmp_path: Path) -> None:
    assert list(check_secret_file("directory", None)) == []
    assert list(check_secret_file("directory", tmp_path / "absent")) == []
