"""The AR frozen or co-trained in RL, scored by both rulers. One Markdown table.

    python benchmarks/frozen_and_cotrained.py runs/tiny runs/tiny-cotrained

Rows of the same λ have the same warm start, activations and seeds. FVE is against the raw variance
of the held-out activations; intervals are 95 %, bootstrap over documents. The last columns pair
the co-trained model with the frozen one by activation and sample.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.stats import Interval, Resampler

FROZEN_RULER, OWN_RULER = "warm-start", "own"


def mean(table: pl.DataFrame, column: str) -> Interval:
    values = table[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return Resampler(table["doc_id"].to_list()).mean(values)


def change(table: pl.DataFrame, other: pl.DataFrame) -> Interval:
    """FVE of ``table`` less that of ``other``, by activation and sample."""
    keys = ["idx", "sample"]
    joined = table.join(other.select(*keys, other="fve"), on=keys)
    return mean(joined.with_columns(change=pl.col("fve") - pl.col("other")), "change")


def shown(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("frozen", type=Path)
    parser.add_argument("cotrained", type=Path)
    given = parser.parse_args()
    frozen, cotrained = (
        pl.read_parquet(course / "completions" / "completions.parquet")
        for course in (given.frozen, given.cotrained)
    )
    print(
        "| λ | AR in RL | content tokens | FVE, frozen ruler | FVE, own AR "
        "| own less frozen ruler | own AR, against frozen arm "
        "| frozen ruler, against frozen arm |\n|--:|---|--:|---|---|---|---|---|"
    )
    for penalty in cotrained["length_penalty"].drop_nulls().unique().sort():
        before = frozen.filter(
            (pl.col("length_penalty") == penalty) & (pl.col("ar") == FROZEN_RULER)
        )
        own, fixed = (
            cotrained.filter((pl.col("length_penalty") == penalty) & (pl.col("ar") == ruler))
            for ruler in (OWN_RULER, FROZEN_RULER)
        )
        length = np.round([mean(one, "content_tokens").value for one in (before, own)], 1)
        print(
            f"| {penalty:g} | frozen | {length[0]} | {shown(mean(before, 'fve'))} | – | – | – | – |"
        )
        cells = [
            f"{penalty:g}",
            "co-trained",
            f"{length[1]}",
            shown(mean(fixed, "fve")),
            shown(mean(own, "fve")),
            shown(change(own, fixed)),
            shown(change(own, before)),
            shown(change(fixed, before)),
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
