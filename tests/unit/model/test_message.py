"""Messages on the wire: read back as they were, or refused as damaged."""

import json
from typing import Any

import pytest

from hgfleet.errors import PoisonError
from hgfleet.model.ids import Digest, Epoch, RepoId, Seq
from hgfleet.model.message import (
    Envelope,
    Kind,
    Message,
    PayloadRef,
    decode_message,
    encode_message,
    make_message,
    payload_ref,
)

ENVELOPE = Envelope(
    kind=Kind.PUSH,
    repository=RepoId("a" * 32),
    seq=Seq(2),
    parent=Digest("b" * 64),
    epoch=Epoch(3),
    at=12.5,
    identity="alice",
    trace="t1",
    body={"push_id": 1, "heads": ["c" * 40], "note": "ünï"},
    payload=payload_ref(b"changes"),
)
MESSAGE = make_message(ENVELOPE, b"changes")


def wire(**changes: Any) -> bytes:
    """The message's wire form with fields of its header replaced; None removes one."""
    fields = json.loads(MESSAGE.header)
    fields = {name: value for name, value in (fields | changes).items() if value is not None}
    header = json.dumps(fields).encode()
    return b"hgfleet/1 %d\n%s%s" % (len(header), header, MESSAGE.payload)


def code_of(data: bytes) -> str:
    with pytest.raises(PoisonError) as poison:
        decode_message(data)
    return poison.value.code


def test_what_was_encoded_is_read_back() -> None:
    assert decode_message(encode_message(MESSAGE)) == MESSAGE


def test_equal_envelopes_have_equal_bytes() -> None:
    assert encode_message(make_message(ENVELOPE, b"changes")) == encode_message(MESSAGE)


def test_the_digest_covers_the_payload_and_every_field() -> None:
    other_payload = make_message(
        Envelope(**{**fields_of(ENVELOPE), "payload": payload_ref(b"changed")}), b"changed"
    )
    assert other_payload.digest != MESSAGE.digest
    other_trace = make_message(Envelope(**{**fields_of(ENVELOPE), "trace": "t2"}), b"changes")
    assert other_trace.digest != MESSAGE.digest


def fields_of(envelope: Envelope) -> dict[str, Any]:
    return {name: getattr(envelope, name) for name in Envelope.__slots__}


def test_a_payload_in_the_blob_store_is_named_and_not_carried() -> None:
    ref = PayloadRef(10**9, Digest("d" * 64), is_inline=False)
    message = make_message(Envelope(**{**fields_of(ENVELOPE), "payload": ref}))
    assert decode_message(encode_message(message)) == message
    assert code_of(encode_message(message) + b"x") == "message.damaged"


@pytest.mark.parametrize("cut", range(len(encode_message(MESSAGE))))
def test_a_message_that_was_cut_is_damaged(cut: int) -> None:
    assert code_of(encode_message(MESSAGE)[:cut]) == "message.damaged"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hgfleet/1\n",
        b"hgfleet/0 2\n{}",
        b"hgfleet/1 -1\n{}",
        b"hgfleet/1 2 3\n{}",
        b"hgfleet/1 2\n{}",
        b"hgfleet/1 2\n[]",
        b"hgfleet/1 1\n\xff",
        b"hgfleet/1 99999999999\n{}",
        b"hgfleet/1 " + b"9" * 50 + b"\n{}",
        b"gitfleet/1 2\n{}",
        b"hgfleet/1 200000\n" + b"[" * 200_000,
        encode_message(MESSAGE) + b"x",
        encode_message(MESSAGE)[:-1] + b"S",
    ],
)
def test_bytes_that_are_no_message_are_damaged(data: bytes) -> None:
    assert code_of(data) == "message.damaged"


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": -1},
        {"seq": True},
        {"seq": 1.0},
        {"seq": "1"},
        {"seq": 2**53 + 1},
        {"seq": None},
        {"epoch": -1},
        {"repository": "x"},
        {"repository": 1},
        {"parent": "0"},
        {"parent": None},
        {"at": "now"},
        {"at": True},
        {"at": 10**400},
        {"at": float("nan")},
        {"at": float("inf")},
        {"identity": 1},
        {"identity": "\ud800"},
        {"trace": None},
        {"body": []},
        {"payload": None},
        {"payload": {"size_bytes": 7, "sha256": "", "is_inline": True}},
        {"payload": {"size_bytes": 7, "sha256": "", "is_inline": False}},
        {"payload": {"size_bytes": 7, "sha256": "0" * 64, "is_inline": 1}},
        {"payload": {"size_bytes": 8, "sha256": "0" * 64, "is_inline": True}},
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_damage(changes: dict[str, Any]) -> None:
    assert code_of(wire(**changes)) == "message.damaged"


def test_the_unchanged_header_is_not_damage() -> None:
    assert decode_message(wire()).envelope == ENVELOPE


def test_a_newer_format_asks_for_an_upgrade() -> None:
    assert code_of(encode_message(MESSAGE).replace(b"hgfleet/1", b"hgfleet/2", 1)) == "message.too-new"


def test_an_unknown_kind_names_the_repository_that_has_to_wait() -> None:
    with pytest.raises(PoisonError) as poison:
        decode_message(wire(kind="merge"))
    assert poison.value.code == "message.too-new"
    assert poison.value.context["repository"] == ENVELOPE.repository
    assert poison.value.context["epoch"] == ENVELOPE.epoch


def test_every_kind_travels() -> None:
    for kind in Kind:
        message = make_message(Envelope(**{**fields_of(ENVELOPE), "kind": kind}), b"changes")
        assert decode_message(encode_message(message)).envelope.kind is kind


def test_a_message_is_what_was_read_not_what_would_be_written() -> None:
    data = wire(at=12)
    message: Message = decode_message(data)
    assert encode_message(message) == data
