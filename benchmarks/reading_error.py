"""How far readings are from planted truth, how often intervals cover it, and false alarms.

Each seed plants a grid of models beside a reference that states everything, and two null sweeps
in which a twin differs from the reference in nothing but its draws. All are audited from the texts
alone. Bias, spread and coverage go to ``reading_error.md``, as do the shares of null sweeps in
which an analyzer reports a loss.

Finished seeds are kept in a file (``--keep``), from which an interrupted run goes on.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import polars as pl
from rich.console import Console
from rich.progress import track

from nla_audit.analyzers import registry
from nla_audit.findings import Finding
from nla_audit.table.completions import Completions, from_frame
from nla_audit.world.sweep.demo import truth_beside_estimate
from nla_audit.world.sweep.planted import PlantedModel, plant

ANALYZERS = ("frontier", "drop-analysis", "rewording", "tail", "faithfulness")
REFERENCE = PlantedModel("reference", 0.0)
#: Settings from nothing changed to everything changed.
GRID = (
    PlantedModel("same", 0.001),
    PlantedModel("omit .3 reword .5", 0.002, omit=0.3, reword=0.5, tail_copy=0.3, spurious=0.1),
    PlantedModel("omit .6 reword 1", 0.003, omit=0.6, reword=1.0, tail_copy=1.0),
    PlantedModel("omit .9 add .5", 0.004, omit=0.9, reword=0.3, add=0.5, spurious=1.0),
    PlantedModel(
        "by kind",
        0.005,
        omit={"genre": 1.0, "style": 0.8, "number": 0.5, "momentum": 0.3, "repetition": 0.9},
        reword=0.6,
        filler=0.2,
    ),
)
#: What the reference and its twin both do in the null sweeps. No copied tails: whether tails are
#: held more often than chance is what the tail analyzer reports, with or without a reference.
TWIN = PlantedModel("twin", 0.001, omit=0.1, reword=0.2, add=0.3, spurious=0.15, filler=0.2)
NULLS = {"one sample": 1, "two samples": 2}
#: Share of null sweeps in which an analyzer may report a loss.
MOST_FALSE = 0.05
#: Coverage of a 95 % interval that is neither too narrow nor too wide.
COVERAGE = (0.90, 0.99)


@dataclass(frozen=True)
class Rate:
    """One planted rate in one seed. ``low`` and ``high`` are ``None`` without an interval."""

    seed: int
    model: str
    quantity: str
    truth: float
    estimate: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Alarm:
    """Whether an analyzer reports a loss in one sweep (``lossy``: the grid, where there is one)."""

    seed: int
    sweep: str
    analyzer: str
    reports_loss: bool


def reports_loss(finding: Finding) -> bool:
    """Whether the verdict says that a model is worse or says less than it should."""
    verdict = finding.verdict
    match finding.analyzer:
        case "frontier":
            return "does cost FVE" in verdict
        case "drop-analysis":
            return not verdict.startswith("No model is shown to drop")
        case "rewording":
            return "by omission" in verdict
        case "tail":
            return "No model holds the tail" not in verdict
        case "faithfulness":
            return "makes more claims" in verdict
    raise ValueError(f"no rule for the verdict of {finding.analyzer}")


def measure(seed: int, activations: int) -> tuple[list[Rate], list[Alarm]]:
    """Plant, read and compare the sweeps of one seed."""
    sweep = plant([REFERENCE, *GRID], activations=activations, seed=seed)
    findings = _audit(from_frame(sweep.completions, reference=sweep.reference), seed)
    table = truth_beside_estimate(sweep, findings).tables["rates"]
    rates = [
        Rate(
            seed,
            row["model"],
            row["quantity"],
            row["truth"],
            row["estimate"],
            row["estimate_low"],
            row["estimate_high"],
        )
        for row in table.filter(pl.col("model") != REFERENCE.name).iter_rows(named=True)
    ]
    alarms = [Alarm(seed, "lossy", f.analyzer, reports_loss(f)) for f in findings]
    for name in NULLS:
        for finding in _audit(null_sweep(name, seed, activations), seed):
            alarms.append(Alarm(seed, name, finding.analyzer, reports_loss(finding)))
    return rates, alarms


def null_sweep(name: str, seed: int, activations: int) -> Completions:
    """A reference and its twin, which differ in nothing but their draws."""
    own = replace(TWIN, name="reference", length_penalty=0.0, omit=0.0)
    sweep = plant(
        [own, TWIN],
        activations=activations,
        seed=seed,
        samples=NULLS[name],
        resampling_omission=TWIN.omission("genre"),
    )
    return from_frame(sweep.completions, reference=own.name)


def _audit(completions: Completions, seed: int) -> list[Finding]:
    cards = registry()
    return [cards[name].run(completions, seed=seed) for name in ANALYZERS]


def _measure_and_time(job: tuple[int, int]) -> dict[str, Any]:
    started = time.process_time()
    rates, alarms = measure(*job)
    return {
        "seed": job[0],
        "activations": job[1],
        "rates": [vars(rate) for rate in rates],
        "alarms": [vars(alarm) for alarm in alarms],
        "cpu_seconds": time.process_time() - started,
    }


def coverage_table(rates: pl.DataFrame) -> pl.DataFrame:
    """`model, quantity, planted, bias, sd, coverage, seeds`.

    An interval is to hold the rate of the population from which activations are drawn, which is
    the planted one: the mean over all seeds of what was realised. ``sd`` is that of the error
    against what was realised, the reading's own, which resampling activations cannot show.
    """
    error = pl.col("estimate") - pl.col("truth")
    planted = pl.col("truth").mean().over("model", "quantity")
    return (
        rates.with_columns(planted=planted)
        .group_by("model", "quantity", maintain_order=True)
        .agg(
            pl.col("planted").first(),
            bias=error.mean(),
            sd=error.std(),
            coverage=(
                (pl.col("low") <= pl.col("planted")) & (pl.col("planted") <= pl.col("high"))
            ).mean(),
            seeds=pl.len(),
        )
    )


def quantity_table(coverage: pl.DataFrame) -> pl.DataFrame:
    """One row per quantity: over all settings, bias, largest bias, spread and coverage."""
    worst = pl.col("bias").abs().arg_max()
    return coverage.group_by("quantity", maintain_order=True).agg(
        bias=pl.col("bias").mean(),
        sd=(pl.col("sd") ** 2).mean().sqrt(),
        largest_bias=pl.col("bias").get(worst),
        where=pl.col("model").get(worst),
        coverage=pl.col("coverage").mean(),
        least_coverage=pl.col("coverage").min(),
    )


def alarm_table(alarms: pl.DataFrame) -> pl.DataFrame:
    """One row per analyzer: the share of sweeps of each sort with a reported loss."""
    shares = alarms.pivot(
        on="sweep", index="analyzer", values="reports_loss", aggregate_function="mean"
    )
    return shares.select("analyzer", *NULLS, "lossy")


def report(results: Sequence[dict[str, Any]], command: str) -> str:
    """The benchmark's page, in Markdown."""
    rates = pl.DataFrame([rate for result in results for rate in result["rates"]])
    alarms = pl.DataFrame([alarm for result in results for alarm in result["alarms"]])
    coverage = coverage_table(rates)
    short = coverage.filter(pl.col("coverage") < COVERAGE[0])
    known = coverage.filter(pl.col("coverage").is_not_null())
    wide = known.filter(pl.col("coverage") > COVERAGE[1])
    where = ", ".join(f"{row['quantity']} of “{row['model']}”" for row in short.to_dicts())
    activations = results[0]["activations"]
    lines = [
        "# Error of readings on planted truth",
        "",
        f"`{command}`: {len(results)} seeds, {activations} activations each, "
        f"{sum(result['cpu_seconds'] for result in results) / len(results):.0f} seconds of "
        "processor time a seed.",
        "",
        "Bias and sd are of the estimate less what was realised, in hundredths. An interval "
        "covers when it holds the planted rate. Settings:",
        "",
        *(f"- {_described(model)}" for model in (REFERENCE, *GRID)),
        "",
        "## By quantity, over all settings",
        "",
        *_markdown(quantity_table(coverage), hundredths=("bias", "sd", "largest_bias")),
        "",
        "## By setting",
        "",
        f"{short.height} of {known.height} coverages are below {COVERAGE[0]:.0%}"
        f"{f' ({where})' if where else ''}; {wide.height} are above {COVERAGE[1]:.0%}, where an "
        "interval is wider than it need be: it allows for what cannot be told. A rate of 0 or 1 "
        "that is read without error is always covered.",
        "",
        *_markdown(coverage, hundredths=("bias", "sd")),
        "",
        "## Losses reported",
        "",
        f"Where a twin differs from the reference in nothing, at most {MOST_FALSE:.0%} of sweeps "
        "may be reported as a loss; `lossy` is the grid above, where there is one to report. "
        f"Twin and reference: {_described(TWIN)}.",
        "",
        *_markdown(alarm_table(alarms)),
        "",
    ]
    return "\n".join(lines)


