"""gunicorn's worker with threads, of which two are kept for the load balancer's questions.

A clone holds a thread for as long as its client takes. If readiness were asked of the same threads, a mirror
with as many clones as threads would be taken for dead and its load would go to the next one, and so on.

Promises: health is answered while all threads are busy; what finds no free thread waits in its order; once it
is to end, the worker refuses connections; else clients would wait in the kernel's queue for nobody. A head
that does not come in time costs its sender the connection.
Does not: decide how many threads there are (web.server does).
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from hgfleet.web.deadlines import RECEIVING

_SPARE_THREADS = 2
_HEALTH = ("/-/livez", "/-/readyz")


class PromptWorker(ThreadWorker):
    """A worker that waits for the head of a request, TLS handshake included, for a bounded time."""

    head_seconds = 15.0

    def handle(self, conn: Any) -> Any:
        """Read a request and answer it; in a thread of the pool."""
        conn.receiving = RECEIVING.start(lambda: conn.sock, self.head_seconds)
        try:
            return super().handle(conn)
        finally:
            RECEIVING.stop(conn.receiving)

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer a request, whose head has come."""
        RECEIVING.stop(conn.receiving)
        return bool(super().handle_request(req, conn))


class Worker(PromptWorker):
    """What gunicorn runs in every worker process of a mirror."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._free = threading.Semaphore(self.cfg.threads)
        self._held: deque[Any] = deque()  # connections; only the main thread changes it

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Return the threads: those that requests may hold, and the spare ones."""
        return ThreadPoolExecutor(self.cfg.threads + _SPARE_THREADS)

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Close the listeners at the end instead of only looking away."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.close()

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer a request, or lay it aside when no thread may be held for it; in a thread of the pool."""
        RECEIVING.stop(conn.receiving)  # before it is laid aside
        if req.path in _HEALTH:
            return super().handle_request(req, conn)
        if not getattr(conn, "has_thread", False) and not self._free.acquire(blocking=False):
            conn.held_request = req
            return False
        try:
            return super().handle_request(req, conn)
        finally:
            conn.has_thread = False
            self._free.release()
            if self._held:
                self.method_queue.defer(self._go_on)

    def finish_request(self, conn: Any, fs: Future[bool]) -> None:
        """Go on with a connection after a request, in the main thread."""
        if getattr(conn, "held_request", None) is not None:
            self._held.append(conn)
            self._go_on()
        else:
            super().finish_request(conn, fs)

    def _go_on(self) -> None:
        """Give the oldest of what waits the thread that is free now."""
        if self._held and self._free.acquire(blocking=False):
            conn = self._held.popleft()
            conn.has_thread = True
            conn.parser = _Parser(conn.parser, conn.held_request)
            conn.held_request = None
            self.enqueue_req(conn)


class _Parser:
    """A connection's parser that gives a request once more that it has given already."""

    def __init__(self, parser: Any, request: Any) -> None:
        self._parser: Any = parser._parser if isinstance(parser, _Parser) else parser
        self._request = request

    def __next__(self) -> Any:
        request, self._request = self._request, None
        return request if request is not None else next(self._parser)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)
