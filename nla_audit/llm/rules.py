"""``rules``: rewriting without a model, which says how little it changes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nla_audit.llm.interface import Account, Answer, Closing, Progress, Request, silent
from nla_audit.text.synonyms import GROUP_OF, PATTERN, as_written

#: Tasks that no rule does; they fail, and are counted.
_BEYOND_RULES = frozenset({"translate", "translate_back", "rewrite_fluently", "compress_written"})
#: Two clauses that may change places without a change of meaning.
_LINKED = re.compile(r"^(\w[^,;.]{8,}) (and|or) (\w[^,;.]{8,}?)([.]?)$")


class Rules(Closing):
    """A :class:`~nla_audit.llm.interface.Paraphraser` by rule: every synonym of the table becomes
    another one, and two clauses that are joined by *and* or *or* change places."""

    name = "rules"
    is_language_model = False

    def __init__(self) -> None:
        self.account = Account()

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers; a text that no rule touches fails, it does not come back as it was."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Answer:
        if request.task in _BEYOND_RULES:
            return self._failed("no rule does this: name a language model")
        lines = tuple(_reworded(line) for line in request.lines)
        if lines == request.lines:
            return self._failed("no rule changes this text")
        return Answer(lines)

    def _failed(self, reason: str) -> Answer:
        self.account.fail(reason)
        return Answer(None, reason)


def _reworded(line: str) -> str:
    def other(match: re.Match[str]) -> str:
        word = match.group()
        group = GROUP_OF[word.lower()]
        return as_written(group[(group.index(word.lower()) + 1) % len(group)], word)

    swapped = _LINKED.sub(lambda m: f"{m[3]} {m[2]} {m[1]}{m[4]}", line)
    return PATTERN.sub(other, swapped)
