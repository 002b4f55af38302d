"""Copies of tables that no reader takes as they are: packed, or text of another encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from nla_audit.errors import UserError

PIECE = 1 << 20
#: Bytes unpacked at once; one block of four bytes can stand for 128 KiB.
_ZSTD_PART = 4096
#: A packed table is refused beyond both: text of explanations packs to a fifth, seldom a twentieth.
_MOST_UNPACKED, _MOST_TIMES = 256 << 20, 200
PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
#: Byte order marks → encoding; that of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def unpacked(name: str, path: Path, stack: ExitStack) -> Path:
    """The file that a packed one holds (packed twice at most); others are as they were."""
    for _ in range(2):
        start = start_of(path)
        kind = next((kind for magic, kind in PACKED.items() if start.startswith(magic)), None)
        if kind is None:
            return path
        path = _unpack(name, kind, path, temporary(stack))
    return path


def _unpack(name: str, kind: str, path: Path, copy: Path) -> Path:
    most = max(_MOST_UNPACKED, _MOST_TIMES * path.stat().st_size)
    size = 0
    try:
        with path.open("rb") as packed, copy.open("wb") as file:
            for piece in _pieces(kind, packed):
                size += len(piece)
                if size > most:
                    raise UserError(
                        f"{name}: unpacks to more than {_MOST_TIMES} times its size, which no "
                        f"table does: unpack it yourself if it is one ({kind})"
                    )
                file.write(piece)
    except (EOFError, ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise _damaged(name, kind, error) from error
    except OSError as error:
        if error.errno is None:  # what bz2 raises for bytes that are not its own
            raise _damaged(name, kind, error) from error
        raise
    return copy


def _pieces(kind: str, packed: IO[bytes]) -> Iterator[bytes]:
    """What a packed file holds, in pieces that fit into memory."""
    if kind == "zstd":
        yield from _zstd_pieces(packed)
        return
    readers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    with readers[kind](packed, "rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _zstd_pieces(packed: IO[bytes]) -> Iterator[bytes]:
    """Frame by frame, as the library's own file ends without a word where a frame is cut off.

    Raises:
        EOFError: the last frame is not whole.
        ValueError: the bytes are damaged.
    """
    import zstandard  # seldom needed

    frame = None
    while part := packed.read(_ZSTD_PART):
        while part:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(part)
            except zstandard.ZstdError as error:
                raise ValueError(error) from error
            part = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("it ends within a frame")


def _damaged(name: str, kind: str, error: Exception) -> UserError:
    return UserError(
        f"{name}: not a whole {kind} file (truncated or damaged: {error}): copy or write it again"
    )


def as_utf8(name: str, path: Path, stack: ExitStack) -> Path:
    """A copy in UTF-8 where a byte order mark says that the text is in another encoding."""
    start = start_of(path)
    encoding = next((e for mark, e in MARKS.items() if start.startswith(mark)), None)
    if encoding is None:
        return path
    copy = temporary(stack)
    with path.open("rb") as raw, copy.open("w", encoding="utf-8", newline="") as file:
        try:
            text = io.TextIOWrapper(raw, encoding=encoding, newline="")
            while piece := text.read(PIECE):
                file.write(piece)
        except UnicodeError as error:
            raise UserError(
                f"{name}: begins as {encoding.upper()}, and is not ({error}): save the file as "
                "UTF-8"
            ) from error
    return copy


def with_line_feeds(path: Path, stack: ExitStack) -> Path:
    """A copy whose lines end in line feeds, of a text whose lines end in carriage returns."""
    copy = temporary(stack)
    with path.open("rb") as old, copy.open("wb") as new:
        while piece := old.read(PIECE):
            new.write(piece.replace(b"\r", b"\n"))
    return copy


def holds(path: Path, byte: bytes) -> bool:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            if byte in piece:
                return True
    return False


def start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def temporary(stack: ExitStack) -> Path:
    """A new empty file, removed when ``stack`` closes."""
    handle, name = tempfile.mkstemp(prefix="nla-audit-")
    os.close(handle)
    path = Path(name)
    stack.callback(path.unlink, missing_ok=True)
    return path
