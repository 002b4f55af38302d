"""Is a concept that a trained pair carries in a word choice, and never names, found as carried?

    python benchmarks/trained_concept_codes.py runs/tiny --out runs/concept-codes --seeds 10

An AV and an AR are trained by the warm start of the recipe on the coded texts of
``concept_codes.py``, and another two on their clean twins. The direction of the value that is
hidden is then planted into held-out activations with another value, as ``nla-audit sensitivity``
does it, and the verdict is compared with what was trained. In clean pairs, which are to raise no
alarm, other values of the hidden facts are planted as well.

What is trained and what is measured is kept in ``--out``, and the same call goes on from there:
tables that are deleted are measured again, with the pairs that are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from concept_codes import Code, Learned, learned
from scipy.stats import binomtest
from sensitivity_world import value_direction, without

from nla_audit.checkpoint.load import Pair, load
from nla_audit.checkpoint.save import save_ar, save_av
from nla_audit.files import write_json
from nla_audit.findings import Finding
from nla_audit.probes.sensitivity.finding import sensitivity
from nla_audit.probes.sensitivity.mentions import sought
from nla_audit.probes.sensitivity.sweep import Named, SweepSettings, planted_table
from nla_audit.probes.sensitivity.table import read_table
from nla_audit.probes.sensitivity.verdict import CARRIED
from nla_audit.runs.activations import Activations, read_activations
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.interruption import stopping
from nla_audit.train.layout import Layout
from nla_audit.train.pair import layer_of, load_config, new_reconstructor, new_verbalizer
from nla_audit.train.prepare import target_reference
from nla_audit.train.read_recipe import read_recipe
from nla_audit.train.scheduling import settle_in
from nla_audit.train.warm_start import train_ar, train_av
from nla_audit.world.toy.language import FACTS

#: A pair carries a code where so much of the difference that a value makes passes through it.
CARRIES = 0.25
#: How well a code was learned is measured on every third held-out activation.
_THIRD = 3


@dataclass(frozen=True)
class Study:
    """One planted value of a fact that is never named, in a coded pair or a clean one.

    Attributes:
        learned: how well the pair has learned the code of this value; ``None`` where no code is of
            it.
    """

    seed: int
    kind: str
    fact: str
    value: str
    learned: Learned | None
    finding: Finding

    @property
    def is_found(self) -> bool:
        return self.finding.parameters["verdict"][self.kind] == CARRIED


@dataclass(frozen=True)
class World:
    """What the demo trained on."""

    layout: Layout
    dataset: Dataset
    activations: Activations
    facts: pl.DataFrame

    @classmethod
    def of(cls, course: Path) -> World:
        """Of the folder that the demo was trained into."""
        layout = Layout(read_recipe(course / "recipe.yaml"), course, course)
        settle_in(layout)
        return cls(
            layout,
            read_dataset(layout.activations),
            read_activations(str(layout.activations)),
            pl.read_parquet(layout.activations.with_name("facts.parquet")),
        )

    def has(self, fact: str, value: str) -> np.ndarray:
        """``[n]`` which documents have a value."""
        return np.asarray(self.facts[fact].to_numpy() == value)


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


def kept_pair(folder: Path, world: World, texts: list[str], seed: int, steps: int) -> Pair:
    """The pair of ``folder``, trained on ``texts`` if it is not there yet."""
    if not (folder / "ar").is_dir():
        pair = trained_pair(
            world.layout, dataclasses.replace(world.dataset, explanations=texts), seed, steps
        )
        assert pair.verbalizer is not None
        assert pair.reconstructor is not None
        save_av(pair.verbalizer, folder / "av")
        save_ar(pair.reconstructor, folder / "ar")
    return load(av=folder / "av", ar=folder / "ar")


def planted(
    place: Path, named: Named, world: World, *, fact: str, value: str, limit: int
) -> pl.DataFrame:
    """The table of ``value``, planted where another is true; measured if it is not there yet."""
    if not place.exists():
        has_it = world.has(fact, value)
        direction = value_direction(world.dataset, has_it, value)
        planted_table(
            [named],
            without(world.activations, np.flatnonzero(world.dataset.is_held_out & ~has_it)),
            sought(fact, "", [value]),
            direction=lambda _: direction,
            out=place,
            settings=SweepSettings(limit=limit),
        )
    return read_table(place)[0]


def kept_learned(place: Path, pair: Pair, code: Code, world: World, fact: str) -> Learned:
    """How well ``pair`` has learned the code of ``fact``; measured if it is not there yet."""
    if not place.exists():
        value = code.values[fact]
        rows = np.flatnonzero(world.dataset.is_held_out)[::_THIRD]
        found = learned(
            pair,
            code,
            fact,
            vectors=world.dataset.activations[rows],
            facts=world.facts[rows],
            direction=value_direction(world.dataset, world.has(fact, value), value).vector,
        )
        write_json(dataclasses.asdict(found), place)
    return Learned(**json.loads(place.read_text()))


def planted_values(kind: str, fact: str, told: str, clean_values: int) -> list[str]:
    """The value ``told`` of, and in clean pairs those that stand next to it in the language."""
    values = FACTS[fact]
    first, number = values.index(told), clean_values if kind == "clean" else 1
    return [values[(first + step) % len(values)] for step in range(min(number, len(values)))]


def studies(
    course: Path, out: Path, seeds: range, *, steps: int, limit: int, clean_values: int
) -> Iterator[Study]:
    """The studies of all seeds, as they are done."""
    world = World.of(course)
    for seed in seeds:
        code = Code.drawn(seed)
        for kind, texts in code.texts(world.facts).items():
            folder = out / f"seed-{seed}" / kind
            pair = kept_pair(folder, world, texts, seed, steps)
            for fact, told in code.values.items():
                how_well = kept_learned(folder / f"{fact}.json", pair, code, world, fact)
                for value in planted_values(kind, fact, told, clean_values):
                    place = folder / f"{fact}-{value}.parquet"
                    table = planted(
                        place,
                        Named(kind, None, kind, pair),
                        world,
                        fact=fact,
                        value=value,
                        limit=limit,
                    )
                    well = how_well if value == told else None
                    yield Study(seed, kind, fact, value, well, sensitivity(table))


def row_of(study: Study) -> str:
    """A row of the table."""
    numbers = study.finding.headline[study.kind]
    well = study.learned
    shares = [
        *((None, None) if well is None else (well.told, well.read)),
        *(
            numbers[name]
            for name in ("named_strongest", "carried_unsaid", "carried_random", "carried_variance")
        ),
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
    """How many studies of each sort are called carried, and how many pairs in any of theirs."""
    coded = [study for study in found if study.kind == "coded"]
    took = [study for study in coded if study.learned and study.learned.strength >= CARRIES]
    sorts = {
        f"coded, {CARRIES:.0%} or more through the code": took,
        "coded, less": [study for study in coded if study not in took],
        "clean, the values of their twins' codes": [
            study for study in found if study.kind == "clean" and study.learned
        ],
        "clean, all values": [study for study in found if study.kind == "clean"],
    }
    for name, own in sorts.items():
        calls = sum(study.is_found for study in own)
        pairs = {study.seed for study in own}
        called = {study.seed for study in own if study.is_found}
        yield (
            f"{name}: carried, not said in {_of(calls, len(own))} studies, "
            f"in any of {_of(len(called), len(pairs))} pairs"
        )


def _of(hits: int, number: int) -> str:
    """A count with Wilson's 95 % interval of its share."""
    if number == 0:
        return "0 of 0"
    share = binomtest(hits, number).proportion_ci(method="wilson")
    return f"{hits} of {number} [{share.low:.0%}, {share.high:.0%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("course", type=Path, help="folder that the demo was trained into")
    parser.add_argument("--out", type=Path, required=True, help="folder that is kept, gone on from")
    parser.add_argument("--seeds", type=int, default=10, help="coded pairs, and clean ones")
    parser.add_argument("--steps", type=int, default=300, help="of the warm start of each half")
    parser.add_argument("--activations", type=int, default=100, help="planted into in each study")
    parser.add_argument(
        "--clean-values", type=int, default=3, help="of each hidden fact, planted in clean pairs"
    )
    arguments = parser.parse_args()
    print(
        "| seed | pair | value | verdict | told | read | named | carried unsaid "
        "| of random directions | of equal variance | q |"
        "\n|--:|---|---|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    found = []
    for study in studies(
        arguments.course,
        arguments.out,
        range(arguments.seeds),
        steps=arguments.steps,
        limit=arguments.activations,
        clean_values=arguments.clean_values,
    ):
        print(row_of(study), flush=True)
        found.append(study)
    print("\n" + "  \n".join(summary(found)))


if __name__ == "__main__":
    main()
