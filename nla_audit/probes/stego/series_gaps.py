"""The gap of each activation, model and control, of which a series shows the trend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nla_audit.probes.stego.floors import VariantScores, weakness
from nla_audit.probes.stego.retention import MEASURED, ZERO, Floor, floor_of, mean_above
from nla_audit.probes.stego.scores import OWN, UNCHANGED, Scores, same_texts, table_of
from nla_audit.probes.transforming.cards import TextTransform

#: The mean over all changes that keep the meaning, a row beside each of them.
ALL = "all changes that keep the meaning"
#: The gap where there is no control.
NO_CONTROL = "no control"


@dataclass(frozen=True)
class Gaps:
    """Gaps of one model against one control: variant → idx → gap, and the cluster of each idx."""

    by_variant: dict[str, dict[str, float]]
    cluster: dict[str, str]


@dataclass(frozen=True)
class SeriesSource:
    """The pair itself or a control: scores of changed texts, of all, and the idx of each row."""

    read: VariantScores
    whole: VariantScores
    idx: list[str]


#: Model → what was read of it.
Sources = Mapping[str, Sequence[SeriesSource]]


def floors_of(sources: Sources) -> list[Floor]:
    """The floors that all sources have: a gap is a difference of losses over the same one."""
    read = [source.read for of_model in sources.values() for source in of_model]
    return [floor for floor in (MEASURED, ZERO) if all(floor in one.floors for one in read)]


def gaps_of(
    read: Sources, cards: Mapping[str, TextTransform], floor: Floor
) -> tuple[dict[str, dict[str, Gaps]], list[str]]:
    """Control → model → gaps over ``floor``. Controls are kept that at least two models have."""
    losses: dict[str, dict[str, Gaps]] = {}
    notes = []
    for model, sources in read.items():
        own = next((source for source in sources if source.read.name == "own"), None)
        found = None if own is None else _losses(own, cards, floor)
        if own is None or found is None:
            notes.append(f"Series: left out, carrying nothing above the floor: {model}.")
            continue
        losses.setdefault("own", {})[model] = found
        for control in sources:
            if control is own:
                continue
            name = control.read.name
            reason = weakness(control.read, own.read)
            compared = _losses(control, cards, floor) if reason is None else None
            if compared is not None:
                losses.setdefault(name, {})[model] = _difference(found, compared)
            elif reason is not None:
                notes.append(f"Series: {model}: {name} is unusable as a control ({reason}).")
    pairs = losses.pop("own", {})
    usable = {name: by_model for name, by_model in losses.items() if len(by_model) >= 2}
    if not usable and len(pairs) >= 2:
        usable = {NO_CONTROL: pairs}
    return usable, notes


def sources_of(scores: Scores, models: Sequence[str]) -> Sources:
    """What was read of each model."""
    return {model: _sources(scores, model) for model in models}


def _sources(scores: Scores, model: str) -> list[SeriesSource]:
    same = same_texts(scores, model)
    pairs = scores.rows.filter(pl.col("model") == model).select("texts", "ar").unique()
    own_ar = scores.own_ars[model]
    sources = []
    for texts, ar in sorted(pairs.iter_rows()):
        if texts == OWN:
            name = "own" if ar == own_ar else f"second AR {ar}"
        elif ar == own_ar:
            name = "reference texts"
        else:
            continue
        whole = VariantScores(name, *table_of(scores, model=model, texts=texts, ar=ar))
        changed = whole
        if same.height:
            table = table_of(scores, model=model, texts=texts, ar=ar, changed_only=True)
            changed = VariantScores(name, *table)
        rows = scores.rows.filter(
            (pl.col("model") == model) & (pl.col("texts") == texts) & (pl.col("ar") == ar)
        )
        if UNCHANGED in whole.columns and not np.isnan(whole.columns[UNCHANGED]).all():
            sources.append(SeriesSource(changed, whole, rows["idx"].unique().sort().to_list()))
    return sources


def _losses(source: SeriesSource, cards: Mapping[str, TextTransform], floor: Floor) -> Gaps | None:
    """Loss of each change that keeps the meaning, by activation; ``None`` where nothing is carried.

    Of a change it is that of the texts that it changed; in the mean over all changes, one that
    left a text as it was costs it nothing.
    """
    if not mean_above(source.whole.columns, source.whole.clusters, floor)[0] > 0:
        return None
    each = _by_variant(source.read, source.idx, cards, floor)
    mean = _mean(_by_variant(source.whole, source.idx, cards, floor))
    cluster = dict(zip(source.idx, map(str, source.whole.clusters.tolist()), strict=True))
    return Gaps({ALL: mean, **each} if mean else each, cluster)


def _by_variant(
    source: VariantScores, idx: list[str], cards: Mapping[str, TextTransform], floor: Floor
) -> dict[str, dict[str, float]]:
    """Variant → idx → loss.

    The loss is a ratio of means, of which one activation has no share of its own; what stands
    for it is the ratio plus the activation's influence on it, which has the same mean and the
    same error (as in :mod:`nla_audit.probes.stego.retention`).
    """
    columns = source.columns
    level = floor_of(columns, floor)
    assert level is not None
    carried = columns[UNCHANGED] - level
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
    return by_variant


def _mean(by_variant: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean over the variants of each activation that has all of them."""
    if not by_variant:
        return {}
    shared = set.intersection(*(set(values) for values in by_variant.values()))
    names = sorted(by_variant)
    return {
        idx: float(np.mean([by_variant[name][idx] for name in names])) for idx in sorted(shared)
    }


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
