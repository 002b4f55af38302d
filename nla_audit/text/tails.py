"""The end of an input beside an explanation: does it hold it, end with it, is it nothing but it?

Compared word by word: case, quotes, punctuation and the encoding of a character do not count. Nor
does it count where the last word is cut, in the input (which may stop within a word) or in the
explanation. Beside each answer stands the strict one, character for character.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nla_audit.text.words import FUNCTION_WORDS, words

Integers = NDArray[np.int64]

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
    """

    def __init__(self, source: str):
        end = source[-_TAIL_CHARACTERS:]
        self.words = [sys.intern(word) for word in words(end)[-LONGEST:]]
        self.text = _plain(end)
        last = self.text.rsplit(" ", TAIL_WORDS)[-TAIL_WORDS:] if self.text else []
        #: The last two words as they are written, or what there is.
        self.written = " ".join(last)


class LastWords:
    """The last words of many tails, to count how often texts say them."""

    def __init__(self, tails: Sequence[Tail], windows: Sequence[int]):
        """Look at the last words of each tail, for each of these numbers of them."""
        last = [[set(tail.words[-window:]) for tail in tails] for window in windows]
        self._ids: dict[str, int] = {}
        for said in chain.from_iterable(last):
            for word in said:
                self._ids.setdefault(word, len(self._ids))
        #: `[tails, words]` for each window: 1 for what stands in it.
        self._windows = [self._counts(window) for window in last]

    def spoken(self, texts: Sequence[Sequence[str]], tails: Sequence[Integers]) -> Integers:
        """How many words of each text, repeats included, are among the last words of tails.

        Args:
            texts: their words.
            tails: `[texts]` each: the places of tails that each text is compared with.

        Returns:
            `[comparisons, windows, texts]`.
        """
        counts = self._counts(texts)
        return np.array(
            [
                [counts.multiply(window[places]).sum(axis=1).A1 for window in self._windows]
                for places in tails
            ]
        )

    def _counts(self, texts: Sequence[Iterable[str]]) -> sparse.csr_matrix:
        """`[texts, words]`: how often each text says each word of a tail."""
        found = [[self._ids[word] for word in said if word in self._ids] for said in texts]
        ends = np.cumsum([0, *map(len, found)])
        indices = np.fromiter(chain.from_iterable(found), dtype=np.int64, count=ends[-1])
        counts = sparse.csr_matrix(
            (np.ones(len(indices), dtype=np.int64), indices, ends),
            shape=(len(found), max(len(self._ids), 1)),
        )
        counts.sum_duplicates()
        return counts


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


def held(spoken: list[str], tail: list[str]) -> HeldTail:
    """What the words ``spoken`` hold of the words ``tail``, with which the source ends."""
    run, place = suffix_run(spoken, tail)
    at_end = _run_at_end(spoken, tail)
    ends_with = at_end >= TAIL_WORDS
    return HeldTail(
        run=run,
        place=place,
        at_end=at_end,
        holds=run >= TAIL_WORDS or ends_with,
        ends_with=ends_with,
        is_nothing_but=0 < at_end == len(spoken),
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
    if last[0] != wanted[0]:  # most tails of others are done with here
        return 0
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
