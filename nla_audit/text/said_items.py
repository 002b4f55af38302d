"""Which names, numbers and quoted spans of one text another text says, in whatever words.

They are looked for nearly to the letter: none of them may be paraphrased, and what stands beside
them may.

* A **name** stands where all its words do, titles apart, in any order and any case; where the
  letters that it begins with do, if either is written so ("CFO"); and where its people's name does,
  or its country's ("Danish"). In German, where every noun is capitalised, only names with capitals
  inside are known, and peoples and numbers that are spelt are known in English alone.
* A **number** stands where its digits do, however they are grouped and whatever letters they are
  joined to ("FY2021"), or the words for it; a **month** where a date in digits has it.
* A **quoted span** stands where its words do in this order, in quote marks or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from nla_audit.text.items import TITLES, Item, items
from nla_audit.text.numerals import all_digits, forms, months_of_dates, scaled, with_zeros
from nla_audit.text.peoples import folded, without_stops
from nla_audit.text.words import FUNCTION_WORDS, words

SaidKind = Literal["quote", "entity", "number"]

#: Words that are no part of a name: titles, also in full and of a council, and function words.
_UNNAMED = (
    TITLES
    | FUNCTION_WORDS
    | set("reverend professor saint doctor sir lord lady cllr councillor".split())
)
#: Ranks and waters before a name are no part of it ("Lake Windermere"); after one they are
#: ("Veronica Lake"), and alone each is one.
_BEFORE_A_NAME = frozenset(
    "sergeant inspector constable captain detective lake river mount".split()
)
#: What has the same beginning, and is another name ("Lake District").
_NOT_OF_IT = frozenset("district county".split())
_ACRONYM = re.compile(r"\b[A-Z]{2,6}\b")
#: Also with small letters within ("NaOH"), but not as in McKay.
_ABBREVIATED = re.compile(r"\b(?=[A-Za-z]{2,6}\b)[A-Z][a-z]?[A-Z]+[a-z]?\b")
#: A unit at a number ("412M"), a quarter, a fiscal year: no name.
_AT_A_NUMBER = re.compile(r"[0-9].*|[qh][1-4]|fy[0-9]+")
#: Words of two letters begin with those of any text.
_LEAST_INITIALS = 3


class SaidItems:
    """The items of a text, and where another text's items are looked for in it.

    What stands inside a quoted span is part of the quote. Of many texts only little is asked, so
    each is found when it is.
    """

    def __init__(self, text: str):
        self._text = with_zeros(without_stops(text))
        self._words = words(self._text)
        #: Its words, each between two spaces.
        self.joined = f" {' '.join(self._words)} "

    @cached_property
    def names(self) -> frozenset[tuple[str, ...]]:
        """The words of each name."""
        found = (
            tuple(word for word in words(item.text) if word not in _UNNAMED)
            for item in self._items
            if item.kind == "entity"
        )
        # A single letter ("Q&A") names nothing.
        return frozenset(
            name
            for name in map(_without_rank, found)
            if max(map(len, name), default=0) > 1 and not any(map(_AT_A_NUMBER.fullmatch, name))
        )

    @cached_property
    def numbers(self) -> frozenset[tuple[str, ...]]:
        """The digits of each number, in every way that it may be meant."""
        found: set[tuple[str, ...]] = set()
        for item in self._items:
            if item.kind == "number":
                large = scaled(self._text, item.start)
                found.update([large] if large else forms(item.text))
        return frozenset(found)

    @cached_property
    def quotes(self) -> frozenset[str]:
        """The words of each quoted span, between two spaces."""
        quoted = (words(item.text) for item in self._items if item.kind == "quote")
        # A mark alone ("—") is looked for by no word.
        return frozenset(f" {' '.join(said)} " for said in quoted if said)

    @cached_property
    def acronyms(self) -> frozenset[str]:
        """Words of two to six capitals, in lower case."""
        return frozenset(word.lower() for word in _ACRONYM.findall(self._text))

    @cached_property
    def digits(self) -> frozenset[str]:
        """Of all its numbers, spelt or not."""
        return all_digits(self._text, self._words)

    @cached_property
    def months(self) -> frozenset[str]:
        """Of its dates in digits."""
        return months_of_dates(self._text)

    @cached_property
    def folded(self) -> frozenset[str]:
        """Its words as names are compared by."""
        return frozenset(folded(self._words, self.acronyms))

    def of(self, kind: SaidKind) -> frozenset[str] | frozenset[tuple[str, ...]]:
        """The text's items of a kind."""
        if kind == "entity":
            return self.names
        return self.numbers if kind == "number" else self.quotes

    def not_said_by(self, other: SaidItems, kind: SaidKind) -> Sequence[str | tuple[str, ...]]:
        """The text's items of a kind that ``other`` does not say."""
        if kind == "entity":
            return [name for name in self.names if not self._is_named(name, other)]
        if kind == "number":
            return [number for number in self.numbers if other.digits.isdisjoint(number)]
        return [quote for quote in self.quotes if quote not in other.joined]

    def shortens(self, name: Sequence[str], other: SaidItems) -> bool:
        """Whether a name is an abbreviation ("ICU") that ``other`` may say in common words."""
        return all(
            word in self._abbreviations and (word[:2] in other.initials or word in other.joined)
            for word in name
        )

    @cached_property
    def initials(self) -> str:
        """The letter that each word begins with."""
        return "".join(word[0] for word in self._words)

    @cached_property
    def _abbreviations(self) -> frozenset[str]:
        return frozenset(word.lower() for word in _ABBREVIATED.findall(self._text))

    @cached_property
    def _initials_of_names(self) -> list[str]:
        return ["".join(word[0] for word in name) for name in self.names]

    @cached_property
    def _items(self) -> list[Item]:
        return items(self._text)

    def _is_named(self, name: tuple[str, ...], other: SaidItems) -> bool:
        if len(name) > 1 and "".join(word[0] for word in name) in other.acronyms:
            return True
        return all(
            word in other.folded
            or (word in self.acronyms and other.spells_out(word))
            or word in other.months
            for word in folded(name, self.acronyms)
        )

    def spells_out(self, acronym: str) -> bool:
        """Whether words that stand here one after the other begin with an acronym's letters."""
        if len(acronym) >= _LEAST_INITIALS and acronym in self.initials:
            return True
        return any(acronym in initials for initials in self._initials_of_names)


def _without_rank(name: tuple[str, ...]) -> tuple[str, ...]:
    if len(name) > 1 and name[0] in _BEFORE_A_NAME and name[1] not in _NOT_OF_IT:
        return name[1:]
    return name
