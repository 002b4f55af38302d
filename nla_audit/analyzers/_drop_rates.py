"""How much of what the reference says is still said: all of it, by kind, in what order it goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from nla_audit.analyzers._floor import floor_of
from nla_audit.analyzers._net_loss import net_loss
from nla_audit.analyzers._reading_error import LARGE_BIAS, LEAST_CLAIMS, Bias, Level, ReadingError
from nla_audit.analyzers._unrecognised import Usual, hidden, unusually_new
from nla_audit.findings import Headline
from nla_audit.stats import Interval, chance_corrected, or_none
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler
from nla_audit.text.kinds import KIND_NAMES, KINDS
from nla_audit.text.reading import KIND_READING_ERROR, RESAMPLING_FLOOR, Reading

#: A kind with fewer reference claims than this in the table gets no rate.
MIN_CLAIMS_OF_A_KIND = 20


def _rate(rows: pl.DataFrame, seed: int) -> Interval:
    """Mean ``kept`` over claims, resampled by activation or document."""
    return resampler(rows, seed).mean(column(rows, "kept"))


def kind_table(
    completions: Completions, reading: Reading, error: ReadingError, usual: Usual, seed: int
) -> pl.DataFrame:
    """Retention of each kind; with an interval only where its bias is known small.

    Args:
        usual: see :func:`~nla_audit.analyzers._unrecognised.usually_new`; here and below.
    """
    rows = []
    names = [*completions.models, RESAMPLING_FLOOR]
    for model in names:
        own = reading.claims.filter(pl.col("model") == model)
        chance = reading.chance.filter(pl.col("model") == model)
        if own.height == 0:
            continue
        explanations = reading.explanations.filter(pl.col("model") == model)
        length = Level.of(explanations).length
        new = explanations.select(
            "idx",
            "sample",
            new=np.maximum(unusually_new(explanations, usual), 0.0)
            + np.maximum(hidden(explanations, usual), 0.0),
        )
        for kind in KIND_NAMES:
            of_kind = own.filter(pl.col("kind") == kind)
            if of_kind.height < MIN_CLAIMS_OF_A_KIND:
                continue
            rate = _rate(of_kind, seed)
            bias = error.of_kind(kind, rate.value, length)
            if bias is None or abs(bias) > LARGE_BIAS:
                rate = replace(rate, low=np.nan, high=np.nan)
            else:
                other_claims = reading.other_claims(model) * rate.value
                biases = [bias, other_claims, -_unrecognised(of_kind, new)]
                rate = error.widen_share(rate, np.array(biases), KIND_READING_ERROR)
            by_chance = _rate(chance.filter(pl.col("kind") == kind), seed).value
            rows.append(
                {
                    "model": model,
                    "length_penalty": completions.length_penalties.get(model),
                    "kind": kind,
                    "claims": of_kind.height,
                    **rate.entries("retained"),
                    "known_error": bias,
                    "chance": or_none(by_chance),
                    "beyond_chance": or_none(float(chance_corrected(rate.value, by_chance))),
                }
            )
    schema = {
        "model": pl.String,
        "length_penalty": pl.Float64,
        "kind": pl.String,
        "claims": pl.Int64,
        "retained": pl.Float64,
        "retained_low": pl.Float64,
        "retained_high": pl.Float64,
        "known_error": pl.Float64,
        "chance": pl.Float64,
        "beyond_chance": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema)


def _unrecognised(claims: pl.DataFrame, new: pl.DataFrame) -> float:
    """The share of these claims that may be made in words too different to be recognised.

    As many of those that are lost as the same text makes new claims beyond what is usual, whatever
    their kind.

    Args:
        claims: of one kind, as :attr:`~nla_audit.text.reading.Reading.claims`.
        new: ``idx, sample, new``.
    """
    lost = claims.group_by("idx", "sample").agg(lost=(1 - pl.col("kept")).sum())
    both = lost.join(new, on=["idx", "sample"])
    return float(both.select(pl.min_horizontal("lost", "new").sum()).item()) / claims.height


def headline_of(
    completions: Completions,
    reading: Reading,
    error: ReadingError,
    kinds: pl.DataFrame,
    items: pl.DataFrame,
    *,
    usual: Usual,
    seed: int,
) -> Headline:
    """What is kept, added and lost net, for each model and the resampling floor."""
    headline: Headline = {}
    biases: dict[str, Bias] = {}
    for model in [*completions.models, RESAMPLING_FLOOR]:
        own = reading.claims.filter(pl.col("model") == model)
        if own.height == 0:
            continue
        summary: dict[str, float | None] = {"n_claims": float(own.height)}
        explanations = reading.explanations.filter(pl.col("model") == model)
        terse, other = error.terseness.get(model, 0.0), reading.other_claims(model)
        level = Level.of(explanations, terse, usual, other)
        bias = biases[model] = error.at(level)
        rate = error.widen_share(_rate(own, seed), bias.claims)
        summary |= rate.entries("claims_retained")
        chance = reading.chance.filter(pl.col("model") == model)
        by_chance = _rate(chance, seed).widened(error.spread, 0.0, 1.0)
        summary |= by_chance.entries("chance_match")
        beyond = float(chance_corrected(rate.value, by_chance.value))
        summary["retained_beyond_chance"] = or_none(beyond)
        added = resampler(explanations, seed).ratio(
            column(explanations, "tokens_model") - column(explanations, "supported_tokens"),
            column(explanations, "tokens_model"),
        )
        # What is wrongly taken for the reference's is missing from what is added.
        added = error.widen_share(added, -bias.supported / max(level.length, 1e-9))
        summary |= added.entries("added_share")
        net = net_loss(explanations, error, level, seed, by_chance=reading.found_by_chance(model))
        summary |= net.share.entries("net_loss_share")
        summary["known_error_claims_retained"] = (
            float(bias.measured_claims[np.abs(bias.measured_claims).argmax()])
            if error.measured
            else None
        )
        summary["unrecognised_share"] = or_none(level.unrecognised_claims)
        for table, what in ((kinds, "kind"), (items, "item")):
            for row in table.filter(pl.col("model") == model).iter_rows(named=True):
                summary |= {
                    f"retained.{row[what]}{end}": row[f"retained{end}"]
                    for end in ("", "_low", "_high")
                }
        headline[model] = summary
    floor, _ = floor_of(completions, headline)
    if floor:
        for model in [name for name in headline if name != floor]:
            below = _below(reading.claims, model, floor, seed)
            ours, theirs = biases[model].claims, biases[floor].claims
            # Or only this model says what it lost in words too different to be recognised.
            shift = np.append(theirs - ours, -ours[-1])
            below = error.widen(below, shift, np.sqrt(2) * error.spread, -1.0, 1.0)
            headline[model] |= below.entries("retained_below_floor")
    return headline


def _below(claims: pl.DataFrame, model: str, floor: str, seed: int) -> Interval:
    """How much more of the same claims ``floor`` still makes than ``model``."""
    claim = ["idx", "reference_sample", "claim"]
    own, other = (
        claims.filter(pl.col("model") == name).group_by(claim, maintain_order=True)
        for name in (model, floor)
    )
    both = own.agg(pl.col("kept").mean(), pl.col("^doc_id$").first()).join(
        other.agg(pl.col("kept").mean().alias("by_floor")), on=claim, maintain_order="left"
    )
    return resampler(both, seed).mean(column(both, "by_floor") - column(both, "kept"))


def order_of_loss(completions: Completions, kinds: pl.DataFrame) -> pl.DataFrame:
    """Kinds from the first to go to the last: mean retention over the models shorter than it.

    Only those whose reading is known to be within :data:`LARGE_BIAS` in all of these models, of at
    least :data:`LEAST_CLAIMS` claims. ``first_lost_at`` is the first model, by λ, that keeps less
    than half of the kind by its interval.
    """
    rows = []
    penalised = [
        model for model in completions.models if (completions.length_penalties[model] or 0) > 0
    ] or [model for model in completions.models if model != completions.reference]
    for kind in KINDS:
        own = kinds.filter((pl.col("kind") == kind.name) & pl.col("model").is_in(penalised))
        known = own["retained_low"].is_not_null() & (own["claims"] >= LEAST_CLAIMS)
        if own.height == 0 or not known.all():
            continue
        ordered = own.sort(
            pl.col("model").replace_strict(
                {model: place for place, model in enumerate(penalised)}, return_dtype=pl.Int64
            )
        )
        lost = ordered.filter(pl.col("retained_high") < 0.5)
        rows.append(
            {
                "kind": kind.name,
                "meaning": kind.meaning,
                "claims": own["claims"].max(),
                "mean_retained": own["retained"].mean(),
                "first_lost_at": lost["model"][0] if lost.height else None,
            }
        )
    schema = {
        "kind": pl.String,
        "meaning": pl.String,
        "claims": pl.Int64,
        "mean_retained": pl.Float64,
        "first_lost_at": pl.String,
    }
    return pl.DataFrame(rows, schema=schema).sort("mean_retained", "kind")
