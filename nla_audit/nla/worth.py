"""What parts of an explanation are worth to the AR: texts are edited and read again.

Two questions, both causal where a table alone can only correlate:

- *What is a claim worth?* Delete it and read what is left: the FVE that goes with it. A claim
  said twice is worth nothing by this measure, however much it says; deleting both would tell.
- *What did a shorter explanation lose by saying less, by other words, by saying other things?*
  Make the reference shorter in these three ways one after another; what each step changes
  depends on the order of steps, so it is averaged over all orders (Shapley 1953). The three parts
  sum to the whole change exactly, for every activation.

No torch here: analyzers hand in a :class:`~nla_audit.nla.reconstructor.Reconstructor` or anything
that scores like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import factorial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.errors import UserError
from nla_audit.nla.fve import BaselineName, Baselines, Floats
from nla_audit.stats import Interval, Resampler, derangement
from nla_audit.text.claims import Claim, split_claims

#: The ways in which a shorter explanation differs from the reference, in the order of the bits
#: of a subset: 0b001 is omission alone, 0b110 rewording and additions.
PARTS = ("omission", "rewording", "additions")
SUBSETS = 2 ** len(PARTS)

_OMISSION, _REWORDING, _ADDITIONS = (1 << place for place in range(len(PARTS)))
_SENTENCE_END = ".!?。！？"
_LINKS = ",;:，；：—–"
_LINE_BREAK = re.compile(r"\n\s*\Z")

_CLAIM_COLUMNS: dict[str, pl.DataType] = {
    "row": pl.Int64(),
    "claim": pl.Int64(),
    "start": pl.Int64(),
    "end": pl.Int64(),
    "text": pl.String(),
    "kind": pl.String(),
    "fve": pl.Float64(),
    "fve_without": pl.Float64(),
    "worth": pl.Float64(),
    "worth_elsewhere": pl.Float64(),
    "reason": pl.String(),
}


class TextScores(Protocol):
    """``[n]`` FVE, NaN where ``reasons`` says why there is none."""

    @property
    def fve(self) -> Floats: ...
    @property
    def reasons(self) -> list[str | None]: ...


class Scorer(Protocol):
    """What is asked of an AR: :meth:`nla_audit.nla.reconstructor.Reconstructor.score`."""

    def score(
        self,
        texts: Sequence[str | None],
        activations: npt.ArrayLike,
        *,
        baselines: Baselines | None = None,
        baseline_name: BaselineName = "raw_variance",
    ) -> TextScores: ...


def without(text: str, start: int, end: int) -> str:
    """``text`` without ``text[start:end]``, its white space and punctuation tidied at the cut.

    A sentence that loses its last claim keeps its full stop; a line that loses all of its text
    goes with it. Everything else stays as it is, so that nothing but the claim is missing.
    """
    left, removed, right = text[:start], text[start:end], text[end:]
    break_between = (
        "\n" if _LINE_BREAK.search(left) or right.lstrip(" \t").startswith("\n") else " "
    )
    left, right = left.rstrip(), right.lstrip()
    last = removed.rstrip()[-1:]
    if (
        left
        and left[-1] in _LINKS
        and (not right or last in _SENTENCE_END or break_between == "\n")
    ):
        left = left.rstrip(_LINKS + " ") + (last if last and last in _SENTENCE_END else "")
    return f"{left}{break_between}{right}".strip()


def claim_worth(
    scorer: Scorer,
    texts: Sequence[str | None],
    activations: npt.NDArray[Any],
    *,
    baselines: Baselines,
    baseline_name: BaselineName = "raw_variance",
    split: Callable[[str], Sequence[Claim]] = split_claims,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """FVE that each claim of each text carries by itself: of the text, less that without it.

    The control is the same deletion read against *another* activation: what it gives is not
    about this activation (a shorter text, a text the AR is less used to), and is 0 on average
    where deleting does nothing of the kind. It costs no reading, as the texts are the same.

    Args:
        scorer: the AR.
        texts: ``[n]`` explanations; ``None`` and claimless ones have no rows in the result.
        activations: ``[n, d_model]``, raw.
        baselines: of the whole table, so that worths of different rows are comparable.
        split: text → claims.
        groups: ``[n]`` activation or document of each row; the other activation is of another
            one. By default each row is of its own.
        seed: of the choice of other activations.

    Returns:
        One row a claim: ``row`` (place in ``texts``), ``claim`` (its number in the text),
        ``start``, ``end``, ``text``, ``kind``, ``fve`` (whole text), ``fve_without``, ``worth``
        (null with a ``reason`` where either text has no score), ``worth_elsewhere`` (the control;
        null where no other activation is usable).

    Raises:
        UserError: as ``scorer``'s.
    """
    found = [
        (row, text, number, claim)
        for row, text in enumerate(texts)
        if text is not None
        for number, claim in enumerate(split(text))
    ]
    if not found:
        return pl.DataFrame(schema=_CLAIM_COLUMNS)
    of = np.array([row for row, *_ in found])
    asked = [text for _, text, *_ in found]
    asked += [without(text, claim.start, claim.end) for _, text, _, claim in found]
    partners = derangement(np.arange(len(texts)) if groups is None else groups, seed)
    has_partner = partners[of] >= 0
    elsewhere = np.where(has_partner, partners[of], of)
    scores = scorer.score(
        asked * 2,  # texts that repeat are read once
        activations[np.concatenate([of, of, elsewhere, elsewhere])],
        baselines=baselines,
        baseline_name=baseline_name,
    )
    fve, fve_without, fve_there, fve_without_there = np.split(np.asarray(scores.fve), 4)
    reasons = [
        whole or cut
        for whole, cut in zip(
            scores.reasons[: len(found)],
            scores.reasons[len(found) : 2 * len(found)],
            strict=True,
        )
    ]
    return pl.DataFrame(
        {
            "row": of,
            "claim": [number for *_, number, _ in found],
            "start": [claim.start for *_, claim in found],
            "end": [claim.end for *_, claim in found],
            "text": [claim.text for *_, claim in found],
            "kind": [claim.kind for *_, claim in found],
            "fve": fve,
            "fve_without": fve_without,
            "worth": fve - fve_without,
            "worth_elsewhere": np.where(has_partner, fve_there - fve_without_there, np.nan),
            "reason": reasons,
        },
        schema=_CLAIM_COLUMNS,
        nan_to_null=True,
    )


def cheap_first(
    worth: npt.ArrayLike,
    kept: npt.ArrayLike,
    rows: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    seed: int = 0,
) -> Interval:
    """How often a dropped claim was worth less than a kept claim of the same explanation.

    Over all pairs of a dropped and a kept claim within an explanation, ties counting half; 0.5 is
    what dropping at random gives, 1 is cheap claims always going first.

    Args:
        worth: ``[claims]``; NaN is left out.
        kept: ``[claims]`` probability that the claim is still made.
        rows: ``[claims]`` which explanation a claim is of.
        clusters: ``[claims]`` activation or document, drawn together.
    """
    value, keep = np.asarray(worth, dtype=np.float64), np.asarray(kept, dtype=np.float64)
    of, cluster = np.asarray(rows), np.asarray(clusters)
    known = ~(np.isnan(value) | np.isnan(keep))
    order = np.argsort(of[known], kind="stable")
    value, keep, of = value[known][order], keep[known][order], of[known][order]
    cluster = cluster[known][order]
    if len(value) == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    cheaper, pairs, labels = [], [], []
    for start, end in pairwise([0, *(np.flatnonzero(of[1:] != of[:-1]) + 1), len(of)]):
        own, still = value[start:end], keep[start:end]
        weight = (1 - still)[:, None] * still[None, :]  # dropped × kept
        np.fill_diagonal(weight, 0.0)
        less = (own[:, None] < own[None, :]) + 0.5 * (own[:, None] == own[None, :])
        cheaper.append((weight * less).sum())
        pairs.append(weight.sum())
        labels.append(cluster[start])
    return Resampler(np.array(labels), seed=seed).ratio(cheaper, pairs)


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
