"""What peers' measures say of trained sweeps, each beside its control.

Run from the repository root on folders that ``nla-audit train recipes/tiny-multiscale.yaml``
made, one for each seed::

    .venv/bin/python -m benchmarks.ar_questions runs/seed-0 runs/seed-1

and put the tables into ``benchmarks/ar_questions.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from nla_audit.analyzers import registry as analyzers
from nla_audit.findings import Finding
from nla_audit.probes import registry as probes
from nla_audit.table.completions import Completions, load

MODELS = ("warm-start", "p0.0", "p0.0005")
#: Numbers of each measure, the control of each behind it (``chance_…`` where it has one).
NUMBERS = {
    "reliability": ("fve_icc", "length_icc", "fve_samples_needed"),
    "shrinkage": ("slope", "fve", "fve_rescaled"),
    "whitened": ("whitened_fve", "whitened_fve_rescaled"),
    "token-match": ("token_picked", "token_ahead", "source_ahead"),
    "splice": ("kl", "kl_mean", "kl_recovered", "times_noise"),
    "predictive-gain": ("gain", "gain_over_another", "better_than_another"),
}


def findings(run: Path) -> Iterator[Finding]:
    """Every measure of one run, by the AR that all its models share."""
    completions: Completions = load(
        run / "completions" / "completions.parquet", models=MODELS, reference="p0.0"
    )
    given = {
        "pair": str(run / "warm-start" / "ar"),
        "activations": str(run / "activations" / "activations.parquet"),
    }
    target = str(run / "target" / "model")
    yield analyzers()["reliability"].answer(completions, seed=0)
    for name in ("shrinkage", "whitened", "token-match"):
        yield probes()[name].answer(completions, seed=0, **given)
    yield probes()["splice"].answer(completions, seed=0, target=target, **given)
    yield probes()["predictive-gain"].answer(
        completions, seed=0, base_model=target, activations=given["activations"]
    )


def shown(own: dict[str, float | None], name: str) -> str:
    """``0.59 [0.57, 0.61]``, and its control behind it."""
    value, low, high = (own.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "–"
    text = f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"
    chance = own.get(f"chance_{name}")
    return text if chance is None else f"{text} ({chance:.2f})"


def main() -> None:
    """Print a table for each measure: a row a number and run, a column a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    rows: dict[str, list[tuple[str, ...]]] = {name: [] for name in NUMBERS}
    for run in parser.parse_args().runs:
        for finding in findings(run):
            for name in NUMBERS[finding.analyzer]:
                cells = (shown(finding.headline.get(model, {}), name) for model in MODELS)
                rows[finding.analyzer].append((name, run.name, *cells))
            print(f"{run.name}, {finding.analyzer}: {finding.verdict}", flush=True)
            if finding.analyzer == "reliability":
                shares = finding.tables["components"].filter(pl.col("measure") == "fve")
                print(shares.select("component", "share"), flush=True)
    for analyzer, numbers in rows.items():
        print(f"\n**{analyzer}**\n\n| number | run | {' | '.join(MODELS)} |")
        print("|---|---|" + "--:|" * len(MODELS))
        for cells in sorted(numbers, key=lambda one: NUMBERS[analyzer].index(one[0])):
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
