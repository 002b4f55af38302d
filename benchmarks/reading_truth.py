"""Is the reading of claims true on real text? Known deletions, exchanges and roles exchanged.

    python benchmarks/reading_truth.py SWEEP PARAPHRASES [--similarity MODEL] > table.md

SWEEP is a table of completions with the models `base`, `p0.0` and others; PARAPHRASES has one line
of an explanation a row: `idx, line, original, paraphrase`. What the reading was tuned on (even
activations of the paraphrases) is reported apart from what it was not (odd ones).

A paraphraser may leave something out, and then a line that is there does not say all of it. Six
paraphrases have at least two sentences fewer than their originals. Two judges, LLMs that did not
know of this program, marked them and twelve others, drawn at random, part by part:
`subjects/paraphrase_marks.jsonl` holds which share of each line's tokens the paraphrase says, by
the mean of both. What they miss counts as left out where the table says "judged".
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from nla_audit.table.completions import from_frame
from nla_audit.text.pairs import text_of
from nla_audit.text.reading import read_afresh

SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
#: Tokens of the markers around an explanation in the sweep.
OVERHEAD = 11
MARKS = Path(__file__).parent / "subjects" / "paraphrase_marks.jsonl"


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("sweep")
    arguments.add_argument("paraphrases")
    arguments.add_argument("--similarity")
    arguments.add_argument("--seeds", type=int, default=5)
    given = arguments.parse_args()
    sweep = pl.read_parquet(given.sweep).filter(pl.col("idx") < 300)
    lines = pl.read_parquet(given.paraphrases).sort("idx", "line")
    for section in (
        paraphrases(lines, given.seeds, given.similarity),
        exchanged_roles(sweep, given.similarity),
        deleted(sweep, given.seeds, given.similarity),
    ):
        print("\n".join(section), end="\n\n", flush=True)


def paraphrases(lines: pl.DataFrame, seeds: int, similarity: str | None) -> Iterator[str]:
    """Omission read, less the share of tokens whose lines were deleted or exchanged."""
    yield "| activations | change | truth | " + " | ".join(f"{part:.0%}" for part in SHARES) + " |"
    yield "|" + "---|" * (len(SHARES) + 3)
    every = lines["idx"].unique().sort()
    halves = {
        "even, tuned on": every.gather_every(2),
        "odd, not tuned on": every.gather_every(2, 1),
        "all": every,
    }
    for name, idx in ((f"{len(idx)}: {name}", idx) for name, idx in halves.items()):
        own = lines.filter(pl.col("idx").is_in(idx.to_list()))
        for change in ("deleted", "exchanged"):
            # `[shares, seeds, 2]`
            errors = np.array(
                [
                    [omission_errors(own, share, change, seed, similarity) for seed in range(seeds)]
                    for share in SHARES
                ]
            )
            for truth, found in zip(("lines", "judged"), np.moveaxis(errors, -1, 0), strict=True):
                cells = (f"{of.mean():+.3f} (worst {max(of, key=abs):+.3f})" for of in found)
                yield f"| {name} | {change} | {truth} | {' | '.join(cells)} |"


def omission_errors(
    lines: pl.DataFrame, share: float, change: str, seed: int, similarity: str | None
) -> tuple[float, float]:
    """Omission read less the share of tokens whose lines are gone; and less what judges miss, too.

    Args:
        share: of the lines, to be
        change: `deleted`, or `exchanged` for another activation's.
    """
    generator = np.random.default_rng(seed)
    gone = generator.random(lines.height) < share
    idx, originals, said = (lines[name].to_list() for name in ("idx", "original", "paraphrase"))
    costs = np.array([text_of(text).content_tokens for text in originals])
    new: dict[int, list[str]] = {key: [] for key in idx}
    for row, key in enumerate(idx):
        if not gone[row]:
            new[key].append(said[row])
        elif change == "exchanged":
            other = row
            while idx[other] == key:
                other = int(generator.integers(lines.height))
            new[key].append(said[other])
    old = lines.group_by("idx", maintain_order=True).agg(
        explanation=pl.col("original").str.join("\n")
    )
    table = pl.concat(
        [
            old.with_columns(model=pl.lit("original"), length_penalty=0.0),
            pl.DataFrame({"idx": list(new), "explanation": ["\n".join(v) for v in new.values()]})
            .with_columns(model=pl.lit("changed"), length_penalty=0.1)
            .select("idx", "explanation", "model", "length_penalty"),
        ]
    )
    found = read_afresh(from_frame(table, reference="original"), similarity=similarity).explanations
    omitted = 1 - found["kept_tokens"].sum() / found["tokens_reference"].sum()
    missed = np.where(gone, 1.0, 1 - _says(lines))
    whole = costs.sum()
    return float(omitted - costs @ gone / whole), float(omitted - costs @ missed / whole)


def _says(lines: pl.DataFrame) -> NDArray[np.float64]:
    """`[lines]`: which share of each line its paraphrase says, as far as that was judged."""
    marks = {row["idx"]: row["says"] for row in map(json.loads, MARKS.open(encoding="utf-8"))}
    placed = lines.select("idx", place=pl.int_range(pl.len()).over("idx"))
    return np.array(
        [marks[idx][place] if idx in marks else 1.0 for idx, place in placed.iter_rows()]
    )


def exchanged_roles(sweep: pl.DataFrame, similarity: str | None) -> Iterator[str]:
    """Omission and rewording with either model as the reference, in tokens per explanation."""
    yield "| models | left out | added, roles exchanged | reworded | reworded, roles exchanged |"
    yield "|---|---|---|---|---|"
    for model in sorted(set(sweep["model"]) - {"p0.0"}):
        both = sweep.filter(pl.col("model").is_in(["p0.0", model]))
        one, other = (
            rewording(from_frame(both, reference=reference), similarity=similarity).headline[second]
            for reference, second in (("p0.0", model), (model, "p0.0"))
        )
        cells = [one["omission_tokens"], -other["addition_tokens"]]
        cells += [one["rewording_tokens"], -other["rewording_tokens"]]
        yield f"| p0.0 and {model} | {' | '.join(f'{cell:.1f}' for cell in cells)} |"


def deleted(sweep: pl.DataFrame, seeds: int, similarity: str | None) -> Iterator[str]:
    """Two equally long models, labels exchanged, a share of one's clauses deleted."""
    yield "| deleted | called rewording, tokens (each run) | drop reported |"
    yield "|---|---|---|"
    for share, runs in ((0.0, 4 * seeds), (0.3, seeds), (0.5, seeds)):
        reworded, reported = [], 0
        for seed in range(runs):
            table = from_frame(_deleted(sweep, share, seed), reference="p0.0")
            reworded.append(
                rewording(table, similarity=similarity).headline["p0.01"]["rewording_tokens"]
            )
            verdict = drop_analysis(table, similarity=similarity).verdict
            reported += not verdict.startswith("No model")
        yield (
            f"| {share:.0%} | {', '.join(f'{value:.1f}' for value in reworded)} | "
            f"{reported} of {runs} |"
        )


def _deleted(sweep: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    own = sweep.filter(pl.col("extracted") & pl.col("model").is_in(["base", "p0.0"]))
    flipped = {idx: generator.random() < 0.5 for idx in own["idx"].unique().sort()}
    rows = []
    for row in own.sort("idx", "model").iter_rows(named=True):
        text, is_first = row["explanation"], (row["model"] == "base") != flipped[row["idx"]]
        if share and not is_first:
            parts = re.split(r"\s{2,}|(?<=[.;,:]) ", text)
            text = "  ".join(part for part in parts if generator.random() >= share)
        left = len(text) / max(1, len(row["explanation"]))
        rows.append(
            {
                "model": "p0.0" if is_first else "p0.01",
                "length_penalty": 0.0 if is_first else 0.01,
                "idx": row["idx"],
                "explanation": text,
                "n_tokens": OVERHEAD + round((row["n_tokens"] - OVERHEAD) * left),
                "fve": row["fve"],
                "extracted": True,
            }
        )
    return pl.DataFrame(rows)


if __name__ == "__main__":
    main()
