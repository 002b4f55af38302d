"""What a shorter explanation lost by saying less, by other words, and by saying other things.

The reference is made shorter in these three ways one after another, and every text on the way is
read by the AR. What a step changes depends on the steps before it, so it is averaged over all
orders (Shapley 1953). The three parts sum to the whole change exactly, for every activation.

No torch here, as in :mod:`nla_audit.probes.causal.worth`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.errors import UserError
from nla_audit.nla.fve import BaselineName, Baselines, Floats
from nla_audit.probes.causal.worth import Scorer, without

#: The ways in which a shorter explanation differs from the reference, in the order of the bits
#: of a subset: 0b001 is omission alone, 0b110 rewording and additions.
PARTS = ("omission", "rewording", "additions")
SUBSETS = 2 ** len(PARTS)

_OMISSION, _REWORDING, _ADDITIONS = (1 << place for place in range(len(PARTS)))


@dataclass(frozen=True)
class Difference:
    """How a shorter explanation differs from the reference, in spans of the reference.

    Spans must not overlap.

    Attributes:
        dropped: ``(start, end)`` of claims that are no longer made.
        reworded: ``(start, end, wording)`` of claims that are still made, in other words.
        added: ``(place, text)`` of what the reference does not say; ``place`` is where in the
            reference it would stand, the end of the claim it follows.
    """

    dropped: tuple[tuple[int, int], ...] = ()
    reworded: tuple[tuple[int, int, str], ...] = ()
    added: tuple[tuple[int, str], ...] = ()


def difference_from(
    claims: Sequence[tuple[int, int]], segments: Sequence[tuple[str, int | None]]
) -> Difference:
    """The difference that an alignment found.

    Args:
        claims: spans of the reference's claims, in order.
        segments: the shorter explanation cut into pieces, in order; each with the number of the
            claim that it says again, ``None`` where it says something else.

    Returns:
        Claims without a segment as dropped; the others reworded into their segments; segments
        of no claim added behind the claim said before them, at the start where there is none.
    """
    said: dict[int, list[str]] = {}
    added = []
    place = 0
    for text, claim in segments:
        if claim is None:
            added.append((place, text))
        else:
            said.setdefault(claim, []).append(text)
            place = claims[claim][1]
    return Difference(
        dropped=tuple(span for number, span in enumerate(claims) if number not in said),
        reworded=tuple(
            (*span, " ".join(said[number])) for number, span in enumerate(claims) if number in said
        ),
        added=tuple(added),
    )


def counterfactuals(reference: str, shorter: str, difference: Difference) -> list[str]:
    """The eight texts between ``reference`` and ``shorter``, by subset (see :data:`PARTS`).

    The first is the reference and the last the shorter explanation, both exactly as they are, so
    that the parts add up to the change that was really seen; what ``difference`` does not say
    (order, links between claims) is in the last step of every order, and so falls to the three
    parts alike.

    Raises:
        ValueError: spans that overlap or leave the reference.
    """
    texts = [_edited(reference, difference, subset) for subset in range(SUBSETS - 1)]
    return [*texts, shorter]


def _edited(reference: str, difference: Difference, subset: int) -> str:
    changes: list[tuple[int, int, str | None]] = []
    if subset & _OMISSION:
        changes += [(start, end, None) for start, end in difference.dropped]
    if subset & _REWORDING:
        changes += list(difference.reworded)
    spans = sorted([*difference.dropped, *((start, end) for start, end, _ in difference.reworded)])
    if any(a[1] > b[0] for a, b in pairwise(spans)) or any(
        not 0 <= start <= end <= len(reference) for start, end in spans
    ):
        raise ValueError("spans of a difference overlap or leave the reference")
    if subset & _ADDITIONS:
        # Behind the claim that ends there: sorted after it, and so put in before it is edited.
        changes += [(place, place, text) for place, text in difference.added]
    changes.sort(key=lambda change: change[:2])
    text = reference
    # From the end, so that places to the left stay true; of several additions at one place the
    # last goes in first.
    for start, end, wording in reversed(changes):
        if wording is None:
            text = without(text, start, end)
        elif start == end:
            text = f"{text[:start].rstrip()} {wording} {text[start:].lstrip()}".strip()
        else:
            text = text[:start] + wording + text[end:]
    return text


def shapley(values: Floats) -> Floats:
    """Each part's change, averaged over all orders in which the parts can come.

    Args:
        values: ``[n, 8]``, by subset (see :data:`PARTS`); NaN makes its row NaN.

    Returns:
        ``[n, 3]``; every row sums to ``values[:, 7] - values[:, 0]``.
    """
    count = len(PARTS)
    out = np.zeros((len(values), count))
    for part in range(count):
        for before in range(SUBSETS):
            if before >> part & 1:
                continue
            size = before.bit_count()
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            out[:, part] += weight * (values[:, before | 1 << part] - values[:, before])
    return out


def split_change(
    scorer: Scorer,
    references: Sequence[str | None],
    shorter: Sequence[str | None],
    differences: Sequence[Difference],
    activations: npt.NDArray[Any],
    *,
    baselines: Baselines,
    baseline_name: BaselineName = "raw_variance",
) -> pl.DataFrame:
    """Split each FVE change between omission, rewording and additions.

    Args:
        scorer: the AR.
        references: ``[n]`` explanations by the reference model.
        shorter: ``[n]`` explanations of the same activations by another model.
        differences: ``[n]`` how the second differs from the first.
        activations: ``[n, d_model]``, raw.
        baselines: of the whole table.

    Returns:
        One row each: ``row``, ``fve_reference``, ``fve``, ``change``, and :data:`PARTS`, which
        sum to ``change``; null with a ``reason`` where any of the eight texts has no score.

    Raises:
        UserError: the numbers of texts and activations differ; or as ``scorer``'s.
    """
    if not len(references) == len(shorter) == len(differences) == len(activations):
        raise UserError(
            f"{len(references)} references, {len(shorter)} shorter texts, {len(differences)} "
            f"differences and {len(activations)} activations: give one of each a row"
        )
    asked: list[str | None] = []
    for reference, short, difference in zip(references, shorter, differences, strict=True):
        if reference is None or short is None:
            asked += [None] * SUBSETS
        else:
            asked += counterfactuals(reference, short, difference)
    scores = scorer.score(
        asked,
        np.repeat(activations, SUBSETS, axis=0),
        baselines=baselines,
        baseline_name=baseline_name,
    )
    values = np.asarray(scores.fve, dtype=np.float64).reshape(-1, SUBSETS)
    values = np.where(np.isnan(values).any(axis=1, keepdims=True), np.nan, values)
    parts = shapley(values)
    reasons = [
        next((why for why in scores.reasons[start : start + SUBSETS] if why is not None), None)
        for start in range(0, len(asked), SUBSETS)
    ]
    return pl.DataFrame(
        {
            "row": np.arange(len(values)),
            "fve_reference": values[:, 0],
            "fve": values[:, -1],
            "change": values[:, -1] - values[:, 0],
            **{name: parts[:, place] for place, name in enumerate(PARTS)},
            "reason": pl.Series(reasons, dtype=pl.String),
        },
        nan_to_null=True,
    )
