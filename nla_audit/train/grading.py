"""Gradings: at which ends of a response its text is read and rewarded, and what segments cost.

A grading is a section of the recipe with a ``kind``, a card and two methods: where to stop
sampling, and the ends of what was sampled. It lives in a file of its own in
:mod:`nla_audit.train.gradings`, where it is found by itself; nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from nla_audit.train.complaints import complaint
from nla_audit.train.section import RecipeSection

if TYPE_CHECKING:
    from nla_audit.train.responses import Responses

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GradingCard:
    """What a grading is, for help and reports.

    Attributes:
        title: a few words.
        sentence: what is rewarded.
    """

    title: str
    sentence: str


@dataclass(frozen=True)
class Ends:
    """Graded ends of ``n`` responses, at most ``m`` each, in order; the last is the whole text.

    Attributes:
        stops: ``[n, m]`` tokens of the response up to each end; 0 where it was not reached.
        texts: ``[n][m]`` the explanation up to there, ``None`` where there is none to read.
        weights: ``[n, m]`` what the reward for the text is multiplied by.
        penalties: ``[n, m]`` λ of the segment that ends there.
    """

    stops: Integers
    texts: list[list[str | None]]
    weights: Floats
    penalties: Floats

    @property
    def is_reached(self) -> npt.NDArray[np.bool_]:
        """``[n, m]``."""
        return self.stops > 0


@dataclass(frozen=True)
class Stopping:
    """Where sampling stops, for each group of a step; at most one of the two is not ``None``.

    Attributes:
        tokens: ``[groups]`` of the explanation.
        claims: ``[groups]`` of the explanation.
    """

    tokens: Sequence[int] | None = None
    claims: Sequence[int] | None = None


class Grading(RecipeSection):
    """Settings of a grading; subclasses say what it does."""

    kind: str
    """Which grading."""

    def stopping(self, groups: int, rng: np.random.Generator) -> Stopping:
        """Where to stop sampling each of a step's groups; by default at the cap only."""
        return Stopping()

    def ends(self, responses: Responses, length_penalty: float) -> Ends:
        """The graded ends of what was sampled.

        Args:
            length_penalty: λ of the run.
        """
        raise NotImplementedError

    def caution(self, max_new_tokens: int) -> str | None:
        """What is likely to go wrong under a cap of so many tokens, in half a sentence."""
        return None

    def separator(self) -> str | None:
        """The token by which the AV ends segments, where it has one."""
        return None

    def most_separators(self) -> int:
        """How many of them count."""
        return 0


Kind = TypeVar("Kind", bound=Grading)
_KINDS: dict[str, type[Grading]] = {}
_CARDS: dict[str, GradingCard] = {}


def grading(title: str, sentence: str) -> Callable[[type[Kind]], type[Kind]]:
    """Register a grading under the default of its ``kind``, with its card."""

    def register(made: type[Kind]) -> type[Kind]:
        name = made.model_fields["kind"].default
        _KINDS[name], _CARDS[name] = made, GradingCard(title, sentence)
        return made

    return register


@cache
def _found() -> None:
    """Import every file of the folder; each registers itself."""
    package = importlib.import_module("nla_audit.train.gradings")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def cards() -> dict[str, GradingCard]:
    """The cards of all gradings, by kind."""
    _found()
    return dict(sorted(_CARDS.items()))


def read_grading(given: Any) -> Grading:
    """A grading from a mapping with ``kind``, or from a kind alone.

    Raises:
        ValueError: no such grading, or settings it does not take.
    """
    _found()
    if isinstance(given, Grading):
        return given
    settings = {"kind": given} if isinstance(given, str) else given
    if not isinstance(settings, dict) or not isinstance(settings.get("kind"), str):
        raise ValueError(f"rl.grading: give its kind, one of {', '.join(sorted(_KINDS))}")
    kind = settings["kind"]
    if kind not in _KINDS:
        near = get_close_matches(kind, _KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(_KINDS))}"
        raise ValueError(f"rl.grading: no grading {kind}; {hint}")
    try:
        return _KINDS[kind].model_validate(settings)
    except ValidationError as error:
        raise ValueError(complaint(error, _KINDS[kind], "rl.grading.")) from None


def same_everywhere(value: float, responses: Responses, ends: int) -> Floats:
    """``[n, ends]`` of one value."""
    return np.full((len(responses), ends), float(value))
