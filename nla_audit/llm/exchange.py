"""One request and its response, within bounds of time and size, whatever the server sends."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

#: Bytes of a response, unpacked: a hundred times what the longest answers hold.
MOST_BYTES = 16 << 20
_CHUNK = 1 << 16
#: Seconds for a connection: nobody takes longer who will ever answer.
_CONNECT = 30.0


class TooMuch(Exception):
    """The response has no end, or none within bounds; its words say which."""


class _Current(threading.local):
    exchange: _Exchange | None = None


#: What the thread is doing, told to connections, which are made and kept by the pool.
_CURRENT = _Current()


class _Exchange:
    """A request under way, which another thread may break off."""

    def __init__(self) -> None:
        self.is_broken_off = False
        self._socket: socket.socket | None = None

    def uses(self, connected: socket.socket | None) -> None:
        self._socket = connected
        if self.is_broken_off:
            self.break_off()

    def break_off(self) -> None:
        """Make every wait for the server end at once."""
        self.is_broken_off = True
        if self._socket is not None:
            with suppress(OSError):
                # Not the method of a TLS socket, which would first take its state from the reader.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Response(HTTPResponse):
    """Takes no chunk of negative size, for which Python would read without end, all at once."""

    def _safe_read(self, amt: int) -> bytes:
        if amt < 0:
            raise HTTPException("a chunk of negative size")
        data: bytes = super()._safe_read(amt)  # type: ignore[misc]  # private
        return data


class _Breakable(HTTPConnection):
    """Tells the exchange which socket to shut down."""

    response_class = _Response

    def connect(self) -> None:
        super().connect()
        self._tell()

    def getresponse(self) -> Any:
        self._tell()
        return super().getresponse()

    def _tell(self) -> None:
        if _CURRENT.exchange is not None:
            _CURRENT.exchange.uses(self.sock)


class _BreakableWithTls(_Breakable, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Breakable


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _BreakableWithTls


class Exchanges:
    """Requests to one address; safe under threads.

    Args:
        side_by_side: connections kept.
        timeout: seconds between two bytes.
        longest: seconds of one request from its beginning to the end of its response.
    """

    def __init__(self, side_by_side: int, timeout: float, longest: float) -> None:
        self._pool = urllib3.PoolManager(maxsize=side_by_side, retries=False)
        self._pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        self._timeout = urllib3.Timeout(connect=min(_CONNECT, timeout), read=timeout)
        self._longest = longest
        self._lock = threading.Lock()
        self._under_way: set[_Exchange] = set()

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        """Status, headers and body of the response.

        Raises:
            urllib3.exceptions.HTTPError: no connection, or what came is no HTTP.
            TooMuch: it did not end in time, was broken off, or is too large.
        """
        with self._bounded() as exchange:
            try:
                response = self._pool.request(
                    "POST",
                    url,
                    body=body,
                    headers={**headers, "Accept-Encoding": "identity"},
                    timeout=self._timeout,
                    redirect=False,  # the key belongs to this address only
                    preload_content=False,
                )
                try:
                    data = _read(response)
                finally:
                    # A connection with unread bytes cannot be used again.
                    response.close()
            except (urllib3.exceptions.HTTPError, ValueError, OSError, zlib.error) as error:
                if exchange.is_broken_off:
                    raise TooMuch(f"no end after {self._longest:g} s") from None
                if isinstance(error, urllib3.exceptions.HTTPError):
                    raise
                raise TooMuch("damaged response") from None
            # A shut socket looks like the end of a body of unknown length.
            if exchange.is_broken_off:
                raise TooMuch(f"no end after {self._longest:g} s")
        return response.status, response.headers, data

    def break_off(self) -> None:
        """End all requests under way."""
        with self._lock:
            for exchange in self._under_way:
                exchange.break_off()

    def close(self) -> None:
        """Close connections."""
        self._pool.clear()

    @contextmanager
    def _bounded(self) -> Iterator[_Exchange]:
        exchange = _CURRENT.exchange = _Exchange()
        timer = threading.Timer(self._longest, exchange.break_off)
        timer.daemon = True
        with self._lock:
            self._under_way.add(exchange)
        timer.start()
        try:
            yield exchange
        finally:
            timer.cancel()
            _CURRENT.exchange = None
            with self._lock:
                self._under_way.discard(exchange)


def _read(response: Any) -> bytes:
    """The body, unpacked if need be: never more than :data:`MOST_BYTES` of it, packed or not."""
    packing = response.headers.get("Content-Encoding", "").strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise TooMuch("a response packed in an unknown way")
    unpacker = zlib.decompressobj(wbits=47) if packing not in ("", "identity") else None
    parts: list[bytes] = []
    received = size = 0
    while chunk := response.read(_CHUNK, decode_content=False):
        received += len(chunk)
        if unpacker is not None:
            chunk = unpacker.decompress(chunk, MOST_BYTES + 1 - size)
        size += len(chunk)
        parts.append(chunk)
        if max(received, size) > MOST_BYTES:
            raise TooMuch(f"a response of more than {MOST_BYTES >> 20} MiB")
    return b"".join(parts)
