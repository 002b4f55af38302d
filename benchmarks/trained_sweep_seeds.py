"""Do trained sweeps of several seeds agree? One Markdown table from their completions.

    python benchmarks/trained_sweep_seeds.py runs/tiny runs/tiny-seed1 runs/tiny-seed2

Intervals are 95 %, bootstrap over documents; differences are paired by activation and sample.
FVE is by the frozen AR of the warm start, against the raw variance of the held-out activations; a
failed explanation has none and drops out of the pairs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl
import yaml

from nla_audit.stats import Interval, Resampler

WARM_START, WITHOUT_PENALTY = "warm-start", "p0.0"
#: What the demo promises (must-show 1 of the trainer).
LEAST_GAIN, LEAST_SAVING, MOST_LOSS = 0.05, 0.25, 0.03


def sweep(course: Path) -> tuple[list[list[str]], dict[str, str]]:
    """Rows of the table for one course, and its verdicts."""
    table = pl.read_parquet(course / "completions" / "completions.parquet").filter(
        pl.col("ar") == WARM_START
    )
    models = table["model"].unique(maintain_order=True).to_list()
    rows, gains, kept, collapsed = [], {}, [], False
    for model in models:
        own = table.filter(pl.col("model") == model)
        resampler = Resampler(own["doc_id"].to_list())
        fve = resampler.mean(_floats(own, "fve"))
        length = resampler.mean(_floats(own, "content_tokens"))
        gain, change = (paired(table, model, other) for other in (WARM_START, WITHOUT_PENALTY))
        saving = _saving(table, model)
        gains[model] = gain
        penalty = own["length_penalty"][0]
        if penalty and saving >= LEAST_SAVING and change.low > -MOST_LOSS:
            kept.append(f"λ = {penalty:g}")
        # All that RL gained is lost, or there is hardly an explanation left to score.
        collapsed = penalty is not None and (gain.high < 0 or own["extracted"].mean() < 0.5)
        rows.append(
            [
                model,
                _plain(fve),
                f"{length.value:.1f}",
                f"{own['extracted'].mean():.1%}",
                "–" if model == WARM_START else _plain(gain),
                "–" if model in (WARM_START, WITHOUT_PENALTY) else _plain(change),
                "–" if model in (WARM_START, WITHOUT_PENALTY) else f"{saving:.0%}",
            ]
        )
    gain = gains[WITHOUT_PENALTY]
    verdicts = {
        f"λ = 0 beats the warm start by {LEAST_GAIN} or more": _yes(gain.low >= LEAST_GAIN),
        f"{LEAST_SAVING:.0%} fewer content tokens at a paired change above −{MOST_LOSS}": (
            ", ".join(kept) or "no λ"
        ),
        "the largest λ collapses (below the warm start)": _yes(collapsed),
    }
    return rows, verdicts


def paired(table: pl.DataFrame, model: str, other: str) -> Interval:
    """Mean FVE of ``model`` minus that of ``other`` over activations and samples both have."""
    keys = ["idx", "sample"]
    joined = table.filter(pl.col("model") == model).join(
        table.filter(pl.col("model") == other).select(*keys, other=pl.col("fve")), on=keys
    )
    differences = _floats(joined, "fve") - _floats(joined, "other")
    return Resampler(joined["doc_id"].to_list()).mean(differences)


def _saving(table: pl.DataFrame, model: str) -> float:
    def tokens(name: str) -> float:
        return float(np.mean(_floats(table.filter(pl.col("model") == name), "content_tokens")))

    return 1 - tokens(model) / tokens(WITHOUT_PENALTY)


def _floats(frame: pl.DataFrame, column: str) -> np.ndarray:
    return frame[column].cast(pl.Float64).to_numpy().astype(np.float64)


def _plain(interval: Interval) -> str:
    if np.isnan(interval.value):
        return "–"
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("courses", type=Path, nargs="+")
    courses = parser.parse_args().courses
    for course in courses:
        recipe = yaml.safe_load((course / "recipe.yaml").read_text(encoding="utf-8"))
        done = json.loads((course / "completions" / "done.json").read_text(encoding="utf-8"))
        how = "co-trained" if done["ar_trained_in_rl"] else "frozen"
        print(f"\n## {recipe['name']}, seed {recipe['seed']}, AR {how}\n")
        rows, verdicts = sweep(course)
        print(
            "| model | FVE | content tokens | extracted | against warm start | against λ = 0 "
            "| tokens saved |\n|---|---|--:|--:|---|---|--:|"
        )
        for row in rows:
            print(f"| {' | '.join(row)} |")
        print()
        for question, answer in verdicts.items():
            print(f"- {question}: **{answer}**")


if __name__ == "__main__":
    main()
