"""librdkafka's own mock of a cluster, for what no real broker can be made to answer on demand.

Run as a program it is the mock: it prints its address, then obeys lines on standard input and answers each
with `ok`: `topic NAME PARTITIONS`, `error API CODE...`, `down`, `up`. It is reached through ctypes in the
library inside the confluent-kafka wheel, as the Python side offers no way to inject errors.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka

from hgfleet.adapters.kafka_appender import Appender
from hgfleet.adapters.kafka_settings import KafkaSettings
from hgfleet.model.message import Topic

PRODUCE = 0  # Kafka's number of the request


class MockKafka:
    """A mock with one broker and a topic `pushdata` of one partition, in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.bootstrap = process.stdout.readline().strip()
        self._tell(f"topic {Topic.PUSHDATA.value} 1")

    def appender(self, append_seconds: float) -> Appender:
        """Return an appender to it."""
        settings = KafkaSettings({"bootstrap.servers": self.bootstrap}, append_seconds=append_seconds)
        return Appender(settings, lambda _: None)

    def fail_produce(self, *codes: int) -> None:
        """Have the next produce requests answered with these errors, one after another."""
        self._tell(f"error {PRODUCE} {' '.join(map(str, codes))}")

    def down(self) -> None:
        """Close every connection and take none."""
        self._tell("down")

    def up(self) -> None:
        """Answer again."""
        self._tell("up")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer == "ok", (line, answer)


@contextmanager
def running_mock_kafka() -> Iterator[MockKafka]:
    """Run a mock for as long as the block lasts."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.mock_kafka"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parent.parent.parent,
    )
    try:
        yield MockKafka(process)
    finally:
        process.kill()
        process.communicate()


def _load() -> Any:
    """Return the library inside the wheel, with the types of what is called."""
    directory = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    (path,) = directory.glob("librdkafka-*.so*")
    library = ctypes.CDLL(str(path))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_broker_set_down": (number, [pointer, number]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, number]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(number)],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _run() -> None:
    library = _load()
    error = ctypes.create_string_buffer(512)
    handle = library.rd_kafka_new(0, library.rd_kafka_conf_new(), error, 512)
    assert handle, error.value
    cluster = library.rd_kafka_mock_cluster_new(handle, 1)
    _say(library.rd_kafka_mock_cluster_bootstraps(cluster).decode())
    for line in sys.stdin:
        _say("ok" if _obey(library, cluster, line.split()) else "failed")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _obey(library: Any, cluster: Any, words: list[str]) -> bool:
    match words:
        case ["topic", name, partitions]:
            return bool(library.rd_kafka_mock_topic_create(cluster, name.encode(), int(partitions), 1) == 0)
        case ["down"]:
            return bool(library.rd_kafka_mock_broker_set_down(cluster, 1) == 0)
        case ["up"]:
            return bool(library.rd_kafka_mock_broker_set_up(cluster, 1) == 0)
        case ["error", api, *codes]:
            numbers = (ctypes.c_int * len(codes))(*map(int, codes))
            library.rd_kafka_mock_push_request_errors_array(cluster, int(api), len(numbers), numbers)
            return True
    return False


if __name__ == "__main__":
    _run()
