"""Answers on disk, so that nothing is asked and paid for twice, even after kill −9."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nla_audit.errors import UserError
from nla_audit.files import full_disk
from nla_audit.llm.checks import NotAnAnswer
from nla_audit.llm.interface import Answer, Question

Asked = TypeVar("Asked", bound=Question)


def key_of(model: str, messages: Sequence[dict[str, str]], settings: dict[str, Any]) -> str:
    """SHA-256 of all that changes an answer: model, prompt with its text, settings."""
    text = json.dumps([model, list(messages), settings], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class AnswerCache:
    """Accepted answers by key. SQLite commits each one before the next is asked for.

    Args:
        path: the file; ``None`` keeps answers for the life of the object only.

    Raises:
        UserError: here and in every method, the file cannot be opened, read or written, or is no
            cache of answers.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._name = name = ":memory:" if path is None else str(path)
        with self._explained():
            # Autocommit: every put is a transaction of its own, whole or absent after a kill.
            self._connection = sqlite3.connect(
                name, check_same_thread=False, isolation_level=None, timeout=60
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, lines TEXT NOT NULL)"
            )
            self._connection.execute("SELECT key, lines FROM answers LIMIT 0")

    def get(self, key: str) -> tuple[str, ...] | None:
        """The lines kept under ``key``; ``None`` also where what is kept is no list of lines."""
        with self._lock, self._explained():
            # As bytes: text that is no UTF-8 is one damaged answer, not a damaged file.
            row = self._connection.execute(
                "SELECT CAST(lines AS BLOB) FROM answers WHERE key = ?", (key,)
            ).fetchone()
        try:
            lines = None if row is None or row[0] is None else json.loads(row[0])
        except (ValueError, RecursionError):
            return None
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            return None
        return tuple(lines)

    def checked(self, key: str, question: Question) -> tuple[str, ...] | None:
        """As :meth:`get`, and ``None`` for what is no answer to ``question``: it is asked again."""
        kept = self.get(key)
        if kept is None:
            return None
        try:
            return question.check(kept)
        except NotAnAnswer:
            return None

    def known(
        self, keys: Sequence[str], questions: Sequence[Asked]
    ) -> tuple[dict[str, Answer], dict[str, Asked]]:
        """The answers that are kept, by key, and the questions to be asked, each once."""
        answers: dict[str, Answer] = {}
        still_open: dict[str, Asked] = {}
        for key, question in zip(keys, questions, strict=True):
            if key in answers or key in still_open:
                continue
            kept = self.checked(key, question)
            if kept is None:
                still_open[key] = question
            else:
                answers[key] = Answer(kept)
        return answers, still_open

    def put(self, key: str, lines: Sequence[str]) -> None:
        """Keep ``lines`` under ``key``."""
        with self._lock, self._explained():
            self._connection.execute(
                "INSERT OR REPLACE INTO answers (key, lines) VALUES (?, ?)",
                (key, json.dumps(list(lines))),
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if full_disk(error):
                raise UserError(
                    f"{self._name}: cannot write ({error}): free some space and run the same "
                    "command again"
                ) from None
            raise UserError(
                f"{self._name}: cannot be used as a cache of answers ({error}): name another "
                "--cache, or delete this one"
            ) from None
