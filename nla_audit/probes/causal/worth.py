"""What a claim is worth to the AR: it is deleted, and the rest is read again.

Causal, where a table alone can only correlate: the FVE that goes with the claim. A claim said
twice is worth nothing by this measure, however much it says; deleting both would tell.

No torch here: analyzers hand in a :class:`~nla_audit.nla.reconstructor.Reconstructor` or anything
that scores like one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.nla.fve import BaselineName, Baselines, Floats
from nla_audit.stats import UNKNOWN, Interval, Resampler, derangement
from nla_audit.text.claims import Claim, split_claims

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
        return UNKNOWN
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
