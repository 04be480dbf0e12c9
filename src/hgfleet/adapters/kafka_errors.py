"""What Kafka's errors mean for a caller of the log; docs/design/kafka.md has the table.

Promises: nothing that was handed to the library is ever called refused: a record that timed out once may be
in the log although its repetition was refused, and the library does not say which it was.
Does not: decide whether to try again.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from hgfleet.errors import InDoubtError, RejectedError, TransientError
from hgfleet.model.ids import Offset

_DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)
_NO_TOPIC = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
OUT_OF_RANGE = frozenset(
    {KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION}
)


def refusal(error: KafkaError) -> TransientError:
    """Translate a failure of reading or asking, or of a hand-over that the library did not take."""
    code, message = _describe(error)
    return TransientError(code, message, reason=_text(error))


def as_kafka_error(exception: KafkaException) -> KafkaError:
    """Return the error that the library's exception carries."""
    error: Any = exception.args[0]
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(error))


def queue_full() -> TransientError:
    """Return the error for a record that the library has no room for: it never was sent."""
    return TransientError("log.busy", "the log is busy", reason="too much waits to be sent")


def in_doubt(error: KafkaError | str) -> InDoubtError:
    """Translate a failure after the hand-over."""
    return InDoubtError(
        "log.in-doubt",
        "the log did not confirm that it keeps the change",
        reason=error if isinstance(error, str) else _text(error),
    )


def unavailable(reason: str) -> TransientError:
    """Return the error for a log that is known to take nothing now."""
    return TransientError(
        "log.unavailable",
        "the replication log takes no changes now",
        hint="try again later; reading is not affected",
        reason=reason,
    )


def replaced(reason: str) -> TransientError:
    """Return the error for a log that is not the one that was opened."""
    return TransientError("log.replaced", "the log is not the one that was opened", reason=reason)


def overrun(offset: Offset, first_offset: Offset) -> RejectedError:
    """Return the error for an offset before the first record kept."""
    return RejectedError(
        "log.overrun",
        "the log does not reach back so far",
        status=410,
        offset=offset,
        first_offset=first_offset,
    )


def _describe(error: KafkaError) -> tuple[str, str]:
    if error.code() in _DENIED:
        return "log.denied", "Kafka does not let us do this"
    if error.code() in _NO_TOPIC:
        return "log.no-topic", "Kafka has no such topic or partition"
    if error.code() == KafkaError._FATAL:  # the producer was given up; the next one takes the next record
        return "log.busy", "the log is busy"
    return "log.unreachable", "Kafka does not answer"


def _text(error: KafkaError) -> str:
    return f"{error.name()}: {error.str()}"
