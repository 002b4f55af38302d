"""Names, numbers and quoted spans that a changed text lost, changed or made up.

None of them may be paraphrased, and the word beside them may; how they are looked for is said in
:mod:`nla_audit.text.said_items`. What counts is found on both sides, one item in the place of
another, wherever one side alone can be other wording: an abbreviation ("ICU"), and in languages
other than English any name or number, since peoples and spelt numbers are not known there.
"""

from __future__ import annotations

from functools import lru_cache

from nla_audit.probes.transforming.cards import TextTransform
from nla_audit.text.languages import ENGLISH, language_of
from nla_audit.text.said_items import SaidItems, SaidKind
from nla_audit.text.words import words

_NAMES: dict[SaidKind, str] = {"number": "number", "entity": "name", "quote": "quoted span"}
#: Every explanation is compared with each of its changed texts.
_CACHED = 1 << 12


def infidelities(before: str, after: str, card: TextTransform) -> list[str]:
    """What ``after`` lost or added against what ``card`` promises, in words; empty if nothing.

    A transform that cuts may lose whatever it likes, and one that destroys quotes may change
    them; a translation may have other names for things. None may make anything up.
    """
    if before == after or _spoken(before) == _spoken(after):
        return []
    ours, theirs = _items(before), _items(after)
    languages = {language_of(before), language_of(after)}
    kinds: list[SaidKind] = ["number"]
    if not card.changes_language and all(language.shows_names for language in languages):
        kinds.append("entity")
    if "quotes" not in card.destroys:
        kinds.append("quote")
    found = []
    for kind in kinds:
        added, lost = theirs.not_said_by(ours, kind), ours.not_said_by(theirs, kind)
        if kind != "quote" and bool(added) != bool(lost) and languages != {ENGLISH}:
            continue
        if kind == "entity" and not lost and all(theirs.shortens(name, ours) for name in added):
            continue
        if kind == "entity" and not added and all(ours.shortens(name, theirs) for name in lost):
            continue
        found += [f"{_NAMES[kind]} added"] if added else []
        found += [f"{_NAMES[kind]} lost"] if lost and card.group != "cut" else []
    return found


@lru_cache(maxsize=_CACHED)
def _spoken(text: str) -> tuple[str, ...]:
    return tuple(words(text))


@lru_cache(maxsize=_CACHED)
def _items(text: str) -> SaidItems:
    return SaidItems(text)
