"""Typed access to a request's fields.

Promises: whatever a client sends, a field is of its type and range, or RejectedError `request.bad` names it.
Does not: know the operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from hgfleet.errors import RejectedError
from hgfleet.model.ids import Digest, RepoId, parse_digest, parse_repo_id
from hgfleet.model.message import Kind, PayloadRef, Topic, payload_ref

T = TypeVar("T")
MAX_NUMBER = 2**63 - 1


class RequestFields:
    """One request's header."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def take(self, name: str, kind: type[T]) -> T:
        """Return a field of exactly that type."""
        value = self._values.get(name)
        if type(value) is not kind:
            raise _bad(name)
        return value

    def is_null(self, name: str) -> bool:
        """Whether a field is null, or left out."""
        return self._values.get(name) is None

    def text(self, name: str) -> str:
        """Return text."""
        return self.take(name, str)

    def natural(self, name: str) -> int:
        """Return a number from 0."""
        value = self.take(name, int)
        if not 0 <= value <= MAX_NUMBER:
            raise _bad(name)
        return value

    def seconds(self, name: str) -> float:
        """Return a finite time span."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _bad(name)
        if not (math.isfinite(value) and value >= 0):
            raise _bad(name)
        return float(value)

    def repository(self) -> RepoId:
        """Return the field `repository`."""
        return parse_repo_id(self.text("repository"))

    def digest(self, name: str) -> Digest:
        """Return a digest, which may be ""."""
        return parse_digest(self.text(name))

    def kind(self) -> Kind:
        """Return the field `kind`."""
        try:
            return Kind(self.text("kind"))
        except ValueError as error:
            raise _bad("kind") from error

    def topic(self) -> Topic:
        """Return the field `topic`."""
        try:
            return Topic(self.text("topic"))
        except ValueError as error:
            raise _bad("topic") from error

    def payload(self, inline: bytes) -> PayloadRef:
        """Return the field `payload`, checked against the inline bytes that came along."""
        fields = RequestFields(self.take("payload", dict))
        payload = PayloadRef(
            fields.natural("size_bytes"), fields.digest("sha256"), fields.take("is_inline", bool)
        )
        is_fit = payload_ref(inline) == payload if payload.is_inline else bool(payload.sha256) and not inline
        if not is_fit:
            raise RejectedError("request.bad", "the payload is not what the request says")
        return payload


def _bad(name: str) -> RejectedError:
    return RejectedError("request.bad", "a field is missing or not what it should be", field=name)
