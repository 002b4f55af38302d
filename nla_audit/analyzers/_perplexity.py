"""Do beginnings read like language to a base model (``--base-model``)?

A code need not look like one, but word salad does: the control is the same text with its words in
random order. Perplexity is compared with the reference's at the same number of tokens, never
between lengths: the first tokens of any text are the least expected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from nla_audit.analyzers._prefix_texts import chosen_texts
from nla_audit.completions import Completions
from nla_audit.pairing import clusters, resampler
from nla_audit.probes.transforming.cards import generator_for, transforms
from nla_audit.stats import Interval, Resampler

_TOKENS = (4, 8, 16, 32)
_SHUFFLE = "words_shuffled"
PERPLEXITY = {
    "model": pl.String, "tokens": pl.Int64, "texts": pl.Int64, "perplexity": pl.Float64,
    "perplexity_low": pl.Float64, "perplexity_high": pl.Float64, "shuffled": pl.Float64,
    "times_reference": pl.Float64, "times_reference_low": pl.Float64,
    "times_reference_high": pl.Float64,
}  # fmt: skip


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

    chosen = {model: chosen_texts(completions, model) for model in completions.models}
    texts = [text for rows in chosen.values() for text in rows["explanation"]]
    shuffle = transforms()[_SHUFFLE].one
    assert shuffle is not None
    mixed = [shuffle(text, generator_for(seed, _SHUFFLE, text)) for text in texts]
    losses = iter(token_losses(*load_language_model(base_model), [*texts, *mixed]))
    own = {model: [next(losses) for _ in range(rows.height)] for model, rows in chosen.items()}
    salad = {model: [next(losses) for _ in range(rows.height)] for model, rows in chosen.items()}

    def sums_of(model: str, found: Sequence[np.ndarray], tokens: int | None) -> pl.DataFrame:
        sums, counts = _first(found, tokens)
        return (
            chosen[model]
            .select("idx", "doc_id")
            .with_columns(pl.Series("sum", sums), pl.Series("count", counts))
        )

    rows = []
    for model in completions.models:
        for tokens in (*_TOKENS, None):
            sums, counts = _first(own[model], tokens)
            if not counts.any():
                continue
            mean = resampler(chosen[model], seed).ratio(sums, counts)
            mixed_sums, mixed_counts = _first(salad[model], tokens)
            row: dict[str, object] = {
                "model": model,
                "tokens": tokens,
                "texts": int((counts > 0).sum()),
                **_exp(mean).entries("perplexity"),
                "shuffled": math.exp(mixed_sums.sum() / max(mixed_counts.sum(), 1)),
            }
            if model != completions.reference:
                row |= _times_reference(
                    sums_of(model, own[model], tokens),
                    sums_of(completions.reference, own[completions.reference], tokens),
                    seed,
                )
            rows.append(row)
    return pl.DataFrame(rows, schema=PERPLEXITY)


def _first(losses: Sequence[np.ndarray], tokens: int | None) -> tuple[np.ndarray, np.ndarray]:
    """``[n]`` sums of loss over the first tokens, and how many; 0 of a text that has fewer."""
    sums, counts = np.zeros(len(losses)), np.zeros(len(losses))
    for row, one in enumerate(losses):
        if tokens is None or len(one) >= tokens:
            known = one[:tokens][~np.isnan(one[:tokens])]
            sums[row], counts[row] = known.sum(), len(known)
    return sums, counts


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
        float(np.exp(interval.value)), float(np.exp(interval.low)), float(np.exp(interval.high)),
        interval.n, interval.missing,
    )  # fmt: skip
