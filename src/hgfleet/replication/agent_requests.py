"""The log agent's operations: docs/design/local-protocols.md, one method each.

Promises: an operation answers or raises an error of hgfleet.errors; none blocks the event loop on a disk.
Does not: frame, or know connections (agent_server).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hgfleet.adapters.agent_index import IndexEntry
from hgfleet.errors import RejectedError
from hgfleet.model.catalogue import Binding
from hgfleet.model.demand import rows_of, total
from hgfleet.model.ids import CATALOGUE, Digest, Epoch, Offset, Partition, RepoId, Seq, parse_host_name
from hgfleet.model.message import Topic
from hgfleet.model.snapshot import parse_header
from hgfleet.ports.replication_log import NewRecord
from hgfleet.replication import agent_bundles
from hgfleet.replication.agent_adoption import Adoption, AdoptionDesk
from hgfleet.replication.agent_catalogue import Author, Changed, log_behind
from hgfleet.replication.agent_changes import Change, ChangeDesk
from hgfleet.replication.agent_feed import FeedDesk
from hgfleet.replication.agent_fields import RequestFields
from hgfleet.replication.agent_parts import AgentParts
from hgfleet.replication.agent_reading import read_entries
from hgfleet.replication.agent_retention import Retention
from hgfleet.replication.agent_snapshots import SnapshotDesk, describe
from hgfleet.replication.agent_streams import Followers, Send, StateStreams
from hgfleet.replication.agent_view import STATE_PLACE
from hgfleet.runtime import clock

MAX_READ_BYTES = 64 * 1024 * 1024
MAX_VISIBLE_WAIT_SECONDS = 600.0

Answer = tuple[dict[str, Any], bytes]
Operation = Callable[[RequestFields, bytes], Awaitable[Answer]]
Stream = Callable[[RequestFields, Send], Awaitable[None]]
T = TypeVar("T")


class Requests:
    """Answers requests with the agent's parts."""

    def __init__(self, parts: AgentParts, retention: Retention) -> None:
        self._parts = parts
        self._retention = retention
        self._snapshots = SnapshotDesk(parts)
        self._bundles = agent_bundles.BundleDesk(parts)
        self._bundle_followers = agent_bundles.BundleFollowers(parts.view)
        self._options = parts.options
        self._view = parts.view
        self._changes = ChangeDesk(parts)
        self._adoptions = AdoptionDesk(parts, self._changes)
        self._followers = Followers(parts.view)
        self._state = StateStreams(parts.view, parts.options.log, parts.pool)
        self._feed = FeedDesk(parts.view, parts.io, parts.options.log, parts.pool)
        self._operations: dict[str, Operation] = {
            "hello": self._hello,
            "last": self._last,
            "obstacle": self._obstacle,
            "append": self._append,
            "adopt": self._adopt,
            "read": self._read,
            "catalogue": self._read_catalogue,
            "resolve": self._resolve,
            "paths": self._paths,
            "create": self._create,
            "delete": self._delete,
            "rename": self._rename,
            "blob_put": self._blob_put,
            "blob_get": self._blob_get,
            "snapshots": self._list_snapshots,
            "snapshots_due": self._list_due,
            "announce": self._announce,
            "bundles": self._bundles_in_force,
            "bundles_append": self._append_bundles,
            "state_publish": self._state_publish,
            "state_end": self._state_end,
            "feed_append": self._feed.append,
            "wait_visible": self._wait_visible,
            "records": self._records,
            "lag": self._lag,
            "demand": self._demand,
            "status": self._status,
        }
        self._streams: dict[str, Stream] = {
            "follow": self._followers.stream,
            "state_follow": self._state.stream,
            "feed_follow": self._feed.stream,
            "bundles_follow": self._bundle_followers.stream,
        }

    def stream(self, op: object) -> Stream | None:
        """Return the stream that the operation asks for; None when it is not one of those."""
        return self._streams.get(op) if isinstance(op, str) else None

    async def answer(self, op: object, fields: RequestFields, body: bytes) -> Answer:
        """Answer one request; RejectedError `op.unknown` when there is no such operation."""
        operation = self._operations.get(op) if isinstance(op, str) else None
        if operation is None:
            raise RejectedError("op.unknown", "the log agent has no such operation", op=str(op)[:80])
        return await operation(fields, body)

    # ---- about the agent

    async def _hello(self, fields: RequestFields, body: bytes) -> Answer:
        primary = self._parts.primary
        answer = {
            "release": self._options.release,
            "host": self._options.host,
            "life": primary.candidate.life,
            "log_id": self._options.log_id,
            "epoch": primary.epoch,
            "is_serving": primary.is_serving_all(),
            "partitions": len(self._view.readers),
        }
        return answer, b""

    async def _status(self, fields: RequestFields, body: bytes) -> Answer:
        catalogue = self._view.catalogue
        answer = {
            **(await self._hello(fields, body))[0],
            "catalogue": {
                "seq": catalogue.seq,
                "offset": catalogue.position.offset,
                "parked": catalogue.parked,
                "newest_epoch": catalogue.newest_epoch,
                "owner": catalogue.owner.host,
            },
            "positions": [self._partition_status(partition) for partition in self._view.readers],
            "state_offset": self._view.state_offset,
            "lost": [_binding_fields(binding) for binding in self._view.lost_bindings()],
            "snapshots": await self._snapshots.summary(),
            "bundles": self._bundles.summary(),
            "unsettled": self._parts.desk.unsettled_repositories(),
            "last_error": self._parts.io.last_error,
        }
        return answer, b""

    def _partition_status(self, partition: Partition) -> dict[str, Any]:
        reader = self._view.readers[partition]
        return {
            "partition": partition,
            "offset": reader.position.offset,
            "epoch": reader.epoch,
            "serving_epoch": self._parts.primary.serving_epoch(partition),
            "parked": dict(reader.parked),
        }

    # ---- what counts

    async def _last(self, fields: RequestFields, body: bytes) -> Answer:
        repository = fields.repository()
        place, head = self._view.place_of(repository), self._view.head(repository)
        answer = {
            "seq": head.seq,
            "digest": head.digest,
            "offset": head.position.offset,
            "epoch": head.position.epoch,
            "partition": None if place is None else place[1],
            "is_deleted": head.is_deleted,
            "is_unsettled": place is not None and self._parts.desk.unsettled(place, repository) is not None,
            "serving_epoch": self._serving_epoch(repository),
            "parked": self._parked(repository),
        }
        return answer, b""

    async def _obstacle(self, fields: RequestFields, body: bytes) -> Answer:
        """Say before anything is sent why an append would not be taken, as far as that is known."""
        repository = fields.repository()
        place = self._view.place_of(repository)
        if place is None:
            return {"reason": ""}, b""
        return {"reason": await self._in_pool(self._options.log.find_obstacle, *place)}, b""

    def _serving_epoch(self, repository: RepoId) -> Epoch:
        if repository == CATALOGUE:
            return self._parts.primary.epoch
        partition = self._view.partition_of(repository)
        return Epoch(0) if partition is None else self._parts.primary.serving_epoch(partition)

    def _parked(self, repository: RepoId) -> str:
        if repository == CATALOGUE:
            return self._view.catalogue.parked
        partition = self._view.partition_of(repository)
        return "" if partition is None else self._view.readers[partition].parked.get(repository, "")

    async def _append(self, fields: RequestFields, body: bytes) -> Answer:
        change = Change(
            repository=fields.repository(),
            base_seq=Seq(fields.natural("base_seq")),
            base_digest=fields.digest("base_digest"),
            epoch=Epoch(fields.natural("epoch")),
            kind=fields.kind(),
            body=fields.take("body", dict),
            identity=fields.text("identity"),
            trace=fields.text("trace"),
            payload=fields.payload(body),
            inline=body,
        )
        return await self._changes.append(change, fields.seconds("deadline_seconds")), b""

    async def _adopt(self, fields: RequestFields, body: bytes) -> Answer:
        adoption = Adoption(
            repository=fields.repository(),
            path=fields.text("path"),
            partition=Partition(fields.natural("partition")),
            base_seq=Seq(fields.natural("base_seq")),
            base_digest=fields.digest("base_digest"),
            body=fields.take("body", dict),
            author=_author(fields),
            payload=fields.payload(body),
            inline=body,
        )
        return await self._adoptions.adopt(adoption, self._wait_seconds), b""

    async def _read(self, fields: RequestFields, body: bytes) -> Answer:
        return await self._messages(fields.repository(), fields)

    async def _read_catalogue(self, fields: RequestFields, body: bytes) -> Answer:
        return await self._messages(CATALOGUE, fields)

    async def _messages(self, repository: RepoId, fields: RequestFields) -> Answer:
        after_seq = fields.natural("after_seq")
        max_bytes = min(fields.natural("max_bytes"), MAX_READ_BYTES)
        last_seq = self._view.head(repository).seq
        entries = self._view.find(repository, after_seq, max_bytes) if after_seq < last_seq else []
        if after_seq < last_seq and (not entries or entries[0].seq != after_seq + 1):
            raise RejectedError(
                "log.overrun",
                "the log does not reach back so far",
                status=410,
                first_seq=self._view.first_seq(repository),
            )
        wires = await self._wires(Topic.CATALOGUE if repository == CATALOGUE else Topic.PUSHDATA, entries)
        messages = [_message_fields(entry, wire) for entry, wire in zip(entries, wires, strict=True)]
        return {"messages": messages, "last_seq": last_seq}, b"".join(wires)

    async def _wires(self, topic: Topic, entries: Sequence[IndexEntry]) -> list[bytes]:
        """Return the bytes of one repository's messages."""
        place = topic, entries[0].partition if entries else Partition(0)
        recent = self._view.recent.at(place, [entry.offset for entry in entries])
        if recent is not None:
            return recent
        return await self._in_pool(read_entries, self._options.log, topic, entries)

    # ---- the catalogue

    async def _resolve(self, fields: RequestFields, body: bytes) -> Answer:
        path = fields.text("path")
        if self._view.lost(path) is not None:
            raise log_behind(path)
        return _binding_fields(self._view.catalogue.resolve(path)), b""

    async def _paths(self, fields: RequestFields, body: bytes) -> Answer:
        catalogue = self._view.catalogue
        return {"paths": [_binding_fields(b) for b in catalogue.bindings()], "seq": catalogue.seq}, b""

    async def _create(self, fields: RequestFields, body: bytes) -> Answer:
        changed = await self._parts.catalogue_desk.create(
            fields.text("path"), fields.take("settings", dict), _author(fields), self._wait_seconds
        )
        return _changed_fields(changed), b""

    async def _delete(self, fields: RequestFields, body: bytes) -> Answer:
        changed = await self._parts.catalogue_desk.delete(
            fields.text("path"), _author(fields), self._wait_seconds
        )
        return _changed_fields(changed), b""

    async def _rename(self, fields: RequestFields, body: bytes) -> Answer:
        changed = await self._parts.catalogue_desk.rename(
            fields.text("path"), fields.text("new_path"), _author(fields), self._wait_seconds
        )
        return _changed_fields(changed), b""

    @property
    def _wait_seconds(self) -> float:
        return self._options.append_deadline_seconds

    # ---- blobs

    async def _blob_put(self, fields: RequestFields, body: bytes) -> Answer:
        source, sha256 = Path(fields.text("path")), fields.digest("sha256")
        await self._retention.note_put(sha256)
        size_bytes = fields.natural("size_bytes")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._parts.blob_pool, self._take_over, source, sha256, size_bytes)
        return {}, b""

    def _take_over(self, source: Path, sha256: Digest, size_bytes: int) -> None:
        try:
            seen_bytes = source.stat().st_size
        except OSError as error:
            raise RejectedError("blob.no-file", "there is no such file to store", path=str(source)) from error
        if seen_bytes != size_bytes:
            raise RejectedError("blob.size", "the file has another size than was said", size_bytes=seen_bytes)
        self._options.blobs.put(source, sha256)
        source.unlink(missing_ok=True)

    async def _blob_get(self, fields: RequestFields, body: bytes) -> Answer:
        sha256, target = fields.digest("sha256"), Path(fields.text("path"))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._parts.blob_pool, self._options.blobs.get, sha256, target)
        return {}, b""

    # ---- snapshots

    async def _list_snapshots(self, fields: RequestFields, body: bytes) -> Answer:
        in_force = self._snapshots.in_force(fields.repository())
        return {"snapshots": [describe(snapshot) for snapshot in in_force]}, b""

    async def _list_due(self, fields: RequestFields, body: bytes) -> Answer:
        due = await self._snapshots.due(parse_host_name(fields.text("host")))
        return {"due": [{"repository": one.repository, "seconds": one.seconds} for one in due]}, b""

    async def _announce(self, fields: RequestFields, body: bytes) -> Answer:
        header, blob = parse_header(fields.take("header", dict)), fields.payload(b"")
        host = parse_host_name(fields.text("host"))
        is_in_force = await self._snapshots.announce(header, blob, host, self._wait_seconds)
        return {"is_in_force": is_in_force}, b""

    # ---- clone bundles

    async def _bundles_in_force(self, fields: RequestFields, body: bytes) -> Answer:
        return agent_bundles.describe(self._bundles.in_force(fields.repository())), b""

    async def _append_bundles(self, fields: RequestFields, body: bytes) -> Answer:
        new = agent_bundles.NewManifest(
            repository=fields.repository(),
            seq=Seq(fields.natural("seq")),
            replaces=fields.digest("replaces"),
            body=fields.take("body", dict),
            identity=fields.text("identity"),
            trace=fields.text("trace"),
        )
        return agent_bundles.describe(await self._bundles.append(new, self._wait_seconds)), b""

    # ---- the fleet's state

    async def _state_publish(self, fields: RequestFields, body: bytes) -> Answer:
        records = [_state_record(item) for item in fields.take("records", list)]
        if not records:
            raise RejectedError("request.bad", "there is nothing to publish")
        offsets = await self._parts.io.append(records)
        for record in records:
            self._parts.progress.note_published(record.key.decode())
        return {"offset": offsets[-1]}, b""

    async def _state_end(self, fields: RequestFields, body: bytes) -> Answer:
        return {"offset": await self._state.fetch_end()}, b""

    async def _wait_visible(self, fields: RequestFields, body: bytes) -> Answer:
        timeout_seconds = min(fields.seconds("timeout_seconds"), MAX_VISIBLE_WAIT_SECONDS)
        seq = Seq(fields.natural("seq"))
        visibility = await self._parts.visibility.wait(fields.repository(), seq, timeout_seconds)
        answer = {
            "is_visible": visibility.is_visible,
            "mirrors": visibility.mirrors,
            "late": visibility.late,
        }
        return answer, b""

    # ---- for people

    async def _lag(self, fields: RequestFields, body: bytes) -> Answer:
        return await self._parts.progress.describe(), b""

    async def _demand(self, fields: RequestFields, body: bytes) -> Answer:
        return {"rows": rows_of(total(self._view.fleet.demands(), clock.now()))}, b""

    async def _records(self, fields: RequestFields, body: bytes) -> Answer:
        topic, partition = fields.topic(), Partition(fields.natural("partition"))
        if partition >= self._options.log.partitions(topic):
            raise RejectedError("request.bad", "there is no such partition", partition=partition)
        offset, max_bytes = Offset(fields.natural("offset")), min(fields.natural("max_bytes"), MAX_READ_BYTES)
        records = await self._in_pool(self._options.log.read, topic, partition, offset, max_bytes)
        listing = [
            {
                "offset": record.offset,
                "next_offset": record.next_offset,
                "key": record.key.decode("utf-8", "replace"),
                "size_bytes": len(record.value),
                "at": record.at,
            }
            for record in records
        ]
        return {"records": listing}, b"".join(record.value for record in records)

    async def _in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._parts.pool, function, *arguments)


def _author(fields: RequestFields) -> Author:
    return Author(fields.text("identity"), fields.text("trace"))


def _binding_fields(binding: Binding) -> dict[str, Any]:
    return {"path": binding.path, "repository": binding.repository, "partition": binding.partition}


def _changed_fields(changed: Changed) -> dict[str, Any]:
    return {
        "repository": changed.repository,
        "partition": changed.partition,
        "catalogue_seq": changed.catalogue_seq,
    }


def _message_fields(entry: IndexEntry, wire: bytes) -> dict[str, Any]:
    return {
        "size_bytes": len(wire),
        "seq": entry.seq,
        "offset": entry.position.offset,
        "epoch": entry.position.epoch,
    }


def _state_record(item: object) -> NewRecord:
    fields = RequestFields(item if isinstance(item, dict) else {})
    key = fields.text("key")
    value = item.get("value") if isinstance(item, dict) else None
    if not key:
        raise RejectedError("request.bad", "a record without a key")
    try:
        data = b"" if value is None else json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        return NewRecord(*STATE_PLACE, data, key.encode())
    except (ValueError, RecursionError) as error:
        raise RejectedError("request.bad", "a record that cannot be written as JSON", key=key[:80]) from error
