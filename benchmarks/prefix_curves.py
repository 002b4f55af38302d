"""Bias and coverage of what ``multiscale`` reads off planted curves of FVE by prefix.

``python benchmarks/prefix_curves.py > benchmarks/prefix_curves.md`` (a minute or two).
"""

from __future__ import annotations

import numpy as np

from nla_audit.analyzers._curve_numbers import HEADLINE, numbers_of
from nla_audit.analyzers._curves import curves_of
from nla_audit.record import commit
from nla_audit.table.prefix_table import prefixes_from_frame
from nla_audit.world.sweep.curves import PlantedCurve, plant_curves

SEEDS, ACTIVATIONS = 200, 60
CURVES = (
    PlantedCurve("late", start=-0.7, ceiling=0.68, pace=45.0, lengths=(90, 120)),
    PlantedCurve("turns", start=-0.5, pace=20.0, turn=50, loss=0.15, lengths=(100,)),
    PlantedCurve("flat", start=-0.5, pace=10.0, turn=30, loss=0.02, lengths=(100,)),
)


def main() -> None:
    """Print the table."""
    errors: dict[tuple[str, str], list[float]] = {}
    covered: dict[tuple[str, str], list[bool]] = {}
    truth = {}
    for seed in range(SEEDS):
        planted = plant_curves(CURVES, activations=ACTIVATIONS, seed=seed)
        truth = planted.truth
        for model, curve in curves_of(prefixes_from_frame(planted.table), "tokens").items():
            numbers = numbers_of(curve, seed)
            for name in HEADLINE:
                true, found = truth[model][name], numbers.values[name]
                if true is None or found is None:
                    continue
                errors.setdefault((model, name), []).append(found - true)
                ends = numbers.limits[name]
                if ends is not None:
                    covered.setdefault((model, name), []).append(ends[0] <= true <= ends[1])
    print(f"{SEEDS} seeds, {ACTIVATIONS} activations; 95 % intervals. A number of tokens is whole,")
    print("so that an interval of one or two tokens covers more often than it says, and one around")
    print(
        f"a best length that every seed finds (late) always does. Measured at commit {commit()}.\n"
    )
    print("| curve | number | truth | mean error | coverage | intervals |")
    print("| --- | --- | --: | --: | --: | --: |")
    for (model, name), wrong in errors.items():
        hit = covered.get((model, name), [])
        rate = f"{np.mean(hit):.1%}" if hit else "–"
        print(
            f"| {model} | {name} | {truth[model][name]:.3f} | {np.mean(wrong):+.3f} | {rate} | "
            f"{len(hit)} |"
        )


if __name__ == "__main__":
    main()
