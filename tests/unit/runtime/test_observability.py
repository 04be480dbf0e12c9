"""Log lines of a process, seen from outside it."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from hgfleet.runtime.observability import configure_logging
configure_logging("web-mirror1", "info")
structlog.get_logger("ours").info("request", status=200)
structlog.get_logger("ours").debug("hidden")
logging.getLogger("theirs").warning("slow %s", "disk", extra={"seconds": 3})
try:
    secret = "not to be logged"
    raise ValueError("broken")
except ValueError:
    structlog.get_logger().exception("failed")
"""


def test_our_lines_and_the_standard_librarys_have_one_form() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True)

    request, slow, failed = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    assert (request["event"], request["status"], request["logger"]) == ("request", 200, "ours")
    assert (slow["event"], slow["seconds"], slow["level"]) == ("slow disk", 3, "warning")
    assert {line["process"] for line in (request, slow, failed)} == {"web-mirror1"}
    assert all(line["at"].endswith("+00:00") for line in (request, slow, failed))
    assert failed["exception"][0]["exc_value"] == "broken"
    assert "secret" not in done.stderr.replace("structlog", "")
