"""What verdicts say, worked out anew from what was read."""

from __future__ import annotations

import math

import polars as pl

from nla_audit.text.reading import Reading


def worth(reading: Reading, model: str) -> dict[str, float]:
    """Mean tokens: of the reference, the model, and the model's in the reference's wording."""
    rows = reading.explanations.filter(pl.col("model") == model)
    whole, length, kept, supported = (
        rows[name].sum() / rows.height
        for name in ("tokens_reference", "tokens_model", "kept_tokens", "supported_tokens")
    )
    shared = min(kept / whole, supported / length)
    chance = reading.chance.filter(pl.col("model") == model)["kept"].mean()
    known = 0.03**2 / shared + (max(0.01, chance) / shared) ** 2
    # A token is worth a token give or take a half, unless what both say shows otherwise.
    logarithm = math.log(kept / supported) / known / (1 / known + 1 / 0.5**2)
    return {
        "reference": whole,
        "model": length,
        "worth": length * math.exp(logarithm),
        "kept": kept,
        "supported": supported,
    }