def _described(model: PlantedModel) -> str:
    set_rates = {
        name: rate
        for name, rate in vars(model).items()
        if name not in ("name", "length_penalty") and rate
    }
    rates = ", ".join(f"{name} {rate}" for name, rate in set_rates.items())
    return f"**{model.name}**: {rates or 'everything as it is'}"


def _markdown(table: pl.DataFrame, hundredths: Sequence[str] = ()) -> Iterator[str]:
    yield "| " + " | ".join(name.replace("_", " ") for name in table.columns) + " |"
    yield "|" + " --- |" * table.width
    for row in table.iter_rows(named=True):
        cells = []
        for name, value in row.items():
            if name in hundredths:
                cells.append("" if value is None else f"{100 * value:+.1f}")
            elif isinstance(value, float):
                cells.append(f"{value:.3f}" if name == "planted" else f"{value:.1%}")
            else:
                cells.append("" if value is None else str(value))
        yield "| " + " | ".join(cells) + " |"


@click.command(help=__doc__)
@click.option("--seeds", default=200, show_default=True, help="How many seeds, from 0.")
@click.option("--activations", default=400, show_default=True, help="Activations of each sweep.")
@click.option("--jobs", default=2, show_default=True, help="Processes.")
@click.option("--keep", type=click.Path(path_type=Path), help="File of finished seeds (JSONL).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(__file__).with_suffix(".md"),
    help="The report.  [default: beside this file]",
)
def main(seeds: int, activations: int, jobs: int, keep: Path | None, out: Path) -> None:
    """Measure all seeds that are not kept yet, then write the report."""
    results: dict[int, dict[str, Any]] = {}
    if keep is not None and keep.exists():
        for line in keep.read_text().splitlines():
            result = json.loads(line)
            if result["activations"] == activations:
                results[result["seed"]] = result
    todo = [(seed, activations) for seed in range(seeds) if seed not in results]
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read by the processes that follow
    with get_context("spawn").Pool(jobs) as pool:
        done = pool.imap_unordered(_measure_and_time, todo)
        for result in track(done, "seeds", len(todo), console=Console(stderr=True)):
            results[result["seed"]] = result
            if keep is not None:
                with keep.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    command = shlex.join(["python", "benchmarks/reading_error.py", *sys.argv[1:]])
    page = report([results[seed] for seed in range(seeds)], command)
    temporary = out.with_name(out.name + ".part")
    temporary.write_text(page)
    temporary.replace(out)


if __name__ == "__main__":
    main()
