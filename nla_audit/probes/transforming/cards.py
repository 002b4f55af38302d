"""The cards of the transforms, found by listing the folder they lie in.

A transform is a function from a text to a text with a card: what it changes, what it promises to
keep. A *whole-table* transform (a control) sees all texts at once; a *written* one hands its
texts to a language model. :func:`transforms` lists them all.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nla_audit.probes.transforming.preservation import CHECKS

Group = Literal["kept", "cut", "control"]
#: Aspects of a text that may carry the reconstruction, from the least to the most invasive way
#: of destroying them: whatever changes the wording leaves the layout, and so on.
CHANNELS = ("layout", "wording", "order", "quotes")

OneText = Callable[[str, np.random.Generator], str]
AllTexts = Callable[[Sequence[str], Sequence[Any], int], list[str | None]]


@dataclass(frozen=True)
class TextTransform:
    """The card of one transform.

    Attributes:
        name: value of column ``variant``.
        group: whether it keeps the meaning, cuts some of it, or is a control.
        summary: what it does, in a sentence.
        destroys: which of :data:`CHANNELS` it leaves nothing of, as far as it says.
        keeps: promises, names of :data:`~nla_audit.probes.transforming.preservation.CHECKS`.
        one: the function on one text, if it works on each alone.
        whole: the function on all texts, if it needs the others.
        instruction: what a language model is asked to do, if one writes it.
        spares_quotes: the language model sees placeholders where quoted spans stand.
        by_line: each line is written on its own, and the order kept.
        first: name of the written transform whose texts this one starts from (a translation, to
            be translated back), if not from the explanations.
        changes_language: the text comes out in another language.
    """

    name: str
    group: Group
    summary: str
    destroys: frozenset[str] = frozenset()
    keeps: tuple[str, ...] = ()
    one: OneText | None = None
    whole: AllTexts | None = None
    instruction: str | None = None
    spares_quotes: bool = False
    by_line: bool = False
    first: str | None = None
    changes_language: bool = False

    @property
    def is_written(self) -> bool:
        """Whether a language model is needed."""
        return self.instruction is not None


_REGISTRY: dict[str, TextTransform] = {}


def _register(card: TextTransform) -> None:
    unknown = [name for name in card.keeps if name not in CHECKS]
    wrong = [name for name in card.destroys if name not in CHANNELS]
    if unknown or wrong:
        raise ValueError(f"transform {card.name}: no such promise or channel: {unknown + wrong}")
    _REGISTRY[card.name] = card


def transform(
    *,
    name: str,
    group: Group,
    summary: str,
    destroys: Sequence[str] = (),
    keeps: Sequence[str] = (),
) -> Callable[[OneText], OneText]:
    """Register ``function(text, generator) -> text``."""

    def register(function: OneText) -> OneText:
        _register(
            TextTransform(name, group, summary, frozenset(destroys), tuple(keeps), one=function)
        )
        return function

    return register


def control(
    *, name: str, summary: str, keeps: Sequence[str] = ()
) -> Callable[[AllTexts], AllTexts]:
    """Register ``function(texts, labels, seed) -> texts``; ``labels`` are the activations'."""

    def register(function: AllTexts) -> AllTexts:
        _register(TextTransform(name, "control", summary, keeps=tuple(keeps), whole=function))
        return function

    return register


def written(
    *,
    name: str,
    summary: str,
    instruction: str,
    destroys: Sequence[str],
    keeps: Sequence[str] = (),
    spares_quotes: bool = False,
    by_line: bool = False,
    first: str | None = None,
    changes_language: bool = False,
) -> None:
    """Register a transform that a language model writes; arguments as in :class:`TextTransform`."""
    _register(
        TextTransform(
            name,
            "kept",
            summary,
            frozenset(destroys),
            tuple(keeps),
            instruction=instruction,
            spares_quotes=spares_quotes,
            by_line=by_line,
            first=first,
            changes_language=changes_language,
        )
    )


def transforms() -> dict[str, TextTransform]:
    """All cards: controls first, then what keeps the meaning, then what cuts it."""
    from nla_audit.probes import transforms as folder  # they import this module

    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    rank = {"control": 0, "kept": 1, "cut": 2}
    return dict(sorted(_REGISTRY.items(), key=lambda item: (rank[item[1].group], item[0])))


def generator_for(seed: int, name: str, text: str) -> np.random.Generator:
    """A generator that depends on seed, transform and text only, not on the order of texts."""
    digest = hashlib.sha256(f"{name}\0{text}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
