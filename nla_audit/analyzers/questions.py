"""How many explanations ask something?"""

from __future__ import annotations

import polars as pl

from nla_audit.completions import Completions
from nla_audit.findings import Finding, Headline, Metric, analyzer
from nla_audit.pairing import column, resampler

QUESTION = "How many explanations hold a question mark?"


@analyzer(
    name="questions",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"doc_id": "intervals resample activations instead of documents"},
    unit="activation (samples of one activation are averaged first)",
    control="none: compare models with each other",
    high_means="share near 1: nearly every explanation asks something",
    example="nla-audit questions completions.parquet",
    metrics=(Metric("share", "share", "neither", "share of the explanations that ask something"),),
)
def questions(completions: Completions, *, seed: int = 0) -> Finding:
    """The share of explanations with a question mark, for each model."""
    asks = completions.rows.with_columns(
        # Null where the explanation failed: not known, which is not "no".
        asks=pl.col("explanation").str.contains("?", literal=True).cast(pl.Float64)
    )
    headline: Headline = {}
    for model in completions.models:
        own = asks.filter(pl.col("model") == model).drop_nulls("asks")
        means = own.group_by("idx").agg(pl.col("doc_id").first(), pl.col("asks").mean()).sort("idx")
        share = resampler(means, seed).share(column(means, "asks"))
        headline[model] = share.entries("share")
    most = max(headline, key=lambda model: headline[model]["share"] or 0.0)
    return Finding(
        analyzer="questions",
        question=QUESTION,
        reference=None,
        headline=headline,
        verdict=f"{most} asks most often, in {headline[most]['share'] or 0.0:.0%} of explanations.",
        parameters={"seed": seed},
    )
