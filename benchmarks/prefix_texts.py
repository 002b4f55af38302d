"""How often ``multiscale`` tells of planted lengths and planted orders what is true of them.

``python benchmarks/prefix_texts.py > benchmarks/prefix_texts.md`` (some minutes).
"""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np

from nla_audit.analyzers._needs import lengths_and_needs
from nla_audit.analyzers._order import order_of_worth
from nla_audit.record import commit
from nla_audit.table.completions import from_frame
from nla_audit.table.prefix_table import prefixes_from_frame
from nla_audit.world.sweep.prefix_texts import (
    OTHER,
    PLAIN,
    Lengths,
    Worths,
    plant_needs,
    plant_worths,
)

SEEDS, ACTIVATIONS, TEXTS = 50, 128, 250


def main() -> None:
    """Print both tables."""
    print(f"{SEEDS} seeds; {ACTIVATIONS} activations for lengths, {TEXTS} for orders.")
    print(f"Measured at commit {commit()}.\n")
    print("Lengths that follow what activations need, have nothing to do with it, or fall with it;")
    print("noise is that of the need which one sample shows (its logarithm).\n")
    print("| lengths | noise | mean ρ | mean reliability | what is said |")
    print("| --- | --: | --: | --: | --- |")
    for lengths in get_args(Lengths):
        for noise in (0.3, 1.0):
            said: Counter[str] = Counter()
            rho, reliability = [], []
            for seed in range(SEEDS):
                table = plant_needs(lengths, activations=ACTIVATIONS, seed=seed, noise=noise)
                found = lengths_and_needs(prefixes_from_frame(table, reference=PLAIN), seed)
                row = next(one for one in found.to_dicts() if one["model"] == OTHER)
                said[row["lengths"]] += 1
                rho.append(row["rho"])
                reliability.append(row["need_reliability"])
            print(
                f"| {lengths} | {noise} | {np.mean(rho):+.2f} | {np.mean(reliability):.2f} | "
                f"{_counts(said)} |"
            )
    print("\nGains of kinds of claims along their usual order; ρ is of kinds' places and worths.\n")
    print("| gains | mean ρ | worth most first | worth most last | neither |")
    print("| --- | --: | --: | --: | --: |")
    for worths in get_args(Worths):
        answers: Counter[str] = Counter()
        rho = []
        for seed in range(SEEDS):
            texts, prefixes, _ = plant_worths(worths, activations=TEXTS, seed=seed)
            found = order_of_worth(
                prefixes_from_frame(prefixes), from_frame(texts), None, seed
            ).models.to_dicts()[0]
            rho.append(found["kinds_rho"])
            low, high = found["kinds_rho_low"], found["kinds_rho_high"]
            answers["first" if high < 0 else "last" if low > 0 else "neither"] += 1
        cells = " | ".join(str(answers[name]) for name in ("first", "last", "neither"))
        print(f"| {worths} | {np.mean(rho):+.2f} | {cells} |")


def _counts(said: Counter[str]) -> str:
    return ", ".join(f"{answer} {number}" for answer, number in said.most_common())


if __name__ == "__main__":
    main()
