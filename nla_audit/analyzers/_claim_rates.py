"""How often what an explanation names or quotes is absent from the source, kind by kind.

The share of all claims that are absent changes with what is claimed: a model that stops naming
people, who are rarely in the source, is not more often right. So each kind is compared with
itself, and all of them at the reference's mix of kinds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from nla_audit.stats import Interval, Resampler
from nla_audit.table.pairing import column, resampler

#: Kinds of claim, and what they are called in sentences. On planted truth the share that is
#: absent is read within 2 points for each (benchmarks/verdict_coverage.md).
KINDS = {"citations": "quotations", "names": "names", "numbers": "numbers"}
#: Fewer claims of a kind than this, in a model or the reference, carry no sentence about it.
MIN_CLAIMS = 100
#: Fewer absent claims than this, and the bootstrap of their change per 100 words may cover less
#: than 90 % (benchmarks/verdict_coverage.md).
MIN_ABSENT = 30
#: Share of the reference's claims that the kinds with enough claims must make up.
MIN_COVERED = 0.8
#: Where the share of predictions among quoted spans differs by more than this, so does the share
#: of predictions that the rule takes for quotations of the source, and they are not compared.
MAX_PREDICTED_SHIFT = 0.10

_INTERVALS = (
    "unsupported_change",
    "unsupported_per_100_words_change",
    "unsupported_rate_change",
    "same_mix_change",
    "mix_change",
)
#: What both come to on the activations of a change, each with its chance level.
_LEVELS = ("unsupported_per_explanation", "unsupported_per_100_words")
CHANGES = {
    "model": pl.String,
    "activations": pl.Float64,
    **{f"{name}{end}": pl.Float64 for name in _INTERVALS for end in ("", "_low", "_high")},
    **dict.fromkeys(
        (
            f"{name}{whose}"
            for name in (*_LEVELS, *(f"chance_{level}" for level in _LEVELS))
            for whose in ("", "_reference")
        ),
        pl.Float64,
    ),
    "predicted_share": pl.Float64,
    "predicted_share_reference": pl.Float64,
    "kinds_compared": pl.String,
    "same_mix_rate": pl.Float64,
    "same_mix_rate_reference": pl.Float64,
    "same_mix_chance_rate": pl.Float64,
}


BY_KIND = {
    "model": pl.String,
    "kind": pl.String,
    "claims": pl.Float64,
    "claims_reference": pl.Float64,
    "absent_rate": pl.Float64,
    "absent_rate_reference": pl.Float64,
    "absent_chance_rate": pl.Float64,
    "change": pl.Float64,
    "change_low": pl.Float64,
    "change_high": pl.Float64,
}


def change_tables(
    measures: pl.DataFrame, models: tuple[str, ...], reference: str, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each model against the reference on the activations whose source is known.

    ``unsupported_rate_change`` (of the share of all claims that are absent) is the sum of
    ``same_mix_change``, which is left when both make the reference's mix of kinds, and
    ``mix_change``, where every kind that is claimed has enough claims to be compared.
    ``kinds_compared`` names the kinds that have.

    Returns:
        The changes over all claims (:data:`CHANGES`), and those of each kind (:data:`BY_KIND`).
    """
    counted = [
        "unsupported",
        "unsupported_by_chance",
        "checked_items",
        "words",
        "predictions",
        *(f"checked_{kind}" for kind in KINDS),
        *(f"held_{kind}" for kind in KINDS),
        *(f"held_{kind}_by_chance" for kind in KINDS),
    ]
    means = (
        measures.filter(pl.col("unsupported").is_not_null())
        .group_by("model", "idx")
        .agg(pl.col("doc_id").first(), *(pl.col(name).mean() for name in counted))
    )
    of_reference = means.filter(pl.col("model") == reference).select(
        "idx", *(pl.col(name).alias(f"{name}_reference") for name in counted)
    )
    rows, by_kind = [], []
    for model in models:
        if model == reference:
            continue
        both = means.filter(pl.col("model") == model).join(of_reference, on="idx").sort("idx")
        rows.append({"model": model, **_change(both, seed)})
        if both.height:
            by_kind += [{"model": model, **row} for row in _by_kind(both, resampler(both, seed))]
    known = pl.col(pl.Float64).fill_nan(None)
    return (
        pl.DataFrame(rows, schema=CHANGES).with_columns(known),
        pl.DataFrame(by_kind, schema=BY_KIND).with_columns(known),
    )


def _change(both: pl.DataFrame, seed: int) -> dict[str, object]:
    if both.height == 0:
        return {"activations": 0.0}
    draw = resampler(both, seed)
    own, other = column(both, "unsupported"), column(both, "unsupported_reference")
    items, other_items = column(both, "checked_items"), column(both, "checked_items_reference")
    words, other_words = column(both, "words") / 100, column(both, "words_reference") / 100
    return {
        "activations": float(both.height),
        **draw.mean(own - other).entries("unsupported_change"),
        **_per_words(own, words, other, other_words, draw).entries(
            "unsupported_per_100_words_change"
        ),
        **draw.ratio_difference(own, items, other, other_items).entries("unsupported_rate_change"),
        **_levels(both, draw),
        **_same_mix(both, draw),
    }


