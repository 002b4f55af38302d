"""Long work in pieces that survive a kill: each piece is a Parquet file, written whole or not.

The pieces lie in a folder of their own beside the output, whose name holds a hash of everything
that changes the answer. A run with the same hash goes on where the last one stopped; a run with
another one starts afresh. That a folder exists proves nothing; what it is called does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from nla_audit.files import write_parquet, writing

_DIGITS = 16
#: No piece takes as long to write.
_LEFT_OVER_SECONDS = 3600


def digest_of(settings: Mapping[str, Any]) -> str:
    """SHA-256 of ``settings`` as JSON with sorted keys."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Shards:
    """The finished pieces of one run.

    Args:
        out: the output file of the run.
        key: hash of all that changes the answer (:func:`digest_of`).

    Raises:
        UserError: the folder beside ``out`` cannot be made.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.folder = out.parent / f".{out.name}.parts-{key[:_DIGITS]}"
        with writing(out):
            self.folder.mkdir(parents=True, exist_ok=True)
            # Of killed runs; another that shares a cache with this one may be writing right now.
            for leftover in self.folder.glob(".*"):
                if time.time() - leftover.stat().st_mtime > _LEFT_OVER_SECONDS:
                    leftover.unlink(missing_ok=True)

    def others(self) -> list[Path]:
        """Folders of unfinished runs with other settings for the same output."""
        stem = self.folder.name[:-_DIGITS]
        return sorted(
            entry
            for entry in self.folder.parent.iterdir()
            if entry.name.startswith(stem) and entry != self.folder
        )

    def get(self, stage: str, number: int) -> pl.DataFrame | None:
        """A finished piece, ``None`` if there is none that can be read."""
        path = self._path(stage, number)
        if not path.is_file():
            return None
        try:
            return pl.read_parquet(path, glob=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
            return None  # a crash of the machine can leave a renamed file empty

    def put(self, stage: str, number: int, piece: pl.DataFrame) -> None:
        """Keep a finished piece."""
        write_parquet(piece, self._path(stage, number))

    def remove(self) -> None:
        """Delete all pieces: the output is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, stage: str, number: int) -> Path:
        return self.folder / f"{stage}-{number:06d}.parquet"
