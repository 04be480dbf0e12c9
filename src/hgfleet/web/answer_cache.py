"""Answers that were given before: at one exposed view, the same question has the same answer.

Thousands of CI machines ask for the same changeset within seconds of a push; only the first costs anything.

Promises: an answer is given again only for the same repository, path, generation, exposed seq and question;
a page's nonce is new each time; memory stays below the given size.
Does not: keep what is large or of a failed request.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from hgfleet.web.answers import Headers

MAX_ANSWER_BYTES = 1024 * 1024
_OVERHEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A whole answer; `nonce` is what stands for it in the body and in the headers, "" if none does."""

    status: str
    headers: Headers
    body: bytes
    nonce: str = ""

    def renewed(self) -> CachedAnswer:
        """Return the answer as another request gets it."""
        if not self.nonce:
            return self
        fresh = secrets.token_urlsafe(16)
        headers = [(name, value.replace(self.nonce, fresh)) for name, value in self.headers]
        body = self.body.replace(self.nonce.encode(), fresh.encode())
        return CachedAnswer(self.status, headers, body, fresh)


class Flights:
    """Who works out what: of many that ask the same at once, one works and the others wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[Hashable, threading.Event] = {}

    def join(self, question: Hashable) -> threading.Event | None:
        """Return what ends when the one who works on it is done; None makes the caller that one."""
        with self._lock:
            end = self._ends.get(question)
            if end is None:
                self._ends[question] = threading.Event()
            return end

    def land(self, question: Hashable) -> None:
        """Let the others go on; the answer is in the cache, or each has to work it out."""
        with self._lock:
            self._ends.pop(question).set()


class AnswerCache:
    """Least recently used goes first; any thread may ask."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._used_bytes = 0
        self._lock = threading.Lock()
        self._answer_by_question: OrderedDict[Hashable, CachedAnswer] = OrderedDict()

    def get(self, question: Hashable) -> CachedAnswer | None:
        """Return the answer to the question, None if it has to be worked out."""
        with self._lock:
            answer = self._answer_by_question.get(question)
            if answer is not None:
                self._answer_by_question.move_to_end(question)
        return answer

    def put(self, question: Hashable, answer: CachedAnswer) -> None:
        """Remember an answer."""
        if len(answer.body) > min(MAX_ANSWER_BYTES, self._size_bytes):
            return
        with self._lock:
            self._drop(self._answer_by_question.pop(question, None))
            self._answer_by_question[question] = answer
            self._used_bytes += len(answer.body) + _OVERHEAD_BYTES
            while self._used_bytes > self._size_bytes and self._answer_by_question:
                self._drop(self._answer_by_question.popitem(last=False)[1])

    def _drop(self, answer: CachedAnswer | None) -> None:
        if answer is not None:
            self._used_bytes -= len(answer.body) + _OVERHEAD_BYTES
