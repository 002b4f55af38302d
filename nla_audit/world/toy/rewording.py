"""``world``: the synthetic language in other words, with its meaning known to be kept.

Every sentence of the language has several wordings that say the same (``WORDINGS``); this writer
exchanges one for another. It is what a paraphraser should be and seldom is: whatever FVE is lost
here was carried by the wording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nla_audit.llm.interface import Account, Answer, Closing, Progress, Request, silent
from nla_audit.world.toy.explanations import FILLERS, WORDINGS
from nla_audit.world.toy.language import FACTS

_END = " . "
#: What may stand for the words of an ending: themselves between quote marks, or a placeholder.
_ENDING_WORDS = r'" .*? "|⟦\d+⟧'


def _pattern(fact: str, wording: str) -> re.Pattern[str]:
    value = "|".join(FACTS[fact]) if fact in FACTS else _ENDING_WORDS
    before, after = wording.replace('" {} "', "{}").split("{}")
    return re.compile(f"{re.escape(before)}({value}){re.escape(after)}")


#: ``(fact, number of the wording, its pattern)``.
_PATTERNS = [
    (fact, number, _pattern(fact, wording))
    for fact, wordings in WORDINGS.items()
    for number, wording in enumerate(wordings)
]


class WorldWriter(Closing):
    """A :class:`~nla_audit.llm.interface.Paraphraser` of the synthetic language.

    ``compress_written`` takes the shortest wordings and leaves fillers out, ``rewrite_fluently``
    takes the longest; the paraphrases take the next one in the list. Sentences that are not of
    the language stay as they are.
    """

    name = "world"
    is_language_model = False

    def __init__(self) -> None:
        self.account = Account()

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers; a text without a sentence of the language fails, as does a task of
        which the language knows nothing (translation)."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Answer:
        if request.task not in _CHOICES:
            self.account.add(failures=1)
            return Answer(None, "the language knows no other")
        lines = tuple(_reworded(line, request.task) for line in request.lines)
        if lines == request.lines:
            self.account.add(failures=1)
            return Answer(None, "no other wording of this text")
        return Answer(lines)


def _reworded(line: str, task: str) -> str:
    body = line.removesuffix(" .")
    sentences = [_sentence(sentence, task) for sentence in body.split(_END)]
    said = [sentence for sentence in sentences if sentence]
    return _END.join(said) + line[len(body) :] if said else line


def _sentence(sentence: str, task: str) -> str:
    """``sentence`` in another wording; empty if it says nothing and is to be left out."""
    if sentence in FILLERS:
        if task == "compress_written":
            return ""
        return FILLERS[(FILLERS.index(sentence) + 1) % len(FILLERS)]
    found = _read(sentence)
    if found is None:
        return sentence
    fact, value, number = found
    wordings = WORDINGS[fact]
    other = wordings[_CHOICES[task](number, len(wordings))]
    return other.replace('" {} "', "{}").format(value)


def fact_said(sentence: str) -> tuple[str, str] | None:
    """Fact and value that a sentence of the language states; ``None`` if it states none."""
    found = _read(sentence)
    return None if found is None else found[:2]


def _read(sentence: str) -> tuple[str, str, int] | None:
    """Fact, value and number of the wording."""
    for fact, number, pattern in _PATTERNS:
        match = pattern.fullmatch(sentence)
        if match is not None:
            return fact, match[1], number
    return None


#: Task → which of ``n`` wordings, long to short, takes the place of number ``i``.
_CHOICES = {
    **dict.fromkeys(
        ("paraphrase", "paraphrase_unquoted", "paraphrase_lines"), lambda i, n: (i + 1) % n
    ),
    "rewrite_fluently": lambda _i, _n: 0,
    "compress_written": lambda _i, n: n - 1,
}
