"""How much less a text says than another, net of what it says besides."""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.analyzers._reading_error import ReadingError
from nla_audit.pairing import column, resampler
from nla_audit.stats import Interval


def level(explanations: pl.DataFrame) -> tuple[float, float]:
    """Share of the reference's tokens that is read as kept, and the length over the reference's."""
    whole = float(explanations["tokens_reference"].sum()) or np.nan
    return (
        float(explanations["kept_tokens"].sum()) / whole,
        float(explanations["tokens_model"].sum()) / whole,
    )


def net_loss(
    explanations: pl.DataFrame, error: ReadingError, seed: int, terse: float = 0.0
) -> Interval:
    """Tokens of what is left out less tokens of what is added, as a share of the reference's.

    Two samples of one model leave out as much of each other as they add, whatever they differ in;
    so what goes beyond that was dropped.

    Args:
        explanations: of a reading, of one model.
        error: of that reading.
        seed: of the interval.
        terse: see :func:`~nla_audit.analyzers._reading_error.terseness`.
    """
    lost = column(explanations, "tokens_reference") - column(explanations, "kept_tokens")
    added = column(explanations, "tokens_model") - column(explanations, "supported_tokens")
    share = resampler(explanations, seed).ratio(
        lost - added, column(explanations, "tokens_reference")
    )
    return error.widen(share, error.at(*level(explanations), terse).net_loss)