def _per_words(
    own: np.ndarray,
    words: np.ndarray,
    other: np.ndarray,
    other_words: np.ndarray,
    draw: Resampler,
) -> Interval:
    """Change of claims per 100 words; without an interval where few on one side only are absent."""
    change = draw.ratio_difference(own, words, other, other_words)
    fewer, more = sorted((float(own.sum()), float(other.sum())))
    is_unsure = 0 < fewer < MIN_ABSENT or 0 < more < MIN_ABSENT
    return replace(change, low=np.nan, high=np.nan) if is_unsure else change


def _levels(both: pl.DataFrame, draw: Resampler) -> dict[str, object]:
    row: dict[str, object] = {}
    for whose in ("", "_reference"):
        words = column(both, f"words{whose}") / 100
        for name, prefix in (("unsupported", ""), ("unsupported_by_chance", "chance_")):
            counted = column(both, f"{name}{whose}")
            per_explanation = draw.mean(counted).value
            row[f"{prefix}unsupported_per_explanation{whose}"] = per_explanation
            row[f"{prefix}unsupported_per_100_words{whose}"] = draw.ratio(counted, words).value
    return row


def _by_kind(both: pl.DataFrame, draw: Resampler) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for kind, name in KINDS.items():
        checked, absent = _counts(both, kind, "")
        other_checked, other_absent = _counts(both, kind, "_reference")
        by_chance = checked - column(both, f"held_{kind}_by_chance")
        change = draw.ratio_difference(absent, checked, other_absent, other_checked)
        rows.append(
            {
                "kind": name,
                "claims": checked.sum(),
                "claims_reference": other_checked.sum(),
                "absent_rate": draw.ratio(absent, checked).value,
                "absent_rate_reference": draw.ratio(other_absent, other_checked).value,
                "absent_chance_rate": draw.ratio(by_chance, checked).value,
                **change.entries("change"),
            }
        )
    return rows


def _counts(both: pl.DataFrame, kind: str, whose: str) -> tuple[np.ndarray, np.ndarray]:
    """Claims of ``kind`` that were checked, and those of them that are absent, `[activations]`."""
    checked = column(both, f"checked_{kind}{whose}")
    return checked, checked - column(both, f"held_{kind}{whose}")


def _same_mix(both: pl.DataFrame, draw: Resampler) -> dict[str, object]:
    """Both rates at the reference's mix of those kinds that have enough claims."""
    predicted = {whose: _predicted_share(both, whose) for whose in ("", "_reference")}
    row: dict[str, object] = {
        f"predicted_share{whose}": share for whose, share in predicted.items()
    }
    kinds = [
        kind
        for kind in KINDS
        if all(_total(both, f"checked_{kind}{whose}") >= MIN_CLAIMS for whose in predicted)
    ]
    shift = abs((predicted[""] or 0.0) - (predicted["_reference"] or 0.0))
    if shift > MAX_PREDICTED_SHIFT and "citations" in kinds:
        kinds.remove("citations")
    row["kinds_compared"] = ", ".join(KINDS[kind] for kind in kinds)
    everything = _total(both, "checked_items_reference")
    weights = {kind: _total(both, f"checked_{kind}_reference") for kind in kinds}
    covered = sum(weights.values())
    if not kinds or covered < MIN_COVERED * everything:
        return row
    rates = {"": 0.0, "_reference": 0.0}
    by_chance, influence = 0.0, np.zeros(both.height)
    for kind in kinds:
        weight = weights[kind] / covered
        for whose, sign in (("", 1.0), ("_reference", -1.0)):
            checked, absent = _counts(both, kind, whose)
            rate = absent.sum() / checked.sum()
            rates[whose] += weight * rate
            influence += sign * weight * (absent - rate * checked) / checked.mean()
        checked = column(both, f"checked_{kind}")
        held = column(both, f"held_{kind}_by_chance")
        known = ~np.isnan(held)
        by_chance += weight * (1 - held[known].sum() / max(checked[known].sum(), 1.0))
    within = draw.mean(influence + rates[""] - rates["_reference"])
    row |= {f"same_mix_rate{whose}": rate for whose, rate in rates.items()}
    row |= {"same_mix_chance_rate": by_chance, **within.entries("same_mix_change")}
    others = [kind for kind in KINDS if kind not in kinds]
    if all(_total(both, f"checked_{kind}{whose}") == 0 for kind in others for whose in predicted):
        row |= _mix(both, draw, influence, kinds).entries("mix_change")
    return row


def _mix(both: pl.DataFrame, draw: Resampler, within: np.ndarray, kinds: list[str]) -> Interval:
    """What is left of the change of the whole rate when that at the same mix is taken off."""
    influence, change = -within, 0.0
    for whose, sign in (("", 1.0), ("_reference", -1.0)):
        items = column(both, f"checked_items{whose}")
        absent = column(both, f"unsupported{whose}")
        rate = absent.sum() / items.sum()
        change += sign * rate
        influence += sign * (absent - rate * items) / items.mean()
    for kind in kinds:
        weight = _total(both, f"checked_{kind}_reference")
        weight /= _total(both, "checked_items_reference")
        for whose, sign in (("", 1.0), ("_reference", -1.0)):
            checked, missing = _counts(both, kind, whose)
            change -= sign * weight * missing.sum() / checked.sum()
    return draw.mean(influence + change)


def _predicted_share(both: pl.DataFrame, whose: str) -> float | None:
    predictions = _total(both, f"predictions{whose}")
    quotes = predictions + _total(both, f"checked_citations{whose}")
    return predictions / quotes if quotes else None


def _total(both: pl.DataFrame, name: str) -> float:
    return float(np.nansum(column(both, name)))
