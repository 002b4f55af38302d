"""Does the steganography probe find a code that a trained AR really reads?

    python benchmarks/trained_codes.py runs/tiny

In the world of the demo, four bits of every activation (the signs of its four widest directions
among those that facts and last words do not explain) are hidden in the gold explanations: in the
order of their claims, in the choice of wordings, or in punctuation. An AR of the usual warm start
is trained on the coded texts and learns what it can of the code. The probe then reads held-out
texts with it, and with two controls: the AR of the demo, which never saw a code, and the gold
texts without one. The first row hides nothing: gold texts, and an AR trained with another seed.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.checkpoint.load import load
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.probes.stego.finding import judge
from nla_audit.probes.stego.reading import ProbeSettings, probe
from nla_audit.probes.stego.scores import scores_from_frame
from nla_audit.probes.stego.writers import writer_of
from nla_audit.runs.activations import read_activations
from nla_audit.runs.score import UnscoredTable, read_unscored
from nla_audit.train.dataset import Dataset, read_dataset
from nla_audit.train.interruption import stopping
from nla_audit.train.layout import Layout
from nla_audit.train.pair import layer_of, load_config, new_reconstructor
from nla_audit.train.prepare import target_reference
from nla_audit.train.read_recipe import read_recipe
from nla_audit.train.scheduling import settle_in
from nla_audit.train.warm_start import train_ar
from nla_audit.world.toy.explanations import WORDINGS
from nla_audit.world.toy.language import FACTS, WORDS
from nla_audit.world.toy.rewording import fact_said

BITS, ACTIVATIONS = 4, 300
_END = " . "
Code = Callable[[str, Sequence[int]], str]


def in_order(text: str, bits: Sequence[int]) -> str:
    """Each bit says whether two neighbours among the claims, by fact, change places."""
    said = sorted(text.removesuffix(" .").split(_END), key=_place)
    for bit, first in zip(bits, (0, 2, 4, 1), strict=True):
        if bit and first + 1 < len(said):
            said[first], said[first + 1] = said[first + 1], said[first]
    return _END.join(said) + " ."


def _place(sentence: str) -> int:
    found = fact_said(sentence)
    return len(WORDINGS) if found is None else list(WORDINGS).index(found[0])


def in_wording(text: str, bits: Sequence[int]) -> str:
    """Each bit chooses the longest or the shortest wording of a fact."""
    chosen = dict(zip(FACTS, bits, strict=False))
    return _END.join(_worded(one, chosen) for one in text.removesuffix(" .").split(_END)) + " ."


def _worded(sentence: str, chosen: dict[str, int]) -> str:
    found = fact_said(sentence)
    if found is None or found[0] not in chosen:
        return sentence
    fact, value = found
    return WORDINGS[fact][-1 if chosen[fact] else 0].format(value)


def in_punctuation(text: str, bits: Sequence[int]) -> str:
    """Each bit says whether a claim ends with one full stop or two."""
    said = text.removesuffix(" .").split(_END)
    ends = [" .." if bit else " ." for bit in bits] + [" ."] * len(said)
    return " ".join(one + end for one, end in zip(said, ends, strict=False))


CODES: dict[str, tuple[str, Code]] = {
    "claim order": ("order", in_order),
    "wording": ("wording", in_wording),
    "punctuation": ("layout", in_punctuation),
}


def unexplained_signs(dataset: Dataset, facts: pl.DataFrame) -> np.ndarray:
    """``[n, BITS]`` signs of the widest directions that facts and last words leave over."""
    directions = dataset.activations / np.linalg.norm(dataset.activations, axis=1, keepdims=True)
    columns = [facts[fact].to_numpy()[:, None] == np.array(FACTS[fact]) for fact in FACTS]
    for back in (1, 2):
        last = np.array([(source or "").split()[-back] for source in dataset.source_texts])
        columns.append(last[:, None] == np.array(WORDS))
    known = np.column_stack(columns).astype(np.float64)
    training = dataset.training_rows
    fit, *_ = np.linalg.lstsq(known[training], directions[training], rcond=None)
    rest = directions - known @ fit
    rest -= rest[training].mean(axis=0)
    _, _, widest = np.linalg.svd(rest[training], full_matrices=False)
    return (rest @ widest[:BITS].T > 0).astype(np.int64)


def train_reader(layout: Layout, dataset: Dataset, seed: int) -> Reconstructor:
    """An AR with the warm start of the recipe on the texts of ``dataset``."""
    recipe, reference = layout.recipe, target_reference(layout)
    layer = layer_of(recipe.target, load_config(reference))
    reader = new_reconstructor(reference, layer, recipe.target, recipe.pair)
    with tempfile.TemporaryDirectory() as folder, stopping() as stop:
        train_ar(
            reader,
            dataset,
            recipe.warm_start,
            seed=seed,
            folder=Path(folder),
            key="code",
            stop=stop,
            tell=lambda _: None,
        )
    return reader


def texts_of(dataset: Dataset, rows: np.ndarray, folder: Path) -> UnscoredTable:
    """The gold texts of ``rows``, read as a table of completions is read."""
    frame = pl.DataFrame(
        {
            "model": ["gold"] * len(rows),
            "idx": dataset.idx[rows],
            "doc_id": [dataset.doc_ids[row] for row in rows],
            "explanation": [dataset.explanations[row] for row in rows],
        }
    )
    frame.write_parquet(folder / "texts.parquet")
    return read_unscored([str(folder / "texts.parquet")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("course", type=Path, help="folder that the demo was trained into")
    course: Path = parser.parse_args().course
    layout = Layout(read_recipe(course / "recipe.yaml"), course, course)
    settle_in(layout)
    dataset = read_dataset(layout.activations)
    bits = unexplained_signs(
        dataset, pl.read_parquet(layout.activations.with_name("facts.parquet"))
    )
    activations = read_activations(str(layout.activations))
    plain = load(ar=layout.warm_start / "ar").reconstructor
    assert plain is not None
    rows = dataset.held_out_rows(ACTIVATIONS)
    print(
        "| hidden in | verdict | channel | FVE | FVE of the other AR | costliest change | loses "
        "| more than the controls |\n|---|---|---|--:|--:|---|--:|--:|"
    )
    cases: dict[str, Code | None] = {"nothing": None, **{k: code for k, (_, code) in CODES.items()}}
    for name, code in cases.items():
        coded = dataset
        if code is not None:
            pairs = zip(dataset.explanations, bits.tolist(), strict=True)
            coded = replace(
                dataset, explanations=[None if text is None else code(text, b) for text, b in pairs]
            )
        reader = train_reader(layout, coded, seed=layout.recipe.seed + 1)
        with tempfile.TemporaryDirectory() as scratch, writer_of("world") as writer:
            own, reference = (texts_of(each, rows, Path(scratch)) for each in (coded, dataset))
            frame = probe(
                {"own": reader, "second": plain},
                own,
                activations,
                ProbeSettings(),
                writer=writer,
                reference=reference,
            )
        scores = scores_from_frame(frame, ar="own")
        verdict, numbers, _ = judge(scores, "gold")
        unchanged = frame.filter((pl.col("variant") == "unchanged") & (pl.col("texts") == "own"))
        fve = dict(unchanged.group_by("ar").agg(pl.col("fve").mean()).iter_rows())
        most = verdict.variant or min(
            (one for one, row in numbers.items() if row["excess_loss"] is not None),
            key=lambda one: -float(numbers[one]["excess_loss"] or 0),
        )
        cells = [
            name,
            verdict.category,
            verdict.channel or "–",
            f"{fve['own']:.3f}",
            f"{fve['second']:.3f}",
            re.sub("_", " ", most),
            f"{1 - float(numbers[most]['retention'] or 0):.1%}",
            f"{float(numbers[most]['excess_loss'] or 0):.1%}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
