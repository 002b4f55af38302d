"""What a text leaves out net of what it adds, and what it says in fewer words.

Two samples of one model leave out as much of each other as they add, whatever they differ in; only
what is left out beyond what is added was dropped. But a terser text adds in fewer words, too, and
what it adds would look like less. So all of a text is counted in the reference's wording: the
tokens of what both say, in the one over those in the other, show how many of the reference's tokens
one of the text's stands for. How much both say cancels, and with it most of the reading's error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.analyzers._reading_error import MEASURED, Level, ReadingError
from nla_audit.stats import Interval, percentile_limits
from nla_audit.table.pairing import column, resampler

Floats = NDArray[np.float64]

#: How far the worth of a text's tokens is read from the truth (standard deviation, relative) where
#: both texts say all the same; it grows as what both say gets less, with its root. Of shorter
#: wordings with a share deleted or exchanged (``benchmarks/reading_wordings.md``).
WORDING_ERROR = 0.03
#: So much of the reference, as a share of it, is found in anything; what it is worth is not known.
BY_CHANCE = 0.01
#: Of the reference's tokens, the text's, and those in the reference's wording.
_OMISSION, _TERSER, _LEAD = (1, 0, -1), (0, -1, 1), (1, 1, -2)
_COLUMNS = ("tokens_reference", "tokens_model", "kept_tokens", "supported_tokens")


@dataclass(frozen=True)
class NetLoss:
    """In tokens of an explanation, on average; omission and terser wording make up the saving.

    Attributes:
        omission: the reference's tokens less the text's, both in the reference's wording.
        terser: the text's tokens in the reference's wording less those it has.
        lead: omission less terser wording.
        share: omission, as a share of the reference's tokens.
        error: standard deviation of the reading's own error in ``lead``.
        bias: by how much ``lead`` may lie nearer to 0 for the reading's bias.
        evening: how many of the tokens no longer said would have to be said in words too different
            to be recognised for ``lead`` to be 0; ``None`` where what is measured leaves it open.
    """

    omission: Interval
    terser: Interval
    lead: Interval
    share: Interval
    error: float
    bias: float
    evening: float | None


def net_loss(explanations: pl.DataFrame, error: ReadingError, level: Level, seed: int) -> NetLoss:
    """What one model's texts leave out net, and what they say in fewer words.

    There are no intervals where the wording is not known to within the reference's whole text: for
    want of anything that both say.

    Args:
        explanations: of a reading, of one model.
        error: of that reading.
        level: of these explanations.
        seed: of the intervals.
    """
    bias = error.at(level.beyond_twins())
    columns = np.column_stack([column(explanations, name) for name in _COLUMNS])
    means = columns.mean(axis=0) if len(columns) else np.full(len(_COLUMNS), np.nan)
    whole, own, kept, said = (float(mean) for mean in means)
    worth = float(_worth(means))
    draws = resampler(explanations, seed).mean_replicates(columns)
    # Estimate less truth, for each candidate; where nothing would be left to tell by, none.
    read = np.stack(
        [
            np.full(len(bias.kept), whole),
            np.full(len(bias.kept), own),
            np.clip(kept - bias.kept * whole, 0.0, whole),
            np.clip(said - bias.supported * whole, 0.0, own),
        ],
        axis=-1,
    )
    shift = np.nan_to_num(worth - _worth(read))
    spread = _spread(worth, kept / whole if whole > 0 else 0.0)

    def found(parts: tuple[int, int, int], by: slice = slice(None)) -> Interval:
        of_whole, of_own, of_worth = parts
        most = of_whole * whole + of_own * own
        drawn = of_whole * draws[:, 0] + of_own * draws[:, 1] + of_worth * _worth(draws)
        interval = Interval(most + of_worth * worth, *percentile_limits(drawn), len(columns))
        if not spread < whole:
            return replace(interval, low=np.nan, high=np.nan)
        highest = most if of_worth < 0 else np.inf
        return error.widen(interval, of_worth * shift[by], abs(of_worth) * spread, -np.inf, highest)

    omission, lead, measured = found(_OMISSION), found(_LEAD), found(_LEAD, MEASURED)
    return NetLoss(
        omission,
        found(_TERSER),
        lead,
        _over(omission, whole),
        2 * spread,
        max(0.0, float((np.sign(lead.value) * -2.0 * shift).max())),
        # Each is worth as many tokens in the text as those that were recognised.
        measured.low / 2 * said / own if own and measured.low > 0 else None,
    )


def _spread(worth: float, shared: float) -> float:
    """The standard deviation of ``worth``, by the share of the reference that the text says."""
    if worth == 0:
        return 0.0
    if not shared > 0:
        return np.inf
    return worth * float(np.hypot(WORDING_ERROR / np.sqrt(shared), BY_CHANCE / shared))


def _worth(means: Floats) -> Floats:
    """The text's tokens in the reference's wording; NaN where the two share nothing to tell by.

    Args:
        means: `[..., 4]`, of the :data:`_COLUMNS`.
    """
    _, own, kept, said = np.moveaxis(np.asarray(means, dtype=np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(own == 0, 0.0, own * kept / np.where(said > 0, said, np.nan))


def _over(interval: Interval, whole: float) -> Interval:
    if not whole > 0:
        return replace(interval, value=np.nan, low=np.nan, high=np.nan)
    return replace(
        interval,
        value=interval.value / whole,
        low=interval.low / whole,
        high=interval.high / whole,
    )
