"""What several workers of a test run do not divide."""

from __future__ import annotations

import pytest

from tests.support.work_units import HOSTS, unit_of


@pytest.mark.parametrize(
    ("nodeid", "unit"),
    [
        ("tests/unit/test_layers.py::test_a_module_keeps_the_rules[hgfleet]", "tests/unit/test_layers.py"),
        ("tests/behaviour/test_import.py::test_x[embedded_front]", "tests/behaviour/test_import.py"),
        ("tests/behaviour/test_import.py::test_x[hosts]", HOSTS),
        ("tests/behaviour/test_import.py::test_x[7 to 6-hosts]", HOSTS),
        ("tests/behaviour/test_import.py::test_x[hosts-file]", HOSTS),
        ("tests/behaviour/test_import.py::test_the_hosts", "tests/behaviour/test_import.py"),
        ("tests/fault/test_hosts.py::test_x[True]", HOSTS),
    ],
)
def test_a_module_is_one_unit_and_several_hosts_are_one_everywhere(nodeid: str, unit: str) -> None:
    assert unit_of(nodeid) == unit
