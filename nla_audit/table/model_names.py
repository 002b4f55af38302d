"""What a model's name says: its length penalty, and whether it saw reinforcement learning."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

#: The pseudo-model under which the reference's own second sample is read; no model is called so.
RESAMPLING_FLOOR = "resampling floor"
#: The warm start goes by many names; none of them has a length penalty, whatever a column says.
_NO_RL = re.compile(
    r"(?:av[ _-]?)?(?:base|sft|warm[ _-]?start(?:ed)?)(?:[ _-]?(?:av|model|lora))?", re.IGNORECASE
)
_LENGTH_PENALTY = re.compile(
    r"(?<![^\W\d_])(?<!top_)(?<!top-)"  # "p" must not end a word, nor be the p of top-p sampling
    r"(?:"
    r"(?:lp|λ|lambda|lam|len(?:gth)?[ _-]?pen(?:alty)?)[ =_:-]*"
    r"(?P<value>(?:\d+(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?)"
    # A bare p before a whole number other than 0 numbers something else: a prompt, a part.
    r"|p[=_]?(?P<p_value>0|\d*\.\d+(?:e[+-]?\d+)?|\d+e-\d+)"
    r")"
    r"(?![\d.]*\d)(?![^\W_])",
    re.IGNORECASE,
)


def is_without_rl(name: str) -> bool:
    """Whether ``name`` is one of the usual names of a model before reinforcement learning."""
    return _NO_RL.fullmatch(name.strip()) is not None


def length_penalty_of(name: str) -> float | None:
    """The length penalty that a model's name states (``p0.006``, ``λ=1e-3``), or ``None``.

    A name that states two different ones states none.
    """
    if is_without_rl(name):
        return None
    values = {float(match["value"] or match["p_value"]) for match in _LENGTH_PENALTY.finditer(name)}
    return values.pop() if len(values) == 1 else None


def ordered(length_penalties: Mapping[str, float | None]) -> tuple[str, ...]:
    """Models without RL first, then by length penalty, unknown ones last, then by name."""

    def key(name: str) -> tuple[int, float, str]:
        if is_without_rl(name):
            return (0, 0.0, name)
        penalty = length_penalties[name]
        return (2, 0.0, name) if penalty is None else (1, penalty, name)

    return tuple(sorted(length_penalties, key=key))


def default_reference(models: Iterable[str], length_penalties: Mapping[str, float | None]) -> str:
    """The model trained with RL at the smallest known length penalty, else the first model.

    ``models`` is in the order of :func:`ordered`.
    """
    names = list(models)
    penalties = {name: length_penalties[name] for name in names if not is_without_rl(name)}
    return min(
        (name for name in penalties if penalties[name] is not None),
        key=lambda name: _or_infinite(penalties[name]),
        default=names[0],
    )


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
