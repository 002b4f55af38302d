"""The end of an input beside an explanation: does it hold it, end with it, is it nothing but it?

Compared word by word: case, quotes, punctuation and the encoding of a character do not count. Nor
does it count where the last word is cut, in the input (which may stop within a word) or in the
explanation. Beside each answer stands the strict one, character for character.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Container, Mapping
from itertools import accumulate, repeat
from typing import NamedTuple

from nla_audit.text.words import FUNCTION_WORDS, words

#: Words that make a tail to be held: one word is named by most explanations ("Final token …").
TAIL_WORDS = 2
#: Longest run looked for; a longer one is a copy all the same.
LONGEST = 40
#: Only the tail of a source is ever compared, so a long one need not be split whole.
_TAIL_CHARACTERS = 2_000
#: Letters that a cut word must share where no whole word stands before it: fewer agree by chance.
_LETTERS_ALONE = 3


class Tail:
    """The end of a source, prepared for many comparisons.

    Attributes:
        words: its last words, at most :data:`LONGEST`.
        text: its last characters, white space made one.
        windows: its last words, for each of the given numbers of them, fewest first.
    """

    def __init__(self, source: str, windows: tuple[int, ...] = ()):
        end = source[-_TAIL_CHARACTERS:]
        self.words = [sys.intern(word) for word in words(end)[-LONGEST:]]
        self.text = _plain(end)
        self.windows = [frozenset(self.words[-window:]) for window in windows]
        # Each word of the largest window once, last first, so that a window is a beginning of it.
        self._recent = list(dict.fromkeys(reversed(self.words[-max(windows, default=1) :])))
        last = self.text.rsplit(" ", TAIL_WORDS)[-TAIL_WORDS:] if self.text else []
        #: The last two words as they are written, or what there is.
        self.written = " ".join(last)

    def spoken(self, counts: Mapping[str, int]) -> list[int]:
        """How many words of an explanation, repeats included, are in each of :attr:`windows`.

        Args:
            counts: how often each word stands in the explanation.
        """
        found = [0, *accumulate(map(counts.get, self._recent, repeat(0)))]
        return [found[len(window)] for window in self.windows]


class HeldTail(NamedTuple):  # a dataclass takes four times as long to make, and there are millions
    """What an explanation holds of a tail.

    Attributes:
        run: longest run of the source's last words that stands in the explanation, in words.
        place: where that run begins, in words; −1 where even the last word is missing.
        at_end: the same for a run at the end of the explanation, a cut last word included.
        holds: the source's last two words stand in the explanation, in order.
        ends_with: the explanation ends with them.
        is_nothing_but: every word of the explanation is the source's, up to its end.
    """

    run: int
    place: int
    at_end: int
    holds: bool
    ends_with: bool
    is_nothing_but: bool


#: Of a tail whose last word, whole or cut, is nowhere.
_NOTHING = HeldTail(run=0, place=-1, at_end=0, holds=False, ends_with=False, is_nothing_but=False)


def held(spoken: list[str], tail: list[str], vocabulary: Container[str] | None = None) -> HeldTail:
    """What the words ``spoken`` hold of the words ``tail``, with which the source ends.

    Args:
        vocabulary: the distinct words of ``spoken``, where a set or dictionary of them is at hand.
    """
    if not spoken or not tail:
        return _NOTHING
    is_there = tail[-1] in (spoken if vocabulary is None else vocabulary)
    if not is_there and spoken[-1][0] != tail[-1][0]:  # most tails of others are done with here
        return _NOTHING
    run, place = suffix_run(spoken, tail)
    at_end = _run_at_end(spoken, tail)
    ends_with = at_end >= TAIL_WORDS
    return HeldTail(
        run=run,
        place=place,
        at_end=at_end,
        holds=run >= TAIL_WORDS or ends_with,
        ends_with=ends_with,
        is_nothing_but=at_end == len(spoken),
    )


def suffix_run(explanation: list[str], source: list[str]) -> tuple[int, int]:
    """Longest suffix of ``source`` that stands in ``explanation`` as one run.

    Returns:
        Its length in words and where it begins (0 and −1 when even the last word is missing).
    """
    if not source:
        return 0, -1
    best, place = 0, -1
    end = -1
    for _ in range(explanation.count(source[-1])):
        end = explanation.index(source[-1], end + 1)
        length = _run_back(explanation, end, source)
        if length > best:
            best, place = length, end - length + 1
    return best, place


def _run_back(explanation: list[str], end: int, source: list[str]) -> int:
    """Words that agree, going back from ``explanation[end]``, which is the source's last."""
    length = 1
    while (
        length < min(len(source), LONGEST)
        and end - length >= 0
        and explanation[end - length] == source[-1 - length]
    ):
        length += 1
    return length


def _run_at_end(spoken: list[str], tail: list[str]) -> int:
    """Words of the tail that ``spoken`` ends with; its last word, or the tail's, may be cut."""
    if not spoken or not tail:
        return 0
    last, wanted = spoken[-1], tail[-1]
    cut, whole = sorted((last, wanted), key=len)
    # "the" is no cut "there", but a word of its own.
    if last != wanted and (not whole.startswith(cut) or cut in FUNCTION_WORDS):
        return 0
    length = _run_back(spoken, len(spoken) - 1, tail)
    is_alone = last != wanted and length == 1
    return 0 if is_alone and len(cut) < _LETTERS_ALONE else length


def held_strictly(explanation: str, tail: Tail) -> tuple[bool, bool, bool]:
    """Whether ``explanation`` holds, ends with, is nothing but the tail as it is written.

    Only white space and canonical encoding (NFC) are made one; the match begins and ends at the
    boundary of a word.
    """
    text = _plain(explanation)
    if not text or not tail.written:
        return False, False, False
    holds = _stands_in(tail.written, text)
    ends = text.endswith(tail.written) and _stands_in(tail.written, text[-len(tail.written) - 1 :])
    is_end = tail.text.endswith(text) and _stands_in(text, tail.text[-len(text) - 1 :])
    return holds, ends, is_end


def _stands_in(part: str, whole: str) -> bool:
    """Whether ``part`` stands in ``whole`` and cuts no word at either end."""
    place = whole.find(part)
    while place >= 0:
        before = whole[place - 1] if place else " "
        after = whole[place + len(part) : place + len(part) + 1]
        cuts_before = before.isalnum() and part[0].isalnum()
        if not cuts_before and not (after.isalnum() and part[-1].isalnum()):
            return True
        place = whole.find(part, place + 1)
    return False


def _plain(text: str) -> str:
    whole = text if text.isascii() else unicodedata.normalize("NFC", text)
    return " ".join(whole.split())
