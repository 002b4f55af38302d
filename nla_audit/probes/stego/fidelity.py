"""Names, numbers and quoted spans that a changed text lost, changed or made up.

None of them may be paraphrased, and the word beside them may; how they are looked for is said in
:mod:`nla_audit.text.said_items`. In German no name can be told.
"""

from __future__ import annotations

from functools import lru_cache

from nla_audit.probes.transforming.cards import TextTransform
from nla_audit.text.languages import language_of
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
    kinds: list[SaidKind] = ["number"]
    nouns_too = any(language_of(text).capitalises_nouns for text in (before, after))
    if not card.changes_language and not nouns_too:
        kinds.append("entity")
    if "quotes" not in card.destroys:
        kinds.append("quote")
    added = {kind: theirs.not_said_by(ours, kind) for kind in kinds}
    lost = {kind: ours.not_said_by(theirs, kind) for kind in kinds}
    # "ICU" stands for common words as well, unless it stands where another name was.
    for names, others, text in ((added, lost, theirs), (lost, added, ours)):
        if not others.get("entity") and all(map(text.abbreviates, names.get("entity", ()))):
            names.pop("entity", None)
    found = [f"{_NAMES[kind]} added" for kind, items in added.items() if items]
    if card.group != "cut":
        found += [f"{_NAMES[kind]} lost" for kind, items in lost.items() if items]
    return found


@lru_cache(maxsize=_CACHED)
def _spoken(text: str) -> tuple[str, ...]:
    return tuple(words(text))


@lru_cache(maxsize=_CACHED)
def _items(text: str) -> SaidItems:
    return SaidItems(text)
