"""What a text leaves out net of what it adds, and what it says in fewer words.

Two samples of one model leave out as much of each other as they add, whatever they differ in; only
what is left out beyond what is added was dropped. But a terser text adds in fewer words, too, and
what it adds would look like less. So all of a text is counted in the reference's wording: the
tokens of what both say, in the one over those in the other, show how many of the reference's tokens
one of the text's stands for. How much both say cancels, and with it most of the reading's error.

Where next to nothing is said by both, that shows nothing, and a token is worth a token, give or
take what terse and wordy texts differ by: the two are weighed by how well either is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.analyzers._reading_error import MEASURED, Level, ReadingError
from nla_audit.stats import Interval, percentile_limits
from nla_audit.table.pairing import column, resampler

Floats = NDArray[np.float64]

#: How far the worth of a text's tokens is read from the truth (standard deviation, of its
#: logarithm) where both texts say all the same; it grows as what both say gets less, with its root.
#: Of shorter wordings with lines deleted or exchanged (``benchmarks/wordings``).
WORDING_ERROR = 0.03
#: So much of a text, as a share of it, is found in anything, at the least.
BY_CHANCE = 0.01
#: The same standard deviation of texts of which nothing is known: terse wordings were worth up to
#: twice as many of the reference's tokens as they have, wordy ones eight tenths.
ANY_WORDING = 0.5
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


def net_loss(
    explanations: pl.DataFrame,
    error: ReadingError,
    level: Level,
    seed: int,
    *,
    by_chance: float = 0.0,
) -> NetLoss:
    """What one model's texts leave out net, and what they say in fewer words.

    Args:
        explanations: of a reading, of one model.
        error: of that reading.
        level: of these explanations.
        seed: of the intervals.
        by_chance: which share of the claims the reading finds in another activation's texts.
    """
    columns = np.column_stack([column(explanations, name) for name in _COLUMNS])
    means = columns.mean(axis=0)
    whole, own, kept, said = (float(mean) for mean in means)
    worth, spread = (float(part) for part in _worth(means, by_chance))
    draws = resampler(explanations, seed).mean_replicates(columns)
    drawn, _ = _worth(draws, by_chance)
    # Estimate less truth, if what both say was read wrongly by each candidate.
    bias = error.at(level.beyond_twins())
    read = np.tile(means, (len(bias.kept), 1))
    read[:, 2] = np.clip(kept - bias.kept * whole, 0.0, whole)
    read[:, 3] = np.clip(said - bias.supported * whole, 0.0, own)
    shift = worth - _worth(read, by_chance)[0]

    def found(
        value: float,
        replicates: Floats,
        by_worth: float,
        candidates: slice = slice(None),
        highest: float = np.inf,
    ) -> Interval:
        """An interval of what falls or rises by so much with the worth."""
        interval = Interval(value, *percentile_limits(replicates), len(columns))
        off = by_worth * shift[candidates]
        return error.widen(interval, off, abs(by_worth) * spread, highest=highest)

    leads = whole + own - 2 * worth, draws[:, 0] + draws[:, 1] - 2 * drawn, -2.0
    lead, measured = found(*leads), found(*leads, MEASURED)
    share = Interval(np.nan, np.nan, np.nan, len(columns))
    if whole > 0:
        with np.errstate(invalid="ignore", divide="ignore"):  # nothing may be drawn
            shares = 1 - drawn / draws[:, 0]
        share = found(1 - worth / whole, shares, -1 / whole, highest=1.0)
    return NetLoss(
        omission=found(whole - worth, draws[:, 0] - drawn, -1.0),
        terser=found(worth - own, drawn - draws[:, 1], 1.0),
        lead=lead,
        share=share,
        error=2 * spread,
        bias=max(0.0, float((np.sign(lead.value) * -2.0 * shift).max())),
        # What is hidden stands in words that are counted already: only what both say grows.
        evening=measured.low / 2 * kept / worth if worth > 0 and measured.low > 0 else None,
    )


def _worth(means: Floats, by_chance: float) -> tuple[Floats, Floats]:
    """`[...]`: the text's tokens in the reference's wording, and the standard deviation of that.

    Args:
        means: `[..., 4]`, of the :data:`_COLUMNS`.
        by_chance: see :func:`net_loss`.
    """
    whole, own, kept, said = np.moveaxis(np.asarray(means, dtype=np.float64), -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shared = np.nan_to_num(np.minimum(kept / whole, said / own))
        # At most the variance of texts of which nothing is known.
        variance = WORDING_ERROR**2 / shared + (max(BY_CHANCE, by_chance) / shared) ** 2
        weight = ANY_WORDING**2 / (ANY_WORDING**2 + variance)
        ratio = np.where(weight > 0, weight * np.log(kept / said), 0.0)
    worth = own * np.exp(np.where(np.isfinite(ratio), ratio, 0.0))
    return worth, worth * ANY_WORDING * np.sqrt(1 - weight)
