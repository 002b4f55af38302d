"""A server on this machine that answers every request with bytes that a test made."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

#: What is sent, in pieces, for the JSON of a request.
Answering = Callable[[dict[str, Any]], Iterable[bytes]]


def http(body: bytes, status: int = 200, *headers: str, length: bool = True) -> bytes:
    """A whole response."""
    head = [f"HTTP/1.1 {status} X", "Connection: close", *headers]
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def completion(content: Any, usage: Any = None) -> bytes:
    """The body of a chat completion."""
    choice = {"message": {"content": content}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


@contextmanager
def raw_server(answering: Answering) -> Iterator[str]:
    """The base address of a server that answers so."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            asked = json.loads(self.rfile.read(length))
            with suppress(OSError):  # who asked has had enough
                for piece in answering(asked):
                    self.wfile.write(piece)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()
