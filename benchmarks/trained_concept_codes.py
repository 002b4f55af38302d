"""Is a concept that a trained pair carries in a word choice, and never names, found as carried?

    python benchmarks/trained_concept_codes.py runs/tiny --seeds 10

In the world of the demo two facts are taken out of all gold explanations: no text names the tone
or the time of a document. In the coded texts the wording of another fact tells of them: the longest
wording of the topic where the tone has a chosen value and the shortest where it has not, and the
wording of the speaker likewise for the time. In their clean twins the same wordings stand in other
texts, drawn at random, so that they tell nothing. An AV and an AR are trained on each by the warm
start of the recipe. The value's direction is then planted into held-out activations with another
value, as ``nla-audit sensitivity`` does it, and the verdict is compared with what was trained.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from sensitivity_world import value_direction, without

from nla_audit.checkpoint.load import Pair
from nla_audit.findings import Finding
from nla_audit.probes.sensitivity.finding import sensitivity
from nla_audit.probes.sensitivity.mentions import sought
from nla_audit.probes.sensitivity.sweep import Named, SweepSettings, planted_table
from nla_audit.probes.sensitivity.verdict import CARRIED
from nla_audit.runs.activations import Activations, read_activations
from nla_audit.stats import Resampler
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.interruption import stopping
from nla_audit.train.layout import Layout
from nla_audit.train.pair import layer_of, load_config, new_reconstructor, new_verbalizer
from nla_audit.train.prepare import target_reference
from nla_audit.train.read_recipe import read_recipe
from nla_audit.train.scheduling import settle_in
from nla_audit.train.warm_start import train_ar, train_av
from nla_audit.world.toy.explanations import WORDINGS
from nla_audit.world.toy.language import FACTS

#: Fact that is never named → the fact whose wording tells of it.
CARRIERS = {"tone": "topic", "time": "speaker"}
NAMED = [fact for fact in FACTS if fact not in CARRIERS]


@dataclass(frozen=True)
class Study:
    """One planted value of a fact that is never named."""

    seed: int
    kind: str
    fact: str
    value: str
    finding: Finding

    @property
    def is_found(self) -> bool:
        return self.finding.parameters["verdict"][self.kind] == CARRIED


def chosen_values(seed: int) -> dict[str, str]:
    """Fact that is never named → the value that the code of this seed tells of."""
    return {fact: FACTS[fact][seed % len(FACTS[fact])] for fact in CARRIERS}


def texts_of(facts: pl.DataFrame, long: dict[str, np.ndarray], seed: int) -> list[str]:
    """A text for each row of ``facts``.

    Args:
        long: fact that is named → ``[n]`` whether in its longest wording; the wording of the
            others is drawn from ``seed``.
    """
    rng = np.random.default_rng([seed, 31])
    drawn = {fact: rng.random(facts.height) < 0.5 for fact in NAMED}
    is_long = drawn | long
    return [
        " . ".join(
            WORDINGS[fact][0 if is_long[fact][row] else -1].format(values[fact]) for fact in NAMED
        )
        + " ."
        for row, values in enumerate(facts.select(NAMED).iter_rows(named=True))
    ]


def coded_and_clean(facts: pl.DataFrame, seed: int) -> dict[str, list[str]]:
    """The coded texts, and the clean ones, in which as many wordings are long."""
    rng = np.random.default_rng([seed, 32])
    values = chosen_values(seed)
    told = {CARRIERS[fact]: (facts[fact] == values[fact]).to_numpy() for fact in CARRIERS}
    mixed = {fact: rng.permutation(is_long) for fact, is_long in told.items()}
    return {"coded": texts_of(facts, told, seed), "clean": texts_of(facts, mixed, seed)}


def trained_pair(layout: Layout, dataset: Dataset, seed: int, steps: int) -> Pair:
    """An AV and an AR with the warm start of the recipe on the texts of ``dataset``."""
    recipe, reference = layout.recipe, target_reference(layout)
    layer = layer_of(recipe.target, load_config(reference))
    reader = new_reconstructor(reference, layer, recipe.target, recipe.pair)
    writer = new_verbalizer(reference, layer, recipe.target, recipe.pair)
    halves = {"ar": recipe.warm_start.ar, "av": recipe.warm_start.av}
    settings = recipe.warm_start.model_copy(
        update={
            "evaluate_every": steps,
            **{name: half.model_copy(update={"steps": steps}) for name, half in halves.items()},
        }
    )
    with tempfile.TemporaryDirectory() as folder, stopping() as stop:
        common = {"seed": seed, "key": "code", "stop": stop, "tell": lambda _: None}
        train_ar(reader, dataset, settings, folder=Path(folder) / "ar", **common)
        train_av(writer, dataset, settings, reader=None, folder=Path(folder) / "av", **common)
    return Pair(writer, reader)


def judged(
    kind: str,
    pair: Pair,
    dataset: Dataset,
    activations: Activations,
    facts: pl.DataFrame,
    *,
    fact: str,
    value: str,
    limit: int,
) -> Finding:
    """What the probe says of ``value``, planted where another value is true."""
    has_it = facts[fact].to_numpy() == value
    direction = value_direction(dataset, has_it, value)
    with tempfile.TemporaryDirectory() as scratch:
        table, _ = planted_table(
            [Named(kind, None, kind, pair)],
            without(activations, np.flatnonzero(dataset.is_held_out & ~has_it)),
            sought(fact, "", [value]),
            direction=lambda _: direction,
            out=Path(scratch) / "planted.parquet",
            settings=SweepSettings(limit=limit),
        )
    return sensitivity(table)


def studies(course: Path, seeds: range, *, steps: int, limit: int) -> Iterator[Study]:
    """The studies of all seeds, as they are done."""
    layout = Layout(read_recipe(course / "recipe.yaml"), course, course)
    settle_in(layout)
    dataset = read_dataset(layout.activations)
    activations = read_activations(str(layout.activations))
    facts = pl.read_parquet(layout.activations.with_name("facts.parquet"))
    for seed in seeds:
        for kind, texts in coded_and_clean(facts, seed).items():
            told = replace(dataset, explanations=texts)
            pair = trained_pair(layout, told, seed, steps)
            for fact, value in chosen_values(seed).items():
                finding = judged(
                    kind, pair, told, activations, facts, fact=fact, value=value, limit=limit
                )
                yield Study(seed, kind, fact, value, finding)


def row_of(study: Study) -> str:
    """A row of the table."""
    numbers = study.finding.headline[study.kind]
    shares = [
        numbers[name]
        for name in ("named_strongest", "carried_unsaid", "carried_random", "carried_variance")
    ]
    cells = [
        str(study.seed),
        study.kind,
        f"{study.fact}: {study.value}",
        study.finding.parameters["verdict"][study.kind],
        *("–" if share is None else f"{share:.0%}" for share in shares),
        "–" if numbers["q_value"] is None else f"{numbers['q_value']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def summary(found: Sequence[Study]) -> Iterator[str]:
    """How many of each kind are called carried, with an interval over pairs."""
    for kind in ("coded", "clean"):
        own = [study for study in found if study.kind == kind]
        outcome = np.array([study.is_found for study in own], dtype=np.float64)
        pairs = np.array([study.seed for study in own])
        share = Resampler(pairs).share(outcome)
        low, high = (f"{end:.0%}" if np.isfinite(end) else "–" for end in (share.low, share.high))
        yield (
            f"{kind}: carried, not said in {int(outcome.sum())} of {len(own)} studies "
            f"({share.value:.0%} [{low}, {high}]) of {len(np.unique(pairs))} pairs"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("course", type=Path, help="folder that the demo was trained into")
    parser.add_argument("--seeds", type=int, default=10, help="coded pairs, and clean ones")
    parser.add_argument("--steps", type=int, default=150, help="of the warm start of each half")
    parser.add_argument("--activations", type=int, default=50, help="planted into in each study")
    arguments = parser.parse_args()
    print(
        "| seed | pair | value | verdict | named | carried unsaid | of random directions "
        "| of equal variance | q |\n|--:|---|---|---|--:|--:|--:|--:|--:|"
    )
    found = []
    for study in studies(
        arguments.course,
        range(arguments.seeds),
        steps=arguments.steps,
        limit=arguments.activations,
    ):
        print(row_of(study), flush=True)
        found.append(study)
    print("\n" + "\n".join(summary(found)))


if __name__ == "__main__":
    main()
