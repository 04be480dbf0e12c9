"""Many clients that all want a full clone from one mirror, in a process of their own.

    python -m bench.clone_clients URL CA HEAD CLIENTS

They run until standard input ends, behind everything else on the machine: it is the server that is measured.
They begin one after another within the time after which a refused one comes back. At the end the process
prints how many answers there were of each status.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
from collections import Counter
from urllib.parse import urlsplit

_PAUSE_SECONDS = 30.0  # what a refusal says in Retry-After
_CHUNK_BYTES = 256 * 1024
_NICENESS = 19


async def _clone_again_and_again(
    url: str, context: ssl.SSLContext, wire: bytes, seen: Counter[str], first_pause_seconds: float
) -> None:
    parts = urlsplit(url)
    await asyncio.sleep(first_pause_seconds)
    while True:
        try:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
            writer.write(wire)
            head = await reader.readuntil(b"\r\n\r\n")
            while await reader.read(_CHUNK_BYTES):
                pass
            seen[head.split(b" ", 2)[1].decode()] += 1
            writer.close()
        except (OSError, EOFError) as error:
            seen[type(error).__name__] += 1
        await asyncio.sleep(_PAUSE_SECONDS)


async def _run(url: str, ca_file: str, head: str, clients: int) -> Counter[str]:
    context = ssl.create_default_context(cafile=ca_file)
    capabilities = "HG20%2Cbundle2%3DHG20%250Achangegroup%253D01%252C02"
    arguments = f"bundlecaps={capabilities}&cbattempted=1&cg=1&common={'0' * 40}&heads={head}"
    parts = urlsplit(url)
    lines = [
        f"GET {parts.path}?cmd=getbundle HTTP/1.1",
        f"Host: {parts.netloc}",
        "User-Agent: mercurial/proto-1.0",
        f"X-HgArg-1: {arguments}",
        "Connection: close",
    ]
    wire = ("\r\n".join(lines) + "\r\n\r\n").encode()
    seen: Counter[str] = Counter()
    pauses = [_PAUSE_SECONDS * number / clients for number in range(clients)]
    tasks = [asyncio.create_task(_clone_again_and_again(url, context, wire, seen, pause)) for pause in pauses]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    return seen


def main() -> None:
    """Run as the command says."""
    url, ca_file, head, clients = sys.argv[1:]
    os.nice(_NICENESS)
    print(json.dumps(asyncio.run(_run(url, ca_file, head, int(clients)))), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
