"""Which baseline the FVE of a table is measured against: as recorded, or worked out from it.

FVE = 1 − MSE / baseline. Two baselines are in use that differ by about ten points
(docs/object.md), so that an FVE whose baseline is not known can be compared with no other table's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

#: Recorded or implied values that differ by less, relative to their size, are one value.
_ROUNDING = 1e-4
#: Below this 1 − FVE the ratio MSE / (1 − FVE) is mostly rounding.
_SMALLEST_UNEXPLAINED = 0.05


@dataclass(frozen=True)
class Baseline:
    """The baseline of a table's FVE; ``None`` is not known.

    Attributes:
        name: ``raw_variance``, ``mean_normalized``, or what the table calls it.
        value: MSE of predicting the mean.
        is_recorded: whether ``value`` stands in the table, rather than follows from its columns
            ``mse`` and ``fve``.
    """

    name: str | None = None
    value: float | None = None
    is_recorded: bool = False

    def sentence(self) -> str:
        """What a reader must know of it before comparing FVE with another table's."""
        if self.name is not None and self.value is None:
            return f"FVE is against the baseline {self.name}, whose value is not in the table."
        if self.name is not None:
            how = "as the table records" if self.is_recorded else "its value from mse and fve"
            return f"FVE is 1 − MSE / {self.value:.4g}, the baseline {self.name} ({how})."
        if self.value is not None:
            how = "the table records" if self.is_recorded else "follows from mse and fve"
            return (
                f"FVE is 1 − MSE / {self.value:.4g}, which {how}; the table does not name this "
                "baseline, and the two in use (raw_variance, mean_normalized) differ by about 10 "
                "points of FVE."
            )
        return (
            "Which baseline FVE uses is not recorded in the table, and the two in use "
            "(raw_variance, mean_normalized) differ by about 10 points of FVE."
        )


def find_baseline(rows: pl.DataFrame) -> tuple[Baseline, list[str]]:
    """The baseline of the scored rows of a table that name at most one, and caveats about it.

    Args:
        rows: columns ``fve``, ``mse``, ``fve_baseline``, ``fve_baseline_value``.
    """
    scored = rows.filter(pl.col("fve").is_not_null())
    names = scored["fve_baseline"].drop_nulls().unique().to_list()
    name = names[0] if names else None
    recorded = scored["fve_baseline_value"].fill_nan(None).drop_nulls().to_numpy()
    implied = _implied(scored)
    if len(recorded) == 0:
        return Baseline(name, implied), []
    lowest, value, highest = (float(level) for level in np.quantile(recorded, (0, 0.5, 1)))
    notes = []
    if highest - lowest > _ROUNDING * value:
        notes.append(
            f"The FVE of these rows is measured against baselines from {lowest:.4g} to "
            f"{highest:.4g}: some of the difference between models is that of their baselines; "
            "score them again together."
        )
    elif implied is not None and abs(implied - value) > _ROUNDING * value:
        notes.append(
            f"The table records an FVE baseline of {value:.4g}, but its columns mse and fve imply "
            f"{implied:.4g}: one of the three columns is from elsewhere."
        )
    return Baseline(name, value, is_recorded=True), notes


def _implied(scored: pl.DataFrame) -> float | None:
    """MSE / (1 − FVE) where every row agrees on it."""
    ratios = (
        scored.filter(1 - pl.col("fve") > _SMALLEST_UNEXPLAINED)
        .select(ratio=pl.col("mse") / (1 - pl.col("fve")))["ratio"]
        .fill_nan(None)
        .drop_nulls()
        .to_numpy()
    )
    if len(ratios) == 0:
        return None
    lowest, value, highest = (float(level) for level in np.quantile(ratios, (0, 0.5, 1)))
    return value if value > 0 and highest - lowest <= _ROUNDING * value else None
