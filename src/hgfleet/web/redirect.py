"""The plain port: whatever comes, 301 to the same place over HTTPS.

Promises: path and query go on verbatim, whatever method they came with; where to is configured, the Host
header decides nothing; a client that sends slowly, endlessly or garbage costs one connection for a bounded
time.
Does not: serve anything, health included.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal

import structlog

from hgfleet.web.options import RedirectOptions

_log = structlog.stdlib.get_logger("hgfleet.web")

_LINE_BYTES = 256 * 1024
_HEAD_SECONDS = 10.0
_MAX_CONNECTIONS = 1000
_TARGET = re.compile(rb"[A-Z]+ +(?:https?://[^/ ?]*)?([^ ]*)(?: +HTTP/[0-9.]+)?\s*", re.IGNORECASE)
_UNSAFE = re.compile(rb"[^!-~]")


def run_redirect(options: RedirectOptions) -> None:
    """Answer until SIGTERM or SIGINT."""
    asyncio.run(_serve(options))


async def _serve(options: RedirectOptions) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    base = options.base_url.rstrip("/").encode()
    slots = asyncio.Semaphore(_MAX_CONNECTIONS)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with slots:
            await _answer(base, reader, writer)

    server = await asyncio.start_server(answer, options.address, options.port, limit=_LINE_BYTES)
    async with server:
        await stop.wait()


async def _answer(base: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        line = await _read_head(reader)
        if line:
            writer.write(redirection(base, line))
            await writer.drain()
            writer.write_eof()
            await _drain(reader)
    writer.close()
    with contextlib.suppress(ConnectionError, TimeoutError):
        await writer.wait_closed()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    """Return the request line after the last header, or what came of it; b"" if nothing did."""
    line = b""
    with contextlib.suppress(ValueError, asyncio.IncompleteReadError):  # too long, or no line at all
        async with asyncio.timeout(_HEAD_SECONDS):
            line = await reader.readline()
            while (await reader.readline()).strip():
                pass
    return line or b"?"


async def _drain(reader: asyncio.StreamReader) -> None:
    """Read what the client still sends for a moment: closing at once would reset its connection."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            while await reader.read(65536):
                pass


def redirection(base: bytes, line: bytes) -> bytes:
    """Return the answer to a request line; one that can't be read leads to the start page."""
    match = _TARGET.fullmatch(line)
    target = match[1] if match else b"/"
    if not target.startswith(b"/"):
        target = b"/" + target.lstrip(b"*")
    # Percent-encode what may not stand in a header; all else is the client's own spelling.
    target = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], target)
    location = base + target
    return (
        b"HTTP/1.1 301 Moved Permanently\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n"
        b"X-Content-Type-Options: nosniff\r\nReferrer-Policy: same-origin\r\n"
        b"Content-Security-Policy: default-src 'none'\r\nConnection: close\r\n\r\n"
    )
