"""Files that are whole or not there, and one line where the disk is full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
from safetensors import SafetensorError

from nla_audit.errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever keeps ``path`` from being written into one line.

    A full disk is an ``OSError`` to Python but an error of its own to polars and to safetensors.

    Raises:
        UserError: it cannot be written.
    """
    try:
        yield
    except (OSError, SafetensorError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n", 1)[0]
        raise UserError(
            f"{path}: cannot write ({reason}); free some space or choose another --out, then run "
            "the same command again"
        ) from None


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to; the file becomes ``path`` when the ``with`` ends well.

    Raises:
        UserError: it cannot be written; a file that was there before is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink()
