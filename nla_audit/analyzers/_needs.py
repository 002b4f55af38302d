"""Do lengths adapt: is more said where the activation needs more?

What an activation needs is how many tokens of the reference's text bring the AR to most of the FVE
that the whole of it has. It is known with much noise, so its own reliability (between two samples
of the reference) stands beside every correlation with it: none can be seen above its root.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from nla_audit.analyzers._curve_numbers import SHARE_OF_FULL
from nla_audit.analyzers._curves import TextCurve, text_curves
from nla_audit.analyzers._multiscale_verdict import CANNOT_TELL
from nla_audit.analyzers._ranks import rank_correlation
from nla_audit.stats import Interval, benjamini_hochberg, or_none
from nla_audit.table.pairing import clusters, column
from nla_audit.table.prefix_table import PrefixTable

ADAPTS, AGAINST, HARDLY = "adapts", "the other way", "hardly"
#: Share of the correlations that are called so by chance.
_FALSE_DISCOVERIES = 0.05
#: Correlations below this, were needs known without noise, are as good as none.
_HARDLY_ANY = 0.3
TEXT = "text"

LENGTHS = {
    "model": pl.String,
    "part": pl.String,
    "activations": pl.Int64,
    "mean_tokens": pl.Float64,
    "rho": pl.Float64,
    "rho_low": pl.Float64,
    "rho_high": pl.Float64,
    "p_value": pl.Float64,
    "q_value": pl.Float64,
    "need_reliability": pl.Float64,
    "need_reliability_low": pl.Float64,
    "need_reliability_high": pl.Float64,
    "lengths": pl.String,
}


def lengths_and_needs(table: PrefixTable, seed: int) -> pl.DataFrame:
    """Rank correlation of each model's lengths with what activations need.

    ``part`` is ``text``, or a segment. The lengths of the reference itself are compared with the
    needs that its other samples show.
    """
    needs = _needs(table)
    if needs.height == 0:
        return pl.DataFrame(schema=LENGTHS)
    reliability = _reliability(needs, seed)
    rows: list[dict[str, Any]] = []
    rhos: list[Interval] = []
    for model in table.models:
        of_model = needs
        parts = _lengths(table, model)
        if model == table.reference:
            first = pl.col("sample") == pl.col("sample").min().over("idx")
            of_model, parts = needs.filter(~first), parts.filter(first)
        each = of_model.group_by("idx").agg(pl.col("need").mean(), pl.col("doc_id").first())
        for (part,), own in parts.group_by("part", maintain_order=True):
            means = own.group_by("idx").agg(pl.col("tokens").mean())
            both = each.join(means, on="idx").sort("idx")
            if both.height < 3:
                continue
            found = rank_correlation(
                column(both, "tokens"), column(both, "need"), clusters(both), seed
            )
            rhos.append(found.rho)
            rows.append(
                {
                    "model": model,
                    "part": part,
                    "activations": found.rho.n,
                    "mean_tokens": float(np.mean(column(both, "tokens"))),
                    **found.rho.entries("rho"),
                    "p_value": or_none(found.p_value),
                    **reliability.entries("need_reliability"),
                }
            )
    q_values = benjamini_hochberg(
        [np.nan if row["p_value"] is None else row["p_value"] for row in rows]
    )
    for row, rho, q_value in zip(rows, rhos, q_values, strict=True):
        row["q_value"] = or_none(q_value)
        row["lengths"] = _answer(rho, q_value, reliability)
    return pl.DataFrame(rows, schema=LENGTHS)


def _needs(table: PrefixTable) -> pl.DataFrame:
    """``idx, sample, doc_id, need`` of the reference's texts, where the whole has FVE above 0."""
    rows = table.rows.filter(
        (pl.col("model") == table.reference)
        & (pl.col("unit") == "tokens")
        & pl.col("idx").is_not_null()
    )
    found = [
        (text.idx, text.sample, text.cluster, _crossing(text, SHARE_OF_FULL * text.fve[-1]))
        for text in text_curves(rows)
        if text.is_whole and text.fve[-1] > 0
    ]
    schema = {"idx": pl.String, "sample": pl.Int64, "doc_id": pl.String, "need": pl.Float64}
    return pl.DataFrame(found, schema=schema, orient="row")


def _crossing(text: TextCurve, level: float) -> float:
    """Where the curve is first at ``level``, between the lengths that were read; from there on it
    reads as known."""
    place = int(np.argmax(text.fve >= level))
    start = max(place - 1, 0)
    return float(np.interp(level, text.fve[start : place + 1], text.lengths[start : place + 1]))


def _lengths(table: PrefixTable, model: str) -> pl.DataFrame:
    """``part, idx, sample, tokens`` of a model's texts and of their segments."""
    own = table.rows.filter((pl.col("model") == model) & pl.col("idx").is_not_null())
    key = ["idx", "sample"]
    whole = (
        own.filter(pl.col("unit") == "tokens")
        .group_by(key, maintain_order=True)
        .agg(tokens=pl.coalesce(pl.col("text_tokens").max(), pl.col("length").max()))
        .select(pl.lit(TEXT).alias("part"), *key, pl.col("tokens").cast(pl.Float64))
    )
    segments = (
        own.filter((pl.col("unit") == "segments") & pl.col("tokens").is_not_null())
        .sort(*key, "length")
        .select(
            pl.format("segment {}", "length").alias("part"),
            *key,
            (pl.col("tokens") - pl.col("tokens").shift(1, fill_value=0).over(key))
            .cast(pl.Float64)
            .alias("tokens"),
        )
    )
    return pl.concat([whole, segments]).sort("part", *key)


def _reliability(needs: pl.DataFrame, seed: int) -> Interval:
    """Rank correlation of the needs that two samples of the reference show."""
    samples = needs.with_columns(place=pl.col("sample").rank("dense").over("idx"))
    first, second = (samples.filter(pl.col("place") == place) for place in (1, 2))
    both = first.join(second.select("idx", other="need"), on="idx").sort("idx")
    if both.height < 3:
        return Interval(np.nan, np.nan, np.nan, both.height)
    return rank_correlation(column(both, "need"), column(both, "other"), clusters(both), seed).rho


def _answer(rho: Interval, q_value: float, reliability: Interval) -> str:
    """What can be said of a correlation with needs that are known as well as ``reliability``.

    Of many models and segments some correlate by chance: ``q_value`` is over all of them.
    """
    if q_value <= _FALSE_DISCOVERIES and (rho.low > 0 or rho.high < 0):
        return ADAPTS if rho.low > 0 else AGAINST
    if reliability.low > 0 and rho.high <= _HARDLY_ANY * np.sqrt(reliability.low):
        return HARDLY
    return CANNOT_TELL
