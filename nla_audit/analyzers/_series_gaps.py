"""The gap of each activation, model and control, of which a series shows the trend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nla_audit.analyzers._retention import signal
from nla_audit.analyzers._stego_scores import (
    FLOOR,
    OWN,
    REFERENCE,
    UNCHANGED,
    Scores,
    table_of,
)
from nla_audit.probes.registry import Transform

#: The mean over all changes that keep the meaning, a row beside each of them.
ALL = "all changes that keep the meaning"
#: The gap where there is no control.
NO_CONTROL = "no control"


@dataclass(frozen=True)
class Gaps:
    """Gaps of one model against one control: variant → idx → gap, and the cluster of each idx."""

    by_variant: dict[str, dict[str, float]]
    cluster: dict[str, str]


def gaps_of(
    scores: Scores, models: Sequence[str], cards: Mapping[str, Transform]
) -> tuple[dict[str, dict[str, Gaps]], list[str]]:
    """Control → model → gaps. Controls are kept that at least two models have."""
    losses: dict[str, dict[str, Gaps]] = {}
    for model in models:
        for name, texts, ar in _sources(scores, model):
            found = _losses(scores, model, texts, ar, cards)
            if found is not None:
                losses.setdefault(name, {})[model] = found
    own = losses.pop("own", {})
    notes = [
        f"Series: left out, carrying nothing above the floor: {model}."
        for model in models
        if model not in own
    ]
    controls = {
        name: {
            model: _difference(own[model], gap) for model, gap in by_model.items() if model in own
        }
        for name, by_model in losses.items()
    }
    usable = {name: by_model for name, by_model in controls.items() if len(by_model) >= 2}
    if not usable and len(own) >= 2:
        usable = {NO_CONTROL: own}
    return usable, notes


def _sources(scores: Scores, model: str) -> Iterator[tuple[str, str, str]]:
    """``name, texts, ar`` of the pair itself and of its controls."""
    pairs = scores.rows.filter(pl.col("model") == model).select("texts", "ar").unique()
    for texts, ar in sorted(pairs.iter_rows()):
        if texts == OWN and ar == scores.own_ar:
            yield "own", texts, ar
        elif texts == OWN:
            yield f"second AR {ar}", texts, ar
        elif texts == REFERENCE and ar == scores.own_ar:
            yield "reference texts", texts, ar


def _losses(
    scores: Scores, model: str, texts: str, ar: str, cards: Mapping[str, Transform]
) -> Gaps | None:
    """Loss of each change that keeps the meaning, by activation; ``None`` where nothing is carried.

    The loss is a ratio of means, of which one activation has no share of its own; what stands
    for it is the ratio plus the activation's influence on it, which has the same mean and the
    same error (as in :mod:`nla_audit.analyzers._retention`).
    """
    columns, clusters = table_of(scores, model=model, texts=texts, ar=ar)
    if UNCHANGED not in columns or FLOOR not in columns:
        return None
    if not signal(columns, clusters, 0).value > 0:
        return None
    rows = scores.rows.filter(
        (pl.col("model") == model) & (pl.col("texts") == texts) & (pl.col("ar") == ar)
    )
    idx = rows["idx"].unique().sort().to_list()
    carried = columns[UNCHANGED] - columns[FLOOR]
    by_variant = {}
    for name in columns:
        if name not in cards or cards[name].group != "kept":
            continue
        lost = columns[UNCHANGED] - columns[name]
        known = ~(np.isnan(lost) | np.isnan(carried))
        if not known.any() or carried[known].sum() <= 0:
            continue
        ratio = lost[known].sum() / carried[known].sum()
        share = ratio + (lost - ratio * carried) / carried[known].mean()
        by_variant[name] = {idx[row]: float(share[row]) for row in np.flatnonzero(known)}
    cluster = dict(zip(idx, map(str, clusters.tolist()), strict=True))
    return Gaps(_with_mean(by_variant), cluster)


def _with_mean(by_variant: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Besides, the mean over the variants of each activation that has all of them."""
    if not by_variant:
        return {}
    shared = set.intersection(*(set(values) for values in by_variant.values()))
    names = sorted(by_variant)
    mean = {
        idx: float(np.mean([by_variant[name][idx] for name in names])) for idx in sorted(shared)
    }
    return {ALL: mean, **by_variant}


def _difference(own: Gaps, control: Gaps) -> Gaps:
    """Losses of the pair less those of the control, of activations that have both."""
    return Gaps(
        {
            name: {
                idx: value - control.by_variant[name][idx]
                for idx, value in values.items()
                if idx in control.by_variant[name]
            }
            for name, values in own.by_variant.items()
            if name in control.by_variant
        },
        own.cluster,
    )
