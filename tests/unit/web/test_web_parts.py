"""The parts of the web application that need no repository."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from hgfleet.errors import RejectedError
from hgfleet.web.answer_cache import AnswerCache, CachedAnswer, Flights
from hgfleet.web.answers import refusal, secured, status_line
from hgfleet.web.arguments import is_wire_command, is_write, parse_lists, parse_pairs, wire_command
from hgfleet.web.exchange import HELD_BYTES, Exchange
from hgfleet.web.redirect import redirection
from hgfleet.web.requests import MAX_BODY_BYTES, parse_networks, parse_request, read_body, read_to_end


def answer(body: bytes, nonce: str = "") -> CachedAnswer:
    return CachedAnswer("200 OK", [("X", f"nonce-{nonce}")], body, nonce)


# ---- answers kept in memory


def test_the_least_recently_used_answers_go_first() -> None:
    cache = AnswerCache(5000)
    for name in "abc":
        cache.put(name, answer(b"x" * 500))
    assert cache.get("a") is not None
    cache.put("d", answer(b"x" * 500))
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]


def test_replacing_an_answer_does_not_count_it_twice() -> None:
    cache = AnswerCache(4000)
    for _ in range(100):
        cache.put("a", answer(b"x" * 500))
    cache.put("b", answer(b"x" * 500))
    assert cache.get("a") is not None
    assert cache.get("b") is not None


def test_what_is_too_large_or_unwanted_is_not_kept() -> None:
    cache = AnswerCache(3000)
    cache.put("large", answer(b"x" * 3001))
    assert cache.get("large") is None
    off = AnswerCache(0)
    off.put("a", answer(b"x"))
    assert off.get("a") is None


def test_a_nonce_is_renewed_everywhere_in_an_answer() -> None:
    kept = answer(b'<script nonce="abc">', "abc")
    renewed = kept.renewed()
    assert renewed.nonce != "abc"
    assert renewed.body == f'<script nonce="{renewed.nonce}">'.encode()
    assert renewed.headers == [("X", f"nonce-{renewed.nonce}")]
    plain = answer(b"abc")
    assert plain.renewed() is plain


def test_of_many_that_ask_the_same_one_works() -> None:
    flights = Flights()
    assert flights.join("a") is None
    end = flights.join("a")
    assert end is not None
    assert flights.join("b") is None
    assert not end.is_set()
    flights.land("a")
    assert end.is_set()
    assert flights.join("a") is None


# ---- running an inner application


class Server:
    """Takes what the exchange sends."""

    def __init__(self) -> None:
        self.heads: list[tuple[str, list[tuple[str, str]]]] = []
        self.written = b""

    def start(self, status: str, headers: list[tuple[str, str]], _failure: Any = None) -> Any:
        self.heads.append((status, headers))
        return self.write

    def write(self, data: bytes) -> None:
        self.written += data


def app(chunks: list[bytes], *, written: bytes = b"") -> Any:
    def run(_environ: dict[str, Any], start: Any) -> Iterator[bytes]:
        write = start("200 OK", [("Content-Type", "x"), ("Connection", "Close")])
        if written:
            write(written)
        yield from chunks

    return run


def test_a_short_answer_is_held_back_whole() -> None:
    server = Server()
    exchange = Exchange(server.start, [])
    assert exchange.run(app([b"a", b"b"]), {}) == (b"ab", None)
    assert not server.heads
    assert exchange.headers == [("Content-Type", "x")]


def test_a_long_answer_goes_on_as_a_stream() -> None:
    server = Server()
    exchange = Exchange(server.start, [("X-Own", "1")])
    first, rest = exchange.run(app([b"x" * HELD_BYTES, b"y", b"z"]), {})
    assert rest is not None
    assert not server.heads
    assert b"".join(exchange.stream(first, rest)) == b"x" * HELD_BYTES + b"yz"
    assert ("X-Own", "1") in server.heads[0][1]
    assert exchange.sent_bytes == HELD_BYTES + 2


def test_what_is_written_is_sent_at_once() -> None:
    server = Server()
    exchange = Exchange(server.start, [])
    assert exchange.run(app([], written=b"archive"), {}) == (b"", None)
    assert exchange.is_sent
    assert server.written == b"archive"
    assert len(server.heads) == 1


# ---- requests


def environ(**given: str) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "10.0.0.1",
        **given,
    }


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),  # a stranger says what it likes
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "garbage", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, garbage", "10.0.0.1"),
        ("2001:db8::1", "2001:db8:1::9", "2001:db8:1::9"),
        ("", "203.0.113.9", ""),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(
    peer: str, forwarded: str, client: str
) -> None:
    trusted = parse_networks(["10.0.0.0/8", "2001:db8::/48"])
    request = parse_request(environ(REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded), trusted)
    assert request.client == client


def test_a_person_is_who_takes_html_and_sends_no_command() -> None:
    assert parse_request(environ(HTTP_ACCEPT="text/html"), []).is_person
    assert not parse_request(environ(HTTP_ACCEPT="text/html", QUERY_STRING="cmd=heads"), []).is_person
    assert not parse_request(environ(HTTP_ACCEPT="application/mercurial-0.1"), []).is_person


def test_questions_differ_by_all_that_an_answer_depends_on() -> None:
    variants = [
        environ(),
        environ(PATH_INFO="/a/c"),
        environ(QUERY_STRING="x"),
        environ(HTTP_X_HGARG_1="x"),
        environ(HTTP_X_HGPROTO_1="0.2"),
        environ(HTTP_USER_AGENT="mercurial/proto-1.0"),
    ]
    questions = {parse_request(variant, []).question(b"") for variant in variants}
    questions.add(parse_request(environ(), []).question(b"body"))
    assert len(questions) == len(variants) + 1
    same = parse_request(environ(HTTP_ACCEPT="*/*", REMOTE_ADDR="1.2.3.4", HTTP_HOST="x"), []).question(b"")
    assert same == parse_request(environ(), []).question(b"")


def test_a_body_is_read_once_and_can_be_read_again() -> None:
    given = environ(CONTENT_LENGTH="3") | {"wsgi.input": io.BytesIO(b"abcdef")}
    assert read_body(given) == b"abc"
    assert given["wsgi.input"].read() == b"abc"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"CONTENT_LENGTH": "x"}, 411),
        ({"CONTENT_LENGTH": "-1"}, 411),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
        ({"CONTENT_LENGTH": str(MAX_BODY_BYTES + 1)}, 413),
    ],
)
def test_a_body_of_unknown_or_great_length_is_refused(given: dict[str, str], status: int) -> None:
    with pytest.raises(RejectedError) as caught:
        read_body(environ(**given))
    assert caught.value.status == status


def test_the_rest_of_a_refused_body_is_taken_after_the_answer() -> None:
    sent = io.BytesIO(b"x" * 1_000_000)
    answered = read_to_end({"wsgi.input": sent}, [b"no"])
    assert next(answered) == b"no"
    assert sent.tell() == 0
    assert list(answered) == []
    assert sent.tell() == 1_000_000


@pytest.mark.parametrize(
    ("query", "command"),
    [
        ("cmd=heads", b"heads"),
        ("x=1&cmd=heads", b"heads"),
        ("cmd=a&cmd=b", b"b"),
        ("cmd=%C3%A4", "ä".encode()),
        ("", b""),
    ],
)
def test_the_command_is_the_one_that_hgweb_will_read(query: str, command: bytes) -> None:
    from mercurial import util
    from mercurial.hgweb import request as hgweb_request

    assert wire_command(query) == command
    kept = util.urlreq.parseqsl
    util.urlreq.parseqsl = parse_pairs
    try:
        server = {
            "SERVER_NAME": "x",
            "SERVER_PORT": "1",
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
        }
        parsed = hgweb_request.parserequestfromenv(environ(QUERY_STRING=query) | server)
    finally:
        util.urlreq.parseqsl = kept
    assert parsed.qsparams.get(b"cmd", b"") == command


def test_queries_are_split_in_bytes() -> None:
    assert parse_pairs(b"a=1&a=&b&=x&c=%FF+%2B") == [
        (b"a", b"1"),
        (b"a", b""),
        (b"b", b""),
        (b"c", b"\xff +"),
    ]
    assert parse_pairs(b"a=&b=1", keep_blank_values=False) == [(b"b", b"1")]
    assert parse_lists(b"a=1&a=2&b=3") == {b"a": [b"1", b"2"], b"b": [b"3"]}


def test_writes_are_told_from_reads() -> None:
    assert is_write(b"unbundle")
    assert is_write(b"pushkey")
    assert not is_write(b"heads")
    assert not is_write(b"rev")
    assert is_wire_command(b"heads")
    assert not is_wire_command(b"rev")


# ---- answers


def test_a_reason_is_one_line_of_ascii() -> None:
    assert status_line(404, "no\r\nX: 1 ä") == "404 no??X: 1 ?"
    assert status_line(404) == "404 Not Found"
    assert len(status_line(400, "x" * 1000)) < 250


def test_a_refusal_is_text_for_programs_and_a_page_for_people() -> None:
    assert refusal(404, "<b>", is_person=False).body == b"<b>\n"
    assert b"&lt;b&gt;" in refusal(404, "<b>", is_person=True).body
    assert refusal(404, "gone", is_person=True).status == "404 gone"


def test_a_policy_of_the_page_itself_is_kept() -> None:
    assert dict(secured([("content-security-policy", "x")]))["content-security-policy"] == "x"
    assert "Content-Security-Policy" not in dict(secured([("content-security-policy", "x")]))


# ---- the plain port


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"GET /a?b=%20 HTTP/1.1\r\n", b"/a?b=%20"),
        (b"GET /a\xc3\xa4 HTTP/1.1\r\n", b"/a%C3%A4"),
        (b"GET http://evil/x HTTP/1.1\r\n", b"/x"),
        (b"GET /a b HTTP/1.1\r\n", b"/"),
        (b"\x00\r\n", b"/"),
        (b"GET /x\r\nSet-Cookie:1 HTTP/1.1\r\n", b"/x%0D%0ASet-Cookie:1"),
        (b"GET @evil.example/ HTTP/1.1\r\n", b"/@evil.example/"),
        (b"GET .evil.example/ HTTP/1.1\r\n", b"/.evil.example/"),
    ],
)
def test_where_a_request_line_leads(line: bytes, target: bytes) -> None:
    answered = redirection(b"https://hg.example", line)
    assert b"\r\nLocation: https://hg.example" + target + b"\r\n" in answered
    assert answered.count(b"\r\n\r\n") == 1
