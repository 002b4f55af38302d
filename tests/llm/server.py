"""An OpenAI-compatible server on this machine that fails as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Behaviour:
    """What the server does with the n-th request (from 0) for a text, and what it has seen."""

    def __init__(self, fault: Callable[[str, int], str | None] = lambda text, tries: None) -> None:
        self.fault = fault
        self.lock = threading.Lock()
        self.tries: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.keys: set[str | None] = set()
        self.delay = 0.0
        self.arrivals: list[float] = []

    def see(self, body: bytes) -> None:
        """Called with the body of each request."""

    def answer(self, lines: list[str]) -> str:
        """What the server's model writes, where it does not fail."""
        return json.dumps({"lines": [rewritten(line) for line in lines]})


def rewritten(line: str) -> str:
    """What the server's model makes of a line."""
    return f"in other words {line}"


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """The base address of a running server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            received = self.rfile.read(int(self.headers["Content-Length"]))
            behaviour.see(received)
            body = json.loads(received)
            lines = json.loads(body["messages"][1]["content"])["lines"]
            text = "\n".join(lines)
            with behaviour.lock:
                tries = behaviour.tries[text]
                behaviour.tries[text] += 1
                behaviour.keys.add(self.headers.get("Authorization"))
                behaviour.under_way += 1
                behaviour.most_under_way = max(behaviour.most_under_way, behaviour.under_way)
                behaviour.arrivals.append(time.monotonic())
            time.sleep(behaviour.delay)
            # Before the answer: the client may ask again before this thread comes to it after.
            with behaviour.lock:
                behaviour.under_way -= 1
            self._answer(behaviour.fault(text, tries), lines, text)

        def _answer(self, fault: str | None, lines: list[str], text: str) -> None:
            if fault == "drop":
                self.close_connection = True
                self.connection.close()
                return
            if fault == "hang":
                time.sleep(2.0)
                self.close_connection = True
                return
            if fault == "429 at once":
                self._send(429, b"{}", {"Retry-After": "0"})
                return
            if fault and fault.isdecimal():
                self._send(int(fault), b"{}", {"Retry-After": "0.3"} if fault == "429" else {})
                return
            made = [rewritten(line) for line in lines]
            content = behaviour.answer(lines)
            finish = "stop"
            if fault == "wrong count":
                content = json.dumps({"lines": [*made, "one more"]})
            elif fault == "refusal":
                content = json.dumps({"lines": ["I'm sorry, I cannot help with that."] * len(made)})
            elif fault == "comment":
                content = json.dumps({"lines": ["Here is the paraphrased text: " + made[0]]})
            elif fault == "cut":
                content, finish = content[: len(content) // 2], "length"
            elif fault == "prose":
                content = "As you wish."
            data = json.dumps(
                {
                    "choices": [
                        {
                            "message": {"role": "assistant", "content": content},
                            "finish_reason": finish,
                        }
                    ],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
                }
            ).encode()
            if fault == "truncated":
                data = data[: len(data) // 2]
            if fault is None:
                with behaviour.lock:
                    behaviour.answered[text] += 1
            self._send(200, data, {})

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
