"""Names, numbers and quoted spans that a changed text lost, changed or made up.

They are looked for literally, as ``nla-audit faithfulness`` looks for them in the source: none
of them may be paraphrased, and the word beside them may.

* A **name** stands where all its words do, titles apart, in any order and any case; where the
  letters that it begins with do, if either is written so ("CFO"); and where a word made of it does
  ("Romanian"). In German, where every noun is capitalised, no name can be told.
* A **number** stands where its digits do, however they are grouped, or the word for it.
* A **quoted span** stands where its words do in this order, in quote marks or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from nla_audit.probes.transforming.cards import TextTransform
from nla_audit.text.items import (
    TITLES,
    capitalises_nouns,
    named_entities,
    numbers,
    quoted_spans,
)
from nla_audit.text.words import FUNCTION_WORDS, stem, words

#: Cardinals and ordinals, as words: up to twenty, and tens.
_CARDINALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_ORDINALS = (
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SPELT = {
    word: number for several in (_CARDINALS, _ORDINALS) for number, word in enumerate(several)
} | {
    word: ten
    for ten, tens in zip(range(20, 100, 10), _TENS, strict=True)
    for word in (tens, tens.removesuffix("y") + "ieth")
}
#: Stems that are no part of a name: titles, also in full and of a council, and function words.
_UNNAMED = (
    TITLES
    | FUNCTION_WORDS
    | set("reverend professor saint doctor sir lord ladi cllr councillor".split())
)
#: By how much the stems of a country, its language and its people may differ.
_DEMONYM = ("n", "an", "ian", "i", "ish", "ese")
#: Every explanation is compared with each of its changed texts.
_CACHED = 1 << 12
_NO_DIGIT = re.compile(r"\D")
_ORDINAL = re.compile("([0-9]+)(?:st|nd|rd|th)")
_ACRONYM = re.compile(r"\b[A-Z]{2,6}\b")


@dataclass(frozen=True)
class _Content:
    """What is looked for in a text, and where it is looked for."""

    stems: frozenset[str]
    joined: str  #: its words, each between two spaces
    initials: str  #: the letter that each word begins with
    acronyms: frozenset[str]  #: words in capitals, in lower case
    digits: frozenset[str]  #: of each number, spelt or not, and of each of its groups
    names: frozenset[tuple[str, ...]]  #: the stems of each
    numbers: frozenset[str]  #: digits alone
    quotes: frozenset[str]  #: as ``joined``


def infidelities(before: str, after: str, card: TextTransform) -> list[str]:
    """What ``after`` lost or added against what ``card`` promises, in words; empty if nothing.

    A transform that cuts may lose whatever it likes, and one that destroys quotes may change
    them; a translation may have other names for things. None may make anything up.
    """
    if before == after or _spoken(before) == _spoken(after):
        return []
    ours, theirs = _content(before), _content(after)
    kinds = ["number"]
    if not card.changes_language and not (capitalises_nouns(before) or capitalises_nouns(after)):
        kinds.append("name")
    if "quotes" not in card.destroys:
        kinds.append("quoted span")
    found = [f"{kind} added" for kind in kinds if not _holds(kind, theirs, ours)]
    if card.group != "cut":
        found += [f"{kind} lost" for kind in kinds if not _holds(kind, ours, theirs)]
    return found


def _holds(kind: str, wanted: _Content, there: _Content) -> bool:
    """Whether all items of one kind stand in another text."""
    if kind == "name":
        return all(_holds_name(name, wanted, there) for name in wanted.names)
    if kind == "number":
        return wanted.numbers <= there.digits
    return all(quote in there.joined for quote in wanted.quotes)


def _holds_name(name: tuple[str, ...], wanted: _Content, there: _Content) -> bool:
    if len(name) > 1 and "".join(word[0] for word in name) in there.acronyms:
        return True
    return all(
        _holds_stem(word, there.stems) or (word in wanted.acronyms and word in there.initials)
        for word in name
    )


def _holds_stem(word: str, stems: frozenset[str]) -> bool:
    if word in stems:
        return True
    longer = any(word + ending in stems for ending in _DEMONYM)
    return longer or any(word.removesuffix(end) in stems for end in _DEMONYM if len(word) > 5)


@lru_cache(maxsize=_CACHED)
def _spoken(text: str) -> tuple[str, ...]:
    return tuple(words(text))


@lru_cache(maxsize=_CACHED)
def _content(text: str) -> _Content:
    quotes = quoted_spans(text)
    inside = [(quote.start, quote.end) for quote in quotes]
    names = [
        tuple(word for word in map(stem, words(item.text)) if word not in _UNNAMED)
        for item in named_entities(text)
        # What is quoted is held to the letter as a quote, or is free to change with it.
        if not any(start <= item.start < end for start, end in inside)
    ]
    counted = [
        part
        for item in numbers(text)
        if not any(start <= item.start < end for start, end in inside)
        for part in _digits(item.text)
    ]
    spoken = _spoken(text)
    return _Content(
        stems=frozenset(map(stem, spoken)),
        joined=f" {' '.join(spoken)} ",
        initials="".join(word[0] for word in spoken),
        acronyms=frozenset(word.lower() for word in _ACRONYM.findall(text)),
        # Grouped digits count whole and apart: "5,829" may have become "5 829".
        digits=frozenset(
            part for item in numbers(text) for part in (*_digits(item.text), *words(item.text))
        )
        | _spelt(spoken),
        # A single letter ("Q&A") names nothing.
        names=frozenset(name for name in names if max(map(len, name), default=0) > 1),
        numbers=frozenset(counted),
        quotes=frozenset(f" {' '.join(words(quote.text))} " for quote in quotes),
    )


def _digits(number: str) -> list[str]:
    """The digits of a number, of two where they stand over each other ("9/16", "6:45")."""
    return [found for part in re.split("[/:]", number) if (found := _NO_DIGIT.sub("", part))]


def _spelt(spoken: Sequence[str]) -> set[str]:
    """The digits of numbers that are spelt, up to ninety-nine, and of ordinals ("4th")."""
    found = {digits.group(1) for word in spoken if (digits := _ORDINAL.fullmatch(word))}
    before = 0
    for word in spoken:
        number = _SPELT.get(word)
        if number is None:
            before = 0
            continue
        found.add(str(number))
        if before >= 20 and 0 < number < 10:
            found.add(str(before + number))
        before = number
    return found
