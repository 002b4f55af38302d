"""A proxy in front of an OpenAI-compatible server that fails as it is told to.

What reaches the client whole is counted as delivered, so that a test can say of every request how
often it was asked, and how often answered.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

#: Faults in which the server behind is not asked, and those in which its answer is spoilt.
UNASKED = (
    "429 in seconds",
    "429 with a date",
    "429",
    "500",
    "502",
    "503",
    "503 in seconds",
    "page",
    "time-out",
    "dropped before",
)
SPOILT = (
    "dropped in mid-body",
    "dropped in mid-chunk",
    "truncated JSON",
    "truncated text",
    "one line more",
    "one line less",
)
FAULTS = (*UNASKED, *SPOILT)
#: What a ``Retry-After`` says, in seconds; a date has no fractions, and may be up to one later.
RETRY_AFTER = 2


class FaultyProxy:
    """What the proxy does with the n-th try (from 0) of a request, and what it has seen.

    Args:
        upstream: base address of the server behind it.
        fault: ``(number, tries)`` → a fault or ``None``; requests are numbered as they come.
        time_out: seconds after which a "time-out" ends; more than the client waits.
    """

    def __init__(
        self,
        upstream: str,
        fault: Callable[[int, int], str | None] = lambda number, tries: None,
        *,
        time_out: float = 1.0,
    ) -> None:
        self.upstream = upstream
        self.fault = fault
        self.time_out = time_out
        self.lock = threading.Lock()
        self.tries: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.numbers: dict[str, int] = {}
        #: When requests came, and when the first one was told to come back after what pause.
        self.arrivals: list[float] = []
        self.held: list[tuple[float, float]] = []
        #: Requests are kept waiting as soon as so many answers were delivered.
        self.stalls_after: int | None = None
        self.stalled = 0

    def wait_for_stall(self, requests: int, *, seconds: float) -> None:
        """Until so many requests are kept waiting."""
        deadline = time.monotonic() + seconds
        while self.stalled < requests:
            assert time.monotonic() < deadline, f"{self.stalled} requests wait, not {requests}"
            time.sleep(0.02)


@contextmanager
def proxying(proxy: FaultyProxy) -> Iterator[str]:
    """The base address of a running proxy."""
    pool = urllib3.PoolManager(maxsize=16, retries=False)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = json.dumps(json.loads(body)["messages"])
            with proxy.lock:
                proxy.arrivals.append(time.monotonic())
                number = proxy.numbers.setdefault(asked, len(proxy.numbers))
                fault = proxy.fault(number, proxy.tries[asked])
                proxy.tries[asked] += 1
                if fault is not None:
                    proxy.faults[fault] += 1
                stalls = (
                    proxy.stalls_after is not None and proxy.delivered.total() >= proxy.stalls_after
                )
                proxy.stalled += stalls
            if stalls:
                time.sleep(3600)
            elif fault in UNASKED:
                self._fail(fault)
            else:
                response = pool.request(
                    "POST",
                    proxy.upstream + self.path.removeprefix("/v1"),
                    body=body,
                    headers={"Content-Type": "application/json"},
                )
                self._pass_on(response.status, response.data, fault, asked)

        def _fail(self, fault: str) -> None:
            if fault == "time-out":
                time.sleep(proxy.time_out)
                self.close_connection = True
            elif fault == "dropped before":
                self.close_connection = True
            elif fault == "page":
                self._send(200, b"<html>sign in first</html>", {"Content-Type": "text/html"})
            else:
                headers = {}
                moment = datetime.now(UTC)
                if "seconds" in fault:
                    headers["Retry-After"] = str(RETRY_AFTER)
                    wait = float(RETRY_AFTER)
                elif "date" in fault:
                    until = (moment + timedelta(seconds=RETRY_AFTER + 1)).replace(microsecond=0)
                    headers["Retry-After"] = format_datetime(until, usegmt=True)
                    wait = (until - moment).total_seconds()
                if headers:
                    proxy.held.append((time.monotonic(), wait))
                self._send(int(fault[:3]), b'{"error": {"message": "not now"}}', headers)

        def _pass_on(self, status: int, data: bytes, fault: str | None, asked: str) -> None:
            if fault == "dropped in mid-body":
                self._begin(status, {"Content-Length": str(len(data))})
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
            elif fault == "dropped in mid-chunk":
                self._begin(status, {"Transfer-Encoding": "chunked"})
                self.wfile.write(f"{len(data):x}\r\n".encode() + data[: len(data) // 2])
                self.close_connection = True
            elif fault == "truncated JSON":
                self._send(status, data[: len(data) // 2], {})
            elif fault is not None:
                self._send(status, _spoilt(data, fault), {})
            else:
                # Counted before the client can act on it.
                with proxy.lock:
                    proxy.delivered[asked] += status == 200
                self._send(status, data, {})

        def _begin(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self._begin(status, {**headers, "Content-Length": str(len(data))})
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Clients that were killed, or waited no longer, are part of the test."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        pool.clear()


def _spoilt(data: bytes, fault: str) -> bytes:
    """A response whose message is not what was asked for."""
    value = json.loads(data)
    choice = value["choices"][0]
    content = choice["message"]["content"]
    if fault == "truncated text":
        choice["message"]["content"] = content[: len(content) // 2]
        choice["finish_reason"] = "length"
    else:
        lines = json.loads(content)["lines"]
        lines = [*lines, "one line more"] if fault == "one line more" else lines[:-1]
        choice["message"]["content"] = json.dumps({"lines": lines})
    return json.dumps(value).encode()
