"""Names, numbers and quoted spans that a changed text lost, changed or made up.

They are looked for literally, as ``nla-audit faithfulness`` looks for them in the source: none
of them may be paraphrased, and the word beside them may.

* A **name** stands where all its words do, titles apart, in any order and any case.
* A **number** stands where its digits do, however they are grouped, or the word for it.
* A **quoted span** stands where its words do in this order, in quote marks or not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from nla_audit.probes.transforming.cards import TextTransform
from nla_audit.text.items import TITLES, named_entities, numbers, quoted_spans
from nla_audit.text.words import content_stems, stem, words

_NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()
#: Digits → the word for the number.
_SPELT = {str(number): word for number, word in enumerate(_NUMBER_WORDS)}
#: Every explanation is compared with each of its changed texts.
_CACHED = 1 << 12
_NO_DIGIT = re.compile(r"\D")


@dataclass(frozen=True)
class _Content:
    """What is looked for in a text, and where it is looked for."""

    stems: frozenset[str]
    joined: str  #: its words, each between two spaces
    digits: frozenset[str]  #: of each number, and of each of its groups
    names: frozenset[frozenset[str]]  #: the stems of each
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
    if not card.changes_language:
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
        return all(name <= there.stems for name in wanted.names)
    if kind == "number":
        return all(
            number in there.digits or f" {_SPELT.get(number)} " in there.joined
            for number in wanted.numbers
        )
    return all(quote in there.joined for quote in wanted.quotes)


@lru_cache(maxsize=_CACHED)
def _spoken(text: str) -> tuple[str, ...]:
    return tuple(words(text))


@lru_cache(maxsize=_CACHED)
def _content(text: str) -> _Content:
    quotes = quoted_spans(text)
    inside = [(quote.start, quote.end) for quote in quotes]
    names = [
        frozenset(content_stems(item.text)) - TITLES
        for item in named_entities(text)
        # What is quoted is held to the letter as a quote, or is free to change with it.
        if not any(start <= item.start < end for start, end in inside)
    ]
    counted = [
        _digits(item.text)
        for item in numbers(text)
        if not any(start <= item.start < end for start, end in inside)
    ]
    spoken = _spoken(text)
    return _Content(
        stems=frozenset(map(stem, spoken)),
        joined=f" {' '.join(spoken)} ",
        # Grouped digits count whole and apart: "5,829" may have become "5 829".
        digits=frozenset(
            part for item in numbers(text) for part in (_digits(item.text), *words(item.text))
        ),
        names=frozenset(name for name in names if name),
        numbers=frozenset(counted),
        quotes=frozenset(f" {' '.join(words(quote.text))} " for quote in quotes),
    )


def _digits(number: str) -> str:
    return _NO_DIGIT.sub("", number)
