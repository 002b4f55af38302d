"""``file:TABLE``: texts that were written elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nla_audit.errors import UserError
from nla_audit.llm.checks import NotAnAnswer, check_lines
from nla_audit.llm.interface import Account, Answer, Closing, Progress, Request, silent
from nla_audit.table.readers import read_frame
from nla_audit.unicode_form import composed

_COLUMNS = ("task", "text", "answer")


class AnswerTable(Closing):
    """Answers looked up by task and text.

    The answers are final: that of ``translate_back`` is found by the explanation, not by its
    translation.

    Args:
        path: a table (CSV, JSON lines, Parquet) with columns ``task`` (as ``paraphrase``),
            ``text`` (what was asked about, placeholders included) and ``answer``.

    Raises:
        UserError: it cannot be read, or a column is missing.
    """

    is_language_model = False

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path.name}"
        self.account = Account()
        frame = read_frame(path)
        missing = [name for name in _COLUMNS if name not in frame.columns]
        if missing:
            raise UserError(
                f'{path}: column "{missing[0]}" is missing: needed are task, text, answer'
            )
        self._answers = {
            (str(task), composed(str(text))): answer
            for task, text, answer in frame.select(_COLUMNS).iter_rows()
        }

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers; what is not in the table, or does not pass the checks, fails."""
        answers = [self._one(request) for request in requests]
        for answer in answers:
            if answer.lines is None:
                self.account.fail(answer.reason or "no answer")
        return answers

    def _one(self, request: Request) -> Answer:
        found = self._answers.get((request.task, composed("\n".join(request.lines))))
        if found is None:
            return Answer(None, "not in the table")
        try:
            return Answer(check_lines(str(found).split("\n"), request))
        except NotAnAnswer as error:
            return Answer(None, str(error))
