"""Where a log agent begins to read: at its index's positions, at the log's start, or at a checkpoint.

A partition whose beginning retention has removed is read from the fold that its beginning left behind: a
`checkpoint` message in the partition itself names a blob with it (model.partition_fold).

Promises: what the agent begins with is what reading everything would have given; where that cannot be had,
ConfigError `log.overrun`, and nothing is guessed. An index that does not fit the log is forgotten.
Does not: write checkpoints (agent_retention).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hgfleet.adapters.agent_index import AgentIndex, PartitionState
from hgfleet.errors import ConfigError, FleetError, PoisonError, RejectedError
from hgfleet.model.ids import Digest, Offset, Partition
from hgfleet.model.message import Topic, decode_message
from hgfleet.model.partition_fold import PartitionFold, parse_checkpoint, parse_fold
from hgfleet.ports.blob_store import BlobStore
from hgfleet.ports.replication_log import Record, ReplicationLog
from hgfleet.replication.agent_parts import AgentOptions
from hgfleet.replication.agent_view import pushdata, tail_of

READ_BYTES = 1024 * 1024

logger = logging.getLogger("hgfleet.replication.agent_start")


@contextmanager
def open_index(options: AgentOptions) -> Iterator[tuple[AgentIndex, Mapping[Partition, PartitionState]]]:
    """Open the index, and say what is known of each partition. Raises ConfigError or TransientError."""
    index = AgentIndex(options.index_path, options.log_id)
    try:
        yield index, _known(options, index)
    finally:
        index.close()


def _known(options: AgentOptions, index: AgentIndex) -> Mapping[Partition, PartitionState]:
    known = index.load()
    if not all(_is_level(options.log, partition, state) for partition, state in known.items()):
        logger.warning("index.rebuilt", extra={"reason": "the log is not the one that was indexed"})
        index.reset()
        known = {}
    if all(_is_reachable(options.log, partition, known) for partition in _partitions(options.log)):
        return known
    logger.warning("index.rebuilt", extra={"reason": "the log begins behind what this host has read"})
    index.reset()
    for partition in _partitions(options.log):
        fold = find_fold(options.log, options.blobs, partition)
        if fold.reader.position.offset:
            _note_fold(index, partition, fold)
    index.flush()
    return index.load()


def _partitions(log: ReplicationLog) -> list[Partition]:
    return [Partition(number) for number in range(log.partitions(Topic.PUSHDATA))]


def _is_level(log: ReplicationLog, partition: Partition, state: PartitionState) -> bool:
    """Tell whether the last record that was read still lies where it was."""
    last = Offset(int(state.tail.partition(":")[0]))
    place = pushdata(partition)
    if partition >= log.partitions(Topic.PUSHDATA) or log.end_offset(*place) < state.position.offset:
        return False
    if last < log.first_offset(*place):
        return True
    records = log.read(*place, last, 1)
    return bool(records) and tail_of(records[0]) == state.tail


def _is_reachable(
    log: ReplicationLog, partition: Partition, known: Mapping[Partition, PartitionState]
) -> bool:
    """Whether the log still has what comes after what is known."""
    offset = known[partition].position.offset if partition in known else Offset(0)
    return offset >= log.first_offset(*pushdata(partition))


def _note_fold(index: AgentIndex, partition: Partition, fold: PartitionFold) -> None:
    reader = fold.reader
    for repository, head in reader.heads.items():
        index.note_head(repository, partition, head)
    for repository, reason in reader.parked.items():
        index.note_parked(repository, partition, reason)
    for repository, standing in fold.standings:
        index.note_standing(repository, partition, standing.messages)
    # The record before the position is gone: no tail tells it from another.
    index.note_position(partition, reader.position, f"{reader.position.offset - 1}:checkpoint")


# ---- a partition without its beginning


def find_fold(log: ReplicationLog, blobs: BlobStore, partition: Partition) -> PartitionFold:
    """Return the fold of what the partition's beginning was; an empty one when nothing was removed.

    Reads the partition until it finds the checkpoint that was made for the removal. Raises ConfigError
    `log.overrun` when there is none that can be read, TransientError when log or blob store cannot be asked.
    """
    first = log.first_offset(*pushdata(partition))
    if first == 0:
        return PartitionFold()
    for offset, sha256 in sorted(_checkpoints(log, partition, first).items()):
        fold = _read_fold(blobs, partition, sha256)
        if fold is not None and fold.reader.position.offset == offset:
            return fold
    raise ConfigError(
        "log.overrun",
        "the log's beginning is gone, and no checkpoint tells what it said",
        hint="docs/operate/backup.md, a log without checkpoint",
        partition=partition,
        first_offset=first,
    )


def _checkpoints(log: ReplicationLog, partition: Partition, first: Offset) -> dict[Offset, Digest]:
    """Return the checkpoints from `first` on; only the one for exactly there, when it is found."""
    found: dict[Offset, Digest] = {}
    for record in read_records(log, partition, first):
        try:
            checkpoint = parse_checkpoint(decode_message(record.value))
        except PoisonError:
            continue
        if checkpoint is not None and checkpoint.offset >= first:
            found[checkpoint.offset] = checkpoint.blob.sha256
            if checkpoint.offset == first:
                break
    return found


def read_records(log: ReplicationLog, partition: Partition, offset: Offset) -> Iterator[Record]:
    """Yield the partition's records from an offset to the end that it has when it is reached."""
    while records := log.read(*pushdata(partition), offset, READ_BYTES):
        yield from records
        offset = records[-1].next_offset


def _read_fold(blobs: BlobStore, partition: Partition, sha256: Digest) -> PartitionFold | None:
    """Return a checkpoint's fold, None when its blob is missing or damaged."""
    with TemporaryDirectory(prefix="hgfleet-checkpoint-") as directory:
        target = Path(directory, "fold")
        try:
            blobs.get(sha256, target)
            return parse_fold(target.read_bytes())
        except (RejectedError, PoisonError) as error:
            _log_unusable(partition, sha256, error)
            return None


def _log_unusable(partition: Partition, sha256: Digest, error: FleetError) -> None:
    logger.error(
        "checkpoint.unusable", extra={"partition": partition, "sha256": sha256, "reason": str(error)}
    )
