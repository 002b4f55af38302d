"""Do beginnings read like language to a base model (``--base-model``)?

A code need not look like one, but word salad does: the control is the same text with its words in
random order. Perplexity is compared with the reference's at the same number of tokens, never
between lengths: the first tokens of any text are the least expected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from nla_audit.analyzers._prefix_texts import chosen_texts
from nla_audit.probes.transforming.cards import transforms
from nla_audit.probes.transforming.run import apply_transform
from nla_audit.stats import Interval, Resampler
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import clusters, resampler

_TOKENS = (4, 8, 16, 32)
PERPLEXITY = {
    "model": pl.String,
    "tokens": pl.Int64,
    "texts": pl.Int64,
    "perplexity": pl.Float64,
    "perplexity_low": pl.Float64,
    "perplexity_high": pl.Float64,
    "shuffled": pl.Float64,
    "times_reference": pl.Float64,
    "times_reference_low": pl.Float64,
    "times_reference_high": pl.Float64,
}


def perplexities(completions: Completions, base_model: str, seed: int) -> pl.DataFrame:
    """Perplexity of the first tokens of each model's explanations, and of the whole.

    ``tokens`` counts those of the base model, null is the whole text; a row is of the texts that
    have as many. ``shuffled`` is that of their words in random order, and ``times_reference`` the
    ratio to the reference's texts of the same activations.

    Raises:
        UserError: the base model cannot be loaded.
    """
    from nla_audit.checkpoint.load import load_language_model  # torch
    from nla_audit.nla.likelihood import token_losses

    texts = pl.concat(
        chosen_texts(completions, model).select("model", "idx", "doc_id", "explanation")
        for model in completions.models
    )
    own = texts["explanation"].to_list()
    mixed = apply_transform(transforms()["words_shuffled"], own, texts["idx"].to_list(), seed=seed)
    losses = token_losses(*load_language_model(base_model), [*own, *map(str, mixed)])
    read, salad = (_sums(texts, part) for part in (losses[: len(own)], losses[len(own) :]))
    rows = []
    for model in completions.models:
        for tokens in (*_TOKENS, None):
            sums, of_salad = (_of(frame, model, tokens) for frame in (read, salad))
            mean, shuffled = (
                _exp(resampler(one, seed).ratio(one["sum"], one["count"]))
                for one in (sums, of_salad)
            )
            if mean.n == 0:
                continue
            row: dict[str, object] = {
                "model": model,
                "tokens": tokens,
                "texts": mean.n,
                **mean.entries("perplexity"),
                "shuffled": shuffled.entries("shuffled")["shuffled"],
            }
            if model != completions.reference:
                row |= _times_reference(sums, _of(read, completions.reference, tokens), seed)
            rows.append(row)
    return pl.DataFrame(rows, schema=PERPLEXITY)


def _sums(texts: pl.DataFrame, losses: Sequence[np.ndarray]) -> pl.DataFrame:
    """A row a text and number of first ``tokens``: the ``sum`` of their losses and their ``count``,
    both 0 where the text has fewer."""
    frames = []
    for tokens in (*_TOKENS, None):
        known = [
            one[:tokens][~np.isnan(one[:tokens])]
            if tokens is None or len(one) >= tokens
            else one[:0]
            for one in losses
        ]
        frames.append(
            texts.with_columns(
                pl.lit(tokens, pl.Int64).alias("tokens"),
                pl.Series("sum", [one.sum() for one in known], pl.Float64),
                pl.Series("count", [len(one) for one in known], pl.Float64),
            )
        )
    return pl.concat(frames)


def _of(sums: pl.DataFrame, model: str, tokens: int | None) -> pl.DataFrame:
    return sums.filter((pl.col("model") == model) & pl.col("tokens").eq_missing(tokens))


def _times_reference(own: pl.DataFrame, other: pl.DataFrame, seed: int) -> dict[str, float | None]:
    """Ratio of perplexities on the activations that both have texts of.

    Args:
        own, other: a row a text: ``idx, doc_id, sum`` (of losses) and ``count`` (of tokens).
    """
    sums = [
        frame.group_by("idx")
        .agg(pl.col("doc_id").first(), pl.col("sum", "count").sum())
        .filter(pl.col("count") > 0)
        for frame in (own, other)
    ]
    both = sums[0].join(sums[1].drop("doc_id"), on="idx", suffix="_reference").sort("idx")
    if both.height == 0:
        return {}
    change = Resampler(clusters(both), seed=seed).ratio_difference(
        both["sum"], both["count"], both["sum_reference"], both["count_reference"]
    )
    return _exp(change).entries("times_reference")


def _exp(interval: Interval) -> Interval:
    return Interval(
        float(np.exp(interval.value)),
        float(np.exp(interval.low)),
        float(np.exp(interval.high)),
        interval.n,
        interval.missing,
    )
