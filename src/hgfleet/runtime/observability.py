"""Structured log lines for every process: one JSON object per line, on standard error by default.

`hgfleet up` collects the lines of its children into files; elsewhere the service manager does.

Promises: what the standard library's logging says (gunicorn, asyncssh) comes in the same form; a line names
its process; nothing is ever written to standard output.
Does not: rotate files, or log inside Mercurial's sessions, where both streams belong to the protocol.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

from hgfleet.runtime import clock

Fields = MutableMapping[str, Any]


def configure_logging(process: str, level: str, output: TextIO | None = None) -> None:
    """Send this process's log lines to `output` or standard error, from `level` ("info", …) up."""
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(output or sys.stderr)
    handler.setFormatter(_formatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("asyncssh").setLevel(logging.WARNING)  # its INFO is several lines per connection
    structlog.configure(
        processors=[*_shared_processors(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )


def _formatter() -> structlog.stdlib.ProcessorFormatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_shared_processors()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(default=str),
        ],
    )


def _shared_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _add_time,
    ]


def _add_time(_logger: object, _method: str, fields: Fields) -> Fields:
    fields["at"] = datetime.fromtimestamp(clock.now(), UTC).isoformat(timespec="milliseconds")
    return fields
