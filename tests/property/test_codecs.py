"""What was encoded is read back; whatever else the bytes are, parsing raises PoisonError and nothing else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hgfleet.errors import PoisonError
from hgfleet.model.feed_marks import FeedMark, FeedPlace
from hgfleet.model.feed_records import (
    FeedEntry,
    FeedRecord,
    Opening,
    decode_feed_record,
    encode_feed_record,
)
from hgfleet.model.fleet_records import (
    Admit,
    Claim,
    Evict,
    Heartbeat,
    LifeSign,
    Member,
    Recount,
    Report,
    Stage,
    StateRecord,
    Ticket,
    Watermark,
    parse_member_key,
    parse_record,
)
from hgfleet.model.frames import Frame, FrameDecoder, encode_frame, parse_header
from hgfleet.model.ids import Digest, Epoch, HostName, Node, Offset, Partition, Position, RepoId, Seq
from hgfleet.model.message import (
    MAX_NUMBER,
    Envelope,
    Kind,
    Message,
    PayloadRef,
    decode_message,
    encode_message,
    make_message,
    payload_ref,
)
from hgfleet.model.settings import RepoSettings, parse_repo_settings
from hgfleet.model.state import Fingerprint, parse_fingerprint
from hgfleet.model.wishes import Wish

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers(0, MAX_NUMBER)
REPOSITORIES = st.text("0123456789abcdef", min_size=32, max_size=32).map(RepoId)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64).map(Digest)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-MAX_NUMBER, MAX_NUMBER) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
FINITE_JSON = JSON.filter(lambda value: "Infinity" not in json.dumps(value))
VOID = make_message(Envelope(Kind.VOID, RepoId("0" * 32), Seq(1), Digest(""), Epoch(1), 0.0, "a", "t"))
HEADER_FIELDS = sorted(json.loads(VOID.header))
BODIES = st.dictionaries(TEXT, FINITE_JSON, max_size=4)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    payload = draw(st.binary(max_size=300))
    is_inline = draw(st.booleans())
    ref = payload_ref(payload) if is_inline else PayloadRef(draw(NUMBERS), draw(DIGESTS), is_inline=False)
    envelope = Envelope(
        kind=draw(st.sampled_from(Kind)),
        repository=draw(REPOSITORIES),
        seq=Seq(draw(NUMBERS)),
        parent=draw(DIGESTS | st.just(Digest(""))),
        epoch=Epoch(draw(NUMBERS)),
        at=draw(st.floats(0, MAX_NUMBER)),
        identity=draw(TEXT),
        trace=draw(TEXT),
        body=draw(BODIES),
        payload=ref,
    )
    return make_message(envelope, payload if is_inline else b"")


@given(messages())
def test_a_message_is_read_back_as_it_was(message: Message) -> None:
    data = encode_message(message)
    assert decode_message(data) == message
    assert decode_message(data).digest == message.digest
    assert encode_message(decode_message(data)) == data


@given(messages(), messages())
def test_different_envelopes_have_different_digests(one: Message, other: Message) -> None:
    assert (one.digest == other.digest) == (one.envelope == other.envelope)


def code_of(parse: Callable[[], object]) -> str:
    """Return the code of the PoisonError, "" if there was none; anything else gets through."""
    try:
        parse()
    except PoisonError as poison:
        return poison.code
    return ""


def decode_or_poison(data: bytes) -> Message | None:
    try:
        return decode_message(data)
    except PoisonError:
        return None


@given(messages(), st.data())
def test_a_damaged_message_is_poison_or_another_whole_message(message: Message, data: st.DataObject) -> None:
    wire = bytearray(encode_message(message))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(wire) - 1))
        wire[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del wire[data.draw(st.integers(0, len(wire))) :]
    read = decode_or_poison(bytes(wire))
    if read is not None:
        assert encode_message(read) == bytes(wire) or wire.startswith(b"hgfleet/0")
        assert (read.digest == message.digest) == (read.header == message.header)


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_no_message(data: bytes, has_first_line: bool) -> None:
    header = b"hgfleet/1 %d\n" % len(data) if has_first_line else b""
    assert decode_or_poison(header + data) is None


@given(st.dictionaries(st.sampled_from(HEADER_FIELDS), JSON))
def test_any_json_in_the_header_is_poison_or_a_message(fields: dict[str, Any]) -> None:
    header = json.dumps(json.loads(VOID.header) | fields).encode()
    read = decode_or_poison(b"hgfleet/1 %d\n%s" % (len(header), header))
    assert read is None or read.header == header


FRAMES = st.lists(st.builds(Frame, BODIES, st.binary(max_size=50)), max_size=4)


@given(FRAMES, st.lists(st.integers(0, 400), max_size=6))
def test_frames_come_out_whatever_the_cuts(frames: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(frame.header, frame.body) for frame in frames)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    decoder = FrameDecoder()
    read = [frame for start, end in itertools.pairwise(places) for frame in decoder.feed(stream[start:end])]
    assert read == frames
    assert decoder.is_empty


@given(st.binary(max_size=100), st.integers(1, 7))
def test_arbitrary_bytes_are_frames_or_poison(data: bytes, step: int) -> None:
    decoder = FrameDecoder()
    codes = {
        code_of(lambda at=at: list(decoder.feed(data[at : at + step]))) for at in range(0, len(data), step)
    }
    assert codes <= {"", "frame.damaged"}


@given(st.binary(max_size=100))
def test_an_arbitrary_header_is_an_object_or_poison(data: bytes) -> None:
    assert code_of(lambda: parse_header(data)) in {"", "frame.damaged"}


SETTINGS = st.builds(RepoSettings, st.lists(TEXT, max_size=3).map(tuple), st.booleans(), TEXT)
FINGERPRINTS = st.builds(
    Fingerprint,
    NUMBERS,
    st.text("0123456789abcdef", min_size=40, max_size=40).map(Node),
    NUMBERS,
    DIGESTS,
    DIGESTS,
    NUMBERS,
)


@given(SETTINGS, FINGERPRINTS)
def test_settings_and_fingerprints_are_read_back(settings: RepoSettings, fingerprint: Fingerprint) -> None:
    assert parse_repo_settings(json.loads(json.dumps(settings.to_json()))) == settings
    assert parse_fingerprint(json.loads(json.dumps(fingerprint.to_json()))) == fingerprint


@given(st.dictionaries(st.sampled_from(sorted(Fingerprint().to_json())), JSON), JSON)
def test_any_json_is_a_fingerprint_or_poison(fields: dict[str, Any], other: Any) -> None:
    for values in (other, fields, Fingerprint().to_json() | fields):
        code = code_of(lambda values=values: parse_fingerprint(values))
        assert code == "fingerprint.damaged" or parse_fingerprint(values).to_json() == values


@given(st.dictionaries(st.sampled_from(sorted(RepoSettings().to_json())), JSON), JSON)
def test_any_json_is_settings_or_poison(fields: dict[str, Any], other: Any) -> None:
    for values in (other, fields, RepoSettings().to_json() | fields):
        code = code_of(lambda values=values: parse_repo_settings(values))
        assert code == "settings.damaged" or parse_repo_settings(values).to_json() == values


HOSTS = st.sampled_from(["a", "m-1.x", "z9"]).map(HostName)
MEMBERS = st.builds(Member, HOSTS, st.integers(0, 10**17))
TIMES = st.floats(0, 1e12)
TICKETS = st.builds(Ticket, st.integers(0, 10**17).map(Offset), st.integers(0, 10**17))
RECORDS: st.SearchStrategy[StateRecord] = st.one_of(
    st.builds(Heartbeat, MEMBERS, st.sampled_from(Stage), TEXT, NUMBERS),
    st.builds(Report, MEMBERS, REPOSITORIES, NUMBERS, NUMBERS, TEXT, st.booleans(), NUMBERS),
    st.builds(Claim, st.just(HostName("c")), st.text("abc123", min_size=1)),
    st.builds(Watermark, TICKETS, REPOSITORIES, NUMBERS),
    st.builds(Admit, TICKETS, MEMBERS),
    st.builds(Evict, TICKETS, MEMBERS),
    st.builds(Recount, TICKETS, MEMBERS, REPOSITORIES, NUMBERS),
    st.builds(LifeSign, NUMBERS, st.just(HostName("c")), TIMES, st.booleans(), NUMBERS, TIMES),
    st.builds(Wish, HOSTS, st.booleans(), st.text()),
    st.builds(FeedMark, st.integers(0, 10**17), REPOSITORIES, NUMBERS, st.booleans()),
    st.builds(FeedPlace, st.integers(0, 10**17), NUMBERS, NUMBERS),
)


@given(RECORDS, RECORDS)
def test_state_records_are_read_back_and_keys_tell_writers_apart(
    one: StateRecord, other: StateRecord
) -> None:
    assert parse_record(one.key, json.loads(json.dumps(dict(one.value)))) == one
    if type(one) is not type(other):
        assert one.key != other.key


@given(st.text("/abc019²\n", max_size=30) | RECORDS.map(lambda record: record.key), JSON)
def test_any_key_and_value_is_a_record_or_none(key: str, value: Any) -> None:
    record = parse_record(key, value)
    assert record is None or record.key == key
    parse_member_key(key)


@st.composite
def feed_entries(draw: st.DrawFn) -> FeedEntry:
    after = draw(st.integers(0, MAX_NUMBER - 1))
    return FeedEntry(
        turn=draw(NUMBERS),
        number=draw(NUMBERS),
        repository=draw(REPOSITORIES),
        seq=Seq(draw(st.integers(after + 1, MAX_NUMBER))),
        after=Seq(after),
        kind=draw(st.sampled_from(Kind)).value,
        path=draw(TEXT),
        at=draw(st.floats(0, MAX_NUMBER)),
        digest=draw(DIGESTS),
        partition=Partition(draw(NUMBERS)),
        position=Position(Offset(draw(NUMBERS)), Epoch(draw(NUMBERS))),
        identity=draw(TEXT),
        trace=draw(TEXT),
        body=draw(BODIES),
        payload=PayloadRef(draw(NUMBERS), draw(DIGESTS), draw(st.booleans())),
    )


OPENINGS = st.builds(Opening, NUMBERS, TEXT, TEXT, st.floats(0, MAX_NUMBER))
FEED_RECORDS: st.SearchStrategy[FeedRecord] = st.one_of(OPENINGS, feed_entries())


@given(FEED_RECORDS)
def test_a_feed_record_is_read_back_as_it_was(record: FeedRecord) -> None:
    assert decode_feed_record(encode_feed_record(record)) == record


@given(FEED_RECORDS, st.data())
def test_a_damaged_feed_record_is_poison_or_another_whole_record(
    record: FeedRecord, data: st.DataObject
) -> None:
    wire = bytearray(encode_feed_record(record))
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    assert code_of(lambda: decode_feed_record(bytes(wire))) in {"", "feed.damaged", "feed.too-new"}


@given(
    st.dictionaries(st.sampled_from(["kind", "turn", "seq", "after", "at", "body", "payload", "path"]), JSON)
)
def test_any_json_in_a_feed_record_is_poison_or_a_record(fields: dict[str, Any]) -> None:
    known = json.loads(encode_feed_record(Opening(1, "h", "l", 0.0)).partition(b"\n")[2])
    wire = b"hgfleet-feed/1\n" + json.dumps(known | fields).encode()
    code = code_of(lambda: decode_feed_record(wire))
    assert code == "feed.damaged" or (code == "" and decode_feed_record(wire))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_feed_record(data: bytes) -> None:
    assert code_of(lambda: decode_feed_record(data)) == "feed.damaged"
