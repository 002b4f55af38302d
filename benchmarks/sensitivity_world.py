"""In the world of the demo: how strong must a fact be before each model of the sweep names it?

    python benchmarks/sensitivity_world.py runs/tiny

The world knows every fact of every document. The direction of one value of each fact is the mean
of the training activations that have it less that of those that do not; it is planted into
held-out activations with another value, and each model of the sweep is asked. Beside the threshold
stands how often the model names that fact rightly where nothing is planted. At the end: which facts
the smallest penalty drops that drops any, and whether their thresholds without a penalty were above
those of the facts that it keeps.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.checkpoint.load import load
from nla_audit.nla.fve import scaled
from nla_audit.probes.sensitivity.directions import Direction, unit
from nla_audit.probes.sensitivity.finding import sensitivity
from nla_audit.probes.sensitivity.mentions import sought
from nla_audit.probes.sensitivity.sweep import Named, SweepSettings, planted_table
from nla_audit.runs.activations import Activations, read_activations
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.layout import Layout
from nla_audit.train.read_recipe import read_recipe
from nla_audit.world.toy.facts import facts_named
from nla_audit.world.toy.language import FACTS


def value_direction(dataset: Dataset, has_it: np.ndarray, value: str) -> Direction:
    """The mean of training activations with a value less that of those without it."""
    rows = dataset.training_rows
    directions = scaled(dataset.activations[rows], 1.0)
    apart = directions[has_it[rows]].mean(axis=0) - directions[~has_it[rows]].mean(axis=0)
    vector = unit(apart, name=value, width=len(apart))
    return Direction(value, vector, "difference of means over training activations")


def models_of(layout: Layout) -> Iterator[Named]:
    """Each model of the sweep with its own AR, or that of the warm start where it was frozen."""
    for run in layout.runs:
        folder = layout.run(run)
        ar = folder / "ar" if (folder / "ar").is_dir() else layout.warm_start / "ar"
        pair = load(av=folder / "av", ar=ar)
        yield Named(run.name, run.length_penalty, ar.parent.name, pair)


@dataclass(frozen=True)
class NamedRightly:
    """How often a model names a fact rightly of itself, with its interval."""

    right: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class Level:
    """A threshold with its interval; 0 and infinity are beyond the ends of the ladder."""

    low: float
    high: float
    told: str


def rightly_named(layout: Layout, facts: pl.DataFrame) -> dict[tuple[str, str], NamedRightly]:
    """(model, fact) → the share of the sweep's own explanations that name it rightly."""
    completions = pl.read_parquet(layout.completions)
    named = facts_named(completions, facts, dict.fromkeys(FACTS, np.nan)).tables["facts"]
    columns = ("model", "fact", "right", "right_low", "right_high", "chance")
    return {
        (model, fact): NamedRightly(*shares)
        for model, fact, *shares in named.select(columns).iter_rows()
        if fact in FACTS
    }


def level_of(row: Mapping[str, float | None], told: str) -> Level:
    """The threshold in a row of the headline."""
    low, high = row["alpha50_low"], row["alpha50_high"]
    return Level(0.0 if low is None else low, np.inf if high is None else high, told)


def order_told(
    penalties: Mapping[str, float],
    named: Mapping[tuple[str, str], NamedRightly],
    levels: Mapping[str, Level],
) -> str:
    """Whether the facts that go first have the highest thresholds without a penalty.

    A fact is said where it is named rightly more often than by chance without a penalty, and
    dropped by a model that surely names it less than half as often.

    Args:
        penalties: model → λ; the smallest is the reference.
        named: of every model and fact.
        levels: fact → threshold of the reference.
    """
    reference, *others = sorted(penalties, key=lambda model: penalties[model])
    said = [fact for fact in levels if named[reference, fact].low > named[reference, fact].chance]
    silent = [fact for fact in levels if fact not in said]
    lines = [f"Not said by {reference} of itself: {_listed(silent, levels)}."] if silent else []
    for model in others:
        lost = [fact for fact in said if named[model, fact].high < named[reference, fact].right / 2]
        if lost:
            break
    else:
        return " ".join([*lines, "No model drops a fact."])
    kept = [fact for fact in said if fact not in lost]
    lines.append(
        f"The smallest penalty that drops any is that of {model}: it drops {_listed(lost, levels)} "
        f"and keeps {_listed(kept, levels)}."
    )
    if not kept:
        lines.append("Since it drops all, what goes first cannot be told.")
    elif all(levels[one].low > levels[other].high for one in lost for other in kept):
        lines.append("What goes first has the highest thresholds.")
    elif any(levels[one].high < levels[other].low for one in lost for other in kept):
        lines.append("What goes first does not have the highest thresholds.")
    else:
        lines.append("Whether what goes first has the highest thresholds cannot be told.")
    return " ".join(lines)


def _listed(facts: list[str], levels: Mapping[str, Level]) -> str:
    return ", ".join(f"{fact} (α50 {levels[fact].told})" for fact in facts) or "nothing"


def without(activations: Activations, rows: np.ndarray) -> Activations:
    """The activations of ``rows`` alone."""
    return replace(
        activations, keys=activations.keys[rows], vectors=activations.vectors[rows], problems={}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("course", type=Path, help="folder that the demo was trained into")
    parser.add_argument("--activations", type=int, default=60, help="planted into, for each fact")
    arguments = parser.parse_args()
    course: Path = arguments.course
    layout = Layout(read_recipe(course / "recipe.yaml"), course, course)
    dataset = read_dataset(layout.activations)
    activations = read_activations(str(layout.activations))
    facts = pl.read_parquet(layout.activations.with_name("facts.parquet"))
    named = rightly_named(layout, facts)
    penalties = {run.name: run.length_penalty for run in layout.runs}
    reference = min(penalties, key=lambda model: penalties[model])
    levels: dict[str, Level] = {}
    print(
        "| fact | value | model | named rightly | verdict | α50 | named by chance "
        "| carried unsaid |\n|---|---|---|--:|---|---|--:|--:|"
    )
    for fact, values in FACTS.items():
        value = values[0]
        has_it = facts[fact].to_numpy() == value
        rows = np.flatnonzero(dataset.is_held_out & ~has_it)
        direction = value_direction(dataset, has_it, value)
        with tempfile.TemporaryDirectory() as scratch:
            table, _ = planted_table(
                models_of(layout),
                without(activations, rows),
                sought(fact, "", [value]),
                direction=lambda _, found=direction: found,
                out=Path(scratch) / "planted.parquet",
                settings=SweepSettings(limit=arguments.activations),
            )
        finding = sensitivity(table)
        thresholds = dict(finding.tables["thresholds"].select("model", "said_of_it").iter_rows())
        levels[fact] = level_of(finding.headline[reference], thresholds[reference])
        for model, numbers in finding.headline.items():
            cells = [
                fact,
                value,
                model,
                f"{named[model, fact].right:.0%}",
                finding.parameters["verdict"][model],
                thresholds[model],
                f"{numbers['named_unplanted'] or 0:.0%}",
                f"{numbers['carried_unsaid'] or 0:.0%}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{order_told(penalties, named, levels)}")


if __name__ == "__main__":
    main()
