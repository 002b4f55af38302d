"""Mean lengths whose intervals know of failures: rare, and many times as long as the rest.

A failed explanation runs to the token cap. Where one in two hundred fails, most tables of fifty
activations hold none, and their bootstrap does not know that there are any. So the length of
what did not fail is bootstrapped, the rate of failures has Wilson's interval, and the two are put
together in quadrature (Zou & Donner 2008, "Construction of confidence limits about effect
measures").
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from nla_audit.stats import Interval, Resampler
from nla_audit.table.pairing import column


def mean_tokens(rows: pl.DataFrame, draw: Resampler, failed_tokens: float | None) -> Interval:
    """Mean of ``n_tokens``, over all rows.

    Args:
        rows: of one model, with ``n_tokens`` and ``extracted``.
        draw: the bootstrap of these rows.
        failed_tokens: what a failed explanation costs in this table; ``None`` if none failed.
    """
    tokens, failed = column(rows, "n_tokens"), 1 - column(rows, "extracted")
    whole = draw.mean(tokens)
    of_text = draw.mean(np.where(failed > 0, np.nan, tokens))
    fewer, more = _failure_reach(tokens, failed, draw, failed_tokens)
    return _reaching(whole, of_text, [fewer], [more])


def token_saving(pairs: pl.DataFrame, draw: Resampler, failed_tokens: float | None) -> Interval:
    """Share of the reference's tokens that a model saves, over paired activations.

    Args:
        pairs: ``n_tokens`` and ``extracted`` (a share, over samples), each with ``_reference``.
        draw, failed_tokens: as for :func:`mean_tokens`.
    """
    tokens, other = column(pairs, "n_tokens"), column(pairs, "n_tokens_reference")
    failed, other_failed = 1 - column(pairs, "extracted"), 1 - column(pairs, "extracted_reference")
    whole = draw.ratio(other - tokens, other)
    both_text = (failed == 0) & (other_failed == 0)
    of_text = draw.ratio(np.where(both_text, other - tokens, np.nan), other)
    if whole.n == 0 or np.array_equal(tokens, other, equal_nan=True):
        return whole  # nothing to compare, or the reference with itself
    known = ~np.isnan(tokens) & ~np.isnan(other)
    mean, other_mean = float(tokens[known].mean()), float(other[known].mean())
    fewer, more = _failure_reach(tokens, failed, draw, failed_tokens)
    other_fewer, other_more = _failure_reach(other, other_failed, draw, failed_tokens)
    share = mean / other_mean
    return _reaching(
        whole,
        of_text,
        [more / other_mean, share * other_fewer / other_mean],
        [fewer / other_mean, share * other_more / other_mean],
    )


def _failure_reach(
    tokens: np.ndarray, failed: np.ndarray, draw: Resampler, failed_tokens: float | None
) -> tuple[float, float]:
    """How far the mean may lie below and above because of how many fail, in tokens."""
    known = ~np.isnan(tokens)
    text = tokens[known & (failed == 0)]
    if failed_tokens is None or len(text) == 0:
        return 0.0, 0.0
    rate = draw.share(np.where(known, failed, np.nan))
    all_failed = tokens[known & (failed == 1)]
    cost = float(all_failed.mean()) if len(all_failed) else failed_tokens
    longer = max(cost - float(text.mean()), 0.0)
    return (rate.value - rate.low) * longer, (rate.high - rate.value) * longer


def _reaching(
    whole: Interval, of_text: Interval, below: list[float], above: list[float]
) -> Interval:
    """``whole`` with the reach of ``of_text`` and further ones, in quadrature."""
    if np.isnan(whole.low) or np.isnan(of_text.low):
        return replace(whole, low=np.nan, high=np.nan)
    low = np.sqrt((of_text.value - of_text.low) ** 2 + sum(reach**2 for reach in below))
    high = np.sqrt((of_text.high - of_text.value) ** 2 + sum(reach**2 for reach in above))
    return replace(whole, low=float(whole.value - low), high=float(whole.value + high))
