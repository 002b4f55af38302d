"""What ``multiscale`` says of a model's curve: alone, and against the reference's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nla_audit.analyzers._curve_numbers import HEADLINE, Numbers, after_the_peak, numbers_of
from nla_audit.analyzers._curves import Curve, curves_of
from nla_audit.stats import Interval, percentile_limits
from nla_audit.table.prefix_table import PrefixTable

Row = dict[str, float | None]

_NOT_WITHOUT_A_CURVE = (
    "n",
    "is_means",
    "mean_full_tokens",
    "lost_after_peak",
    "lost_after_peak_low",
    "lost_after_peak_high",
)


@dataclass(frozen=True)
class Study:
    """One model's curve in one unit, and what is read off it."""

    curve: Curve
    numbers: Numbers


def studies_of(table: PrefixTable, unit: str, seed: int) -> dict[str, Study]:
    """Model → study, of the models that have lengths in ``unit``."""
    curves = curves_of(table, unit)
    return {model: Study(curve, numbers_of(curve, seed)) for model, curve in curves.items()}


def summary_of(study: Study | None, seed: int) -> Row:
    """The headline's row; all of it null where there is no curve in tokens."""
    summary: Row = {}
    for name in HEADLINE:
        value = None if study is None else study.numbers.values[name]
        ends = None if study is None or value is None else study.numbers.limits[name]
        summary[name] = value
        summary[f"{name}_low"], summary[f"{name}_high"] = ends or (None, None)
    if study is None:
        return summary | dict.fromkeys(_NOT_WITHOUT_A_CURVE)
    curve = study.curve
    lost, each = after_the_peak(curve, seed)
    summary["n"] = None if curve.is_means else float(len(curve.idx))
    summary["is_means"] = float(curve.is_means)
    summary["mean_full_tokens"] = curve.mean_length() if curve.knows_length else None
    summary |= lost.entries("lost_after_peak")
    if len(each):
        draw = curve.resampler(seed)
        for name, answer in (("hurts", each > 0), ("helps", each < 0)):
            share = draw.share(np.where(np.isnan(each), np.nan, answer))
            summary |= share.entries(f"longer_{name}_share")
    return summary


def on_shared_activations(own: Study, other: Study, seed: int) -> tuple[Study, Study] | None:
    """Both on the activations that both have; ``None`` for means, or without any.

    On the same activations the bootstrap draws the same ones for both, which pairs them.
    """
    shared = set(own.curve.idx) & set(other.curve.idx)  # means have none
    return (_only(own, shared, seed), _only(other, shared, seed)) if shared else None


def _only(study: Study, idx: set[str], seed: int) -> Study:
    if len(idx) == len(study.curve.idx):
        return study
    curve = study.curve.only(idx)
    return Study(curve, numbers_of(curve, seed))


def against(own: Study, other: Study, pair: tuple[Study, Study] | None) -> Row:
    """Area and full FVE less the reference's: within activations where there is a ``pair``."""
    found: Row = {}
    for name in ("area", "full_fve"):
        change = f"{name}_change"
        found |= dict.fromkeys((change, f"{change}_low", f"{change}_high"))
        first, second = (study.numbers.values[name] for study in pair or (own, other))
        if None in (own.numbers.values[name], other.numbers.values[name]):
            continue
        if first is None or second is None:
            continue
        found[change] = first - second
        draws = [study.numbers.draws[name] for study in pair or () if study.numbers.draws]
        if len(draws) == 2:
            limits = percentile_limits(draws[0] - draws[1])
            found |= Interval(first - second, *limits, 0).entries(change)
    return found


def changes_by_length(
    own: Curve, other: Curve, pair: tuple[Study, Study] | None, seed: int
) -> list[dict[str, Any]]:
    """FVE less the reference's at each length that both curves have, within activations.

    Of two models' means, the difference of the means; of means and activations, nothing.
    """
    lengths = np.intersect1d(own.lengths, other.lengths)
    if pair is None:
        if not (own.is_means and other.is_means):
            return []
        means = [curve.mean()[np.searchsorted(curve.lengths, lengths)] for curve in (own, other)]
        return [
            {"model": own.model, "length": int(length), "fve_change": float(one - two)}
            for length, one, two in zip(lengths, *means, strict=True)
        ]
    curves = [study.curve for study in pair]
    draw = curves[0].resampler(seed)
    rows = []
    for length in lengths:
        one, two = (curve.values[:, np.searchsorted(curve.lengths, length)] for curve in curves)
        change = draw.mean(one - two)
        rows.append(
            {
                "model": own.model,
                "length": int(length),
                **change.entries("fve_change"),
                "activations": change.n,
            }
        )
    return rows
