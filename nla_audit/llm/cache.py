"""Answers on disk, so that nothing is asked and paid for twice, even after kill −9."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nla_audit.errors import UserError


def key_of(model: str, messages: Sequence[dict[str, str]], settings: dict[str, Any]) -> str:
    """SHA-256 of all that changes an answer: model, prompt with its text, settings."""
    text = json.dumps([model, list(messages), settings], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class AnswerCache:
    """Accepted answers by key. SQLite commits each one before the next is asked for.

    Args:
        path: the file; ``None`` keeps answers for the life of the object only.

    Raises:
        UserError: the file cannot be opened or is no cache.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        name = ":memory:" if path is None else str(path)
        try:
            # Autocommit: every put is a transaction of its own, whole or absent after a kill.
            self._connection = sqlite3.connect(
                name, check_same_thread=False, isolation_level=None, timeout=60
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, lines TEXT NOT NULL)"
            )
        except sqlite3.Error as error:
            raise UserError(
                f"{name}: cannot be used as a cache of answers ({error}): name another --cache"
            ) from None

    def get(self, key: str) -> tuple[str, ...] | None:
        """The lines kept under ``key``."""
        with self._lock:
            row = self._connection.execute(
                "SELECT lines FROM answers WHERE key = ?", (key,)
            ).fetchone()
        return None if row is None else tuple(json.loads(row[0]))

    def put(self, key: str, lines: Sequence[str]) -> None:
        """Keep ``lines`` under ``key``."""
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(list(lines)))
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()
