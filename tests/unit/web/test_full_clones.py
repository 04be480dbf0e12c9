"""A place for a full clone is given back however its answer ends, and nobody waits without bound."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from hgfleet.errors import TransientError
from hgfleet.web.answers import Answer
from hgfleet.web.full_clones import ClonePlaces
from tests.support.waiting import wait_until


def chunks() -> Iterator[bytes]:
    yield b"one"
    yield b"two"


def breaking() -> Iterator[bytes]:
    yield b"one"
    raise ConnectionError


def is_free(places: ClonePlaces) -> bool:
    try:
        places.run(lambda: Answer("200 OK"))
    except TransientError:
        return False
    return True


@pytest.fixture
def places() -> ClonePlaces:
    return ClonePlaces(1, wait_seconds=0.0)


def test_a_body_holds_its_place_to_the_end(places: ClonePlaces) -> None:
    body = places.run(chunks)
    assert not is_free(places)
    assert not isinstance(body, Answer)
    assert b"".join(body) == b"onetwo"
    assert is_free(places)


def test_a_client_that_goes_away_gives_its_place_back(places: ClonePlaces) -> None:
    body = places.run(chunks)
    next(iter(body))  # type: ignore[arg-type]
    assert not is_free(places)
    body.close()  # type: ignore[union-attr]
    assert is_free(places)


def test_a_body_that_nobody_ever_began_gives_its_place_back(places: ClonePlaces) -> None:
    body = places.run(chunks)
    assert not is_free(places)
    del body
    assert is_free(places)


def test_a_body_that_breaks_gives_its_place_back_once(places: ClonePlaces) -> None:
    body = places.run(breaking)
    with pytest.raises(ConnectionError):
        list(body)  # type: ignore[arg-type]
    body.close()  # type: ignore[union-attr]
    first = places.run(chunks)
    assert not is_free(places), "one place, not two"
    del first


def test_an_answer_that_fails_gives_its_place_back(places: ClonePlaces) -> None:
    def fail() -> Answer:
        raise TransientError("web.changing", "changing")

    with pytest.raises(TransientError, match="changing"):
        places.run(fail)
    assert is_free(places)


def test_the_next_one_waits_for_a_moment_and_those_behind_it_do_not() -> None:
    places = ClonePlaces(1, wait_seconds=60.0)
    held = places.run(chunks)
    done: list[object] = []
    waiting = threading.Thread(target=lambda: done.append(places.run(lambda: Answer("200 OK"))))
    waiting.start()
    wait_until(lambda: not places._may_wait._value, what="one waits")  # type: ignore[attr-defined]
    with pytest.raises(TransientError, match="too many full clones") as refused:
        places.run(chunks)
    assert refused.value.context == {"retry_after_seconds": 30}
    list(held)  # type: ignore[arg-type]
    waiting.join(timeout=60)
    assert done == [Answer("200 OK")]
