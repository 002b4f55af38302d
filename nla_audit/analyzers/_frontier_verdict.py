"""What the frontier says in words: what is free, what costs, and what this table cannot tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from nla_audit.analyzers._front import activations_to_tell
from nla_audit.stats import MIN_CLUSTERS
from nla_audit.table.completions import Completions

GAINS, FREE, COSTS = "gains", "no loss above the margin", "costs"
CANNOT_TELL, NOT_KNOWN = "cannot tell", "not known"
#: More models than this that cannot be judged are counted, not spelled out.
_SPELLED_OUT = 3
#: A number of activations above this is no advice.
_MOST_ACTIVATIONS = 1_000_000


def answer(low: float | None, high: float | None, margin: float) -> str:
    """What the interval of an FVE change says about a loss.

    A loss that the interval does not show is excluded only where the interval does not reach
    below ``-margin`` either; else nothing can be told.
    """
    if low is None or high is None:
        return NOT_KNOWN
    if high < 0:
        return COSTS
    if low > 0:
        return GAINS
    return FREE if low >= -margin else CANNOT_TELL


def to_tell(n: int, low: float | None, high: float | None, margin: float) -> int | None:
    """Activations whose interval is no wider than ``margin``.

    Such an interval excludes either no loss or a loss above the margin, wherever it lies. ``n`` is
    how many gave the interval from ``low`` to ``high``.
    """
    if low is None or high is None:
        return None
    return activations_to_tell(n, high - low, margin)


def verdict(
    completions: Completions, changes: pl.DataFrame, knee: pl.DataFrame, margin: float
) -> str:
    """One sentence for each thing that the paired intervals allow to be said."""
    reference = completions.reference
    if changes.height == 0:
        return "Only one model is in the table, so there is nothing to compare it with."
    shorter = sorted(
        (
            row
            for row in changes.iter_rows(named=True)
            if row["token_saving_low"] is not None and row["token_saving_low"] > 0
        ),
        key=lambda row: row["token_saving"],
    )
    if not shorter and changes["token_saving_low"].null_count() == changes.height:
        return (
            f"Whether any model is shorter than {reference} cannot be told: an interval takes "
            f"lengths of at least {MIN_CLUSTERS} activations (documents, where the table names "
            "them)."
        )
    if not shorter:
        return (
            f"No model is shorter than {reference} by more than resampling the activations could "
            "explain."
        )
    by_answer = {
        name: [row for row in shorter if row["loss"] == name]
        for name in (GAINS, FREE, COSTS, CANNOT_TELL, NOT_KNOWN)
    }
    parts = []
    if len(by_answer[NOT_KNOWN]) == len(shorter):
        row = shorter[-1]
        parts.append(
            f"{row['model']} saves {row['token_saving']:.0%} of {reference}'s tokens; what that "
            "costs is not known, since no FVE can be compared."
        )
    free = [row for row in shorter if row["loss"] in (GAINS, FREE)]
    if free:
        parts.append(_free(free[-1], reference, margin))
    parts += _cannot_tell(by_answer[CANNOT_TELL])
    if by_answer[COSTS]:
        parts.append(_costs(by_answer[COSTS], margin))
    return " ".join([*parts, *_knee(knee)])


def _free(row: Mapping[str, Any], reference: str, margin: float) -> str:
    saves = f"{row['model']} saves {row['token_saving']:.0%} of {reference}'s tokens"
    if row["loss"] == GAINS:
        return f"{saves} and gains FVE ({_signed(row)})."
    most = max(0.0, -row["fve_change_low"])
    return (
        f"{saves} and loses at most {most:.3f} FVE ({_signed(row)}), within the margin of "
        f"{margin:g}."
    )


def _cannot_tell(rows: list[dict[str, Any]]) -> list[str]:
    said = [
        f"Whether {row['model']}, which saves {row['token_saving']:.0%}, loses FVE cannot be told: "
        f"at most {-row['fve_change_low']:.3f} ({_signed(row)}); {_about(row)} would tell "
        f"({row['compared']} here)."
        for row in rows[:_SPELLED_OUT]
    ]
    if len(rows) > _SPELLED_OUT:
        said.append(f"Nor can it be told of {len(rows) - _SPELLED_OUT} more.")
    return said


def _costs(rows: list[dict[str, Any]], margin: float) -> str:
    first, last = rows[0], rows[-1]
    small = ", though less than the margin" if first["fve_change_low"] >= -margin else ""
    sentence = (
        f"{first['model']} saves {first['token_saving']:.0%} and does cost FVE ({_signed(first)})"
        f"{small}"
    )
    if last is not first:
        sentence += (
            f"; at the far end {last['model']} saves {last['token_saving']:.0%} for {_signed(last)}"
        )
    return sentence + "."


def _knee(knee: pl.DataFrame) -> list[str]:
    """The knee where there is one; ties are ties, and a straight front has none."""
    if knee.height == 0 or knee["height_above_chord_low"][0] is None:
        return []
    rows = knee.to_dicts()
    first, tied = rows[0], [row for row in rows if row["is_tied"]]
    height = f"{first['height_above_chord']:.3f}"
    if not first["height_above_chord_low"] > 0:
        return [
            f"No model lies above the straight line between the ends of the front beyond its "
            f"interval ({first['model']} by {height}), so no knee can be told."
        ]
    if not tied:
        return [f"The knee of the front is {first['model']} ({height} FVE above its chord)."]
    names = ", ".join(row["model"] for row in [first, *tied[:-1]]) + f" and {tied[-1]['model']}"
    heights = ", ".join(f"{row['height_above_chord']:.3f}" for row in [first, *tied])
    nearest = tied[0]
    return [
        f"The knee of the front is a tie of {names} ({heights} FVE above its chord; "
        f"{first['model']} and {nearest['model']} differ by {nearest['behind_first']:.4f} "
        f"[{nearest['behind_first_low']:+.3f}, {nearest['behind_first_high']:+.3f}], and "
        f"{_about(nearest)} would tell them apart)."
    ]


def _about(row: Mapping[str, Any]) -> str:
    number = row["activations_to_tell"]
    if number is None or number > _MOST_ACTIVATIONS:
        return f"not even {_MOST_ACTIVATIONS:,} activations"
    digits = max(len(str(number)) - 2, 0)
    rounded = -(-number // 10**digits) * 10**digits
    return f"about {rounded:,} activations"


def _signed(row: Mapping[str, Any]) -> str:
    return f"{row['fve_change']:+.3f} [{row['fve_change_low']:+.3f}, {row['fve_change_high']:+.3f}]"
