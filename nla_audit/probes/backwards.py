"""What does it cost to read an explanation backwards?"""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.completions import Completions
from nla_audit.errors import UserError
from nla_audit.findings import Finding, Headline, Metric, probe
from nla_audit.pairing import resampler
from nla_audit.probes.causal.ruler import PAIR_OPTIONS, open_ruler

QUESTION = "How much FVE is lost when the words of an explanation come in reverse order?"


@probe(
    name="backwards",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={},
    unit="activation (samples of one activation are averaged first)",
    control="the same reversed text read against another activation",
    high_means="loss above 0: the AR needs the order of the words",
    example="nla-audit backwards completions.parquet --pair PAIR --activations a.parquet",
    metrics=(
        Metric("loss", "FVE", "neither", "FVE lost when the words are reversed"),
        Metric("loss_elsewhere", "FVE", "neither", "the same against another activation"),
    ),
    options=PAIR_OPTIONS,
)
def backwards(
    completions: Completions,
    *,
    pair: str | None = None,
    activations: str | None = None,
    seed: int = 0,
) -> Finding:
    """FVE of every explanation less that of its words in reverse order, by the same AR."""
    ruler = open_ruler(completions, pair, activations)
    if ruler is None:
        raise UserError("backwards needs an AR: give --pair PAIR and --activations FILE")
    headline: Headline = {}
    for model in completions.models:
        rows = completions.rows.filter(
            (pl.col("model") == model)
            & pl.col("explanation").is_not_null()
            & pl.col("idx").is_in(list(ruler.vectors))
        )
        texts = rows["explanation"].to_list()
        reversed_texts = [" ".join(reversed(text.split())) for text in texts]
        own = np.stack([ruler.vectors[idx] for idx in rows["idx"]])
        elsewhere = np.roll(own, len(own) // 2, axis=0)

        def fve(said: list[str], vectors: np.ndarray) -> np.ndarray:
            return ruler.scorer.score(said, vectors, baselines=ruler.baselines).fve

        frame = rows.select("idx", "doc_id").with_columns(
            loss=fve(texts, own) - fve(reversed_texts, own),
            loss_elsewhere=fve(texts, elsewhere) - fve(reversed_texts, elsewhere),
        )
        means = (
            frame.group_by("idx")
            .agg(pl.col("doc_id").first(), pl.col("loss", "loss_elsewhere").mean())
            .sort("idx")
        )
        draw = resampler(means, seed)
        headline[model] = {
            **draw.mean(means["loss"].to_numpy()).entries("loss"),
            **draw.mean(means["loss_elsewhere"].to_numpy()).entries("loss_elsewhere"),
        }
    most = max(headline, key=lambda model: headline[model]["loss"] or 0.0)
    return Finding(
        analyzer="backwards",
        question=QUESTION,
        reference=None,
        headline=headline,
        verdict=f"{most} loses most backwards: {headline[most]['loss'] or 0.0:.2f} of FVE.",
        parameters={"pair": pair, "activations": activations, "seed": seed},
    )
