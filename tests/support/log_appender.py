"""A process that appends to an embedded log and says what was confirmed, for tests that race and kill it.

    python -m tests.support.log_appender endless LOG PARTITION NAME

appends NAME 0, NAME 1, … and prints each number and offset;

    python -m tests.support.log_appender contend LOG COUNT NAME

appends messages of one repository, each on top of what it has read, until COUNT of them count, and prints the
seqs and digests of those.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from hgfleet.adapters.sqlite_log import SqliteLog
from hgfleet.model.acceptance import PartitionReader
from hgfleet.model.ids import Epoch, Offset, Partition, Position, RepoId, Seq
from hgfleet.model.message import Envelope, Kind, Topic, decode_message, encode_message, make_message
from hgfleet.ports.replication_log import NewRecord

CONTENDED = RepoId("ab" * 16)
FIRST_EPOCH = Epoch(1)


def append_endlessly(log: SqliteLog, partition: Partition, name: str) -> None:
    for number in count():
        offset = log.append([NewRecord(Topic.PUSHDATA, partition, f"{name} {number}".encode())])[0]
        print(number, offset, flush=True)  # noqa: T201


def contend(log: SqliteLog, wanted: int, name: str) -> None:
    """Take seqs until `wanted` of them are ours; a lost race is noticed by reading alone."""
    reader = PartitionReader(Position(Offset(0), FIRST_EPOCH))
    won = 0
    while won < wanted:
        read_on(log, reader)
        head = reader.head(CONTENDED)
        envelope = Envelope(
            kind=Kind.PUSH,
            repository=CONTENDED,
            seq=Seq(head.seq + 1),
            parent=head.digest,
            epoch=FIRST_EPOCH,
            at=float(won),
            identity=name,
            trace=f"{name}-{won}-{head.seq}",
        )
        message = make_message(envelope)
        log.append([NewRecord(Topic.PUSHDATA, Partition(0), encode_message(message))])
        if message.digest in read_on(log, reader):
            won += 1
            print(envelope.seq, message.digest, flush=True)  # noqa: T201


def read_on(log: SqliteLog, reader: PartitionReader) -> list[str]:
    """Read to the end; return the digests of what counts."""
    counted: list[str] = []
    while records := log.read(Topic.PUSHDATA, Partition(0), reader.position.offset, 1_000_000):
        for record in records:
            message = decode_message(record.value)
            if reader.take(message, record.next_offset) == "counts":
                counted.append(message.digest)
    return counted


def main() -> None:
    mode, path, number, name = sys.argv[1:]
    log = SqliteLog(Path(path))
    if mode == "endless":
        append_endlessly(log, Partition(int(number)), name)
    else:
        contend(log, int(number), name)


if __name__ == "__main__":
    main()
