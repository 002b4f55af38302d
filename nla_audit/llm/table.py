"""``file:TABLE``: texts that were written elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from nla_audit.errors import UserError
from nla_audit.llm.checks import NotAnAnswer, check_lines
from nla_audit.llm.interface import Account, Answer, Closing, Progress, Request, silent

_COLUMNS = ("task", "text", "answer")


class Table(Closing):
    """Answers looked up by task and text.

    The answers are final: that of ``translate_back`` is found by the explanation, not by its
    translation.

    Args:
        path: CSV, JSON lines or Parquet with columns ``task`` (as ``paraphrase``), ``text`` (the
            text that was asked about, placeholders included) and ``answer``.

    Raises:
        UserError: it cannot be read, or a column is missing.
    """

    is_language_model = False

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path.name}"
        self.account = Account()
        readers = {".csv": pl.read_csv, ".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise UserError(f"{path}: not a known format: use one of {', '.join(readers)}")
        try:
            frame: pl.DataFrame = reader(path)  # type: ignore[operator]
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
            raise UserError(f"{path}: cannot be read ({reason}): check the file") from None
        missing = [name for name in _COLUMNS if name not in frame.columns]
        if missing:
            raise UserError(
                f'{path}: column "{missing[0]}" is missing: needed are task, text, answer'
            )
        self._answers = {
            (task, text): answer for task, text, answer in frame.select(_COLUMNS).iter_rows()
        }

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers; what is not in the table, or does not pass the checks, fails."""
        answers = [self._one(request) for request in requests]
        for answer in answers:
            if answer.lines is None:
                self.account.fail(answer.reason or "no answer")
        return answers

    def _one(self, request: Request) -> Answer:
        found = self._answers.get((request.task, "\n".join(request.lines)))
        if found is None:
            return Answer(None, "not in the table")
        try:
            return Answer(check_lines(str(found).split("\n"), request))
        except NotAnAnswer as error:
            return Answer(None, str(error))
