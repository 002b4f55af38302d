"""How much less a text says than another, net of what it says besides."""

from __future__ import annotations

import polars as pl

from nla_audit.analyzers._reading_error import Bias, ReadingError
from nla_audit.stats import Interval
from nla_audit.table.pairing import column, resampler


def net_loss(explanations: pl.DataFrame, error: ReadingError, bias: Bias, seed: int) -> Interval:
    """Tokens of what is left out less tokens of what is added, as a share of the reference's.

    Two samples of one model leave out as much of each other as they add, whatever they differ in;
    so what goes beyond that was dropped.

    Args:
        explanations: of a reading, of one model.
        error: of that reading.
        bias: of these explanations.
        seed: of the interval.
    """
    lost = column(explanations, "tokens_reference") - column(explanations, "kept_tokens")
    added = column(explanations, "tokens_model") - column(explanations, "supported_tokens")
    share = resampler(explanations, seed).ratio(
        lost - added, column(explanations, "tokens_reference")
    )
    return error.widen(share, bias.net_loss)
