"""Are other claims about the same subject told from the same claim? Texts of one subject, judged.

    python benchmarks/reading_subjects.py [SWEEP] [--similarity MODEL] > table.md

Two samples of one activation share their subject and need not say the same. `subjects/twins.jsonl`
holds explanations of invented passages by two writers who did not see each other's, and by a third
who was to be terse; for each part of the first (`parts`, from and to which character), how much of
it the second and the terse one say again, in whatever words, by a judge: 0, 0.25 ("only a little,
for example the general topic"), 0.5, 0.75 or 1. `subjects/sweep_marks.jsonl` holds a judge's marks
of real explanations, or the mean of two judges', without the explanations: those are in SWEEP, a
table of completions. LLMs
wrote and judged that did not know of this program; how sentences are matched was chosen with all of
these marks in sight.

The second table exchanges lines for *other lines of the same explanation*: half of the lines of
each are the reference, and the other text holds their other wordings, a share of them exchanged for
another line's. Each line says something of its own; what lines repeat counts as not said here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import reading_wordings
from numpy.typing import NDArray

from nla_audit.analyzers.rewording import rewording
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.pairs import text_of
from nla_audit.text.reading import read

SUBJECTS = Path(__file__).parent / "subjects"
FIRST, OTHERS = "first", ("second", "terse")
SHARES = (0.0, 0.5, 1.0)
#: Exchanged within an explanation: the sets of reading_wordings.py with lines enough.
SETS = ("analyst", "clipped", "fields", "labels", "lists", "markdown", "prose", "reader")


@dataclass(frozen=True)
class Judged:
    """Two explanations of the same activations, and what a judge found.

    Attributes:
        table: a table with both, of which `reference` is the reference.
        reference, model: the two models.
        marks: `idx, start, end, says`, a row for each part of the reference that was judged.
    """

    table: Completions
    reference: str
    model: str
    marks: pl.DataFrame


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("sweep", nargs="?")
    arguments.add_argument("--similarity")
    given = arguments.parse_args()
    sweep = pl.read_parquet(given.sweep) if given.sweep else None
    every = [*twins(), *([] if sweep is None else judged_of(sweep))]
    for section in (agreement(every, given.similarity), exchanged_within(given.similarity)):
        print("\n".join(section), end="\n\n", flush=True)


def agreement(every: list[Judged], similarity: str | None) -> Iterator[str]:
    """What is said again, by the judge and as it is read."""
    yield (
        "| reference | other | judged | said again | a little counts as nothing | read "
        "| left out, tokens | left out, judged | parts told (correlation) |"
    )
    yield "|" + "---|" * 9
    for judged in every:
        parts = read_parts(judged, similarity)
        says, kept, tokens = (parts[name].to_numpy() for name in ("says", "kept", "tokens"))
        share = float(np.average(says, weights=tokens))
        strict = float(np.average(_strictly(says), weights=tokens))
        own = rewording(judged.table, similarity=similarity).headline[judged.model]
        interval = "{:.1f} [{:.1f}, {:.1f}]".format(
            *(own[f"omission_tokens{end}"] for end in ("", "_low", "_high"))
        )
        yield (
            f"| {judged.reference} | {judged.model} | {parts['idx'].n_unique()} | {share:.2f} "
            f"| {strict:.2f} | {np.average(kept, weights=tokens):.2f} | {interval} "
            f"| {left_out(judged, similarity):.1f} | {np.corrcoef(says, kept)[0, 1]:.2f} |"
        )


def left_out(judged: Judged, similarity: str | None, *, strict: bool = False) -> float:
    """Tokens that are left out by the judge's marks, were all activations as those judged.

    What was read of all activations is moved by how much the judge differs on those judged.

    Args:
        strict: whether a part of which only a little is said counts as not said.
    """
    parts = read_parts(judged, similarity)
    says = parts["says"].to_numpy()
    differs = parts["kept"].to_numpy() - (_strictly(says) if strict else says)
    differs = float(np.average(differs, weights=parts["tokens"]))
    own = read(judged.table, similarity=similarity).explanations.filter(
        pl.col("model") == judged.model
    )
    omitted = 1 - own["kept_tokens"].sum() / own["tokens_reference"].sum()
    return float((omitted + differs) * own["tokens_reference"].mean())


def _strictly(says: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(says < 0.5, 0.0, says)


def read_parts(judged: Judged, similarity: str | None) -> pl.DataFrame:
    """For each judged part what is read: `idx, says, kept, tokens`."""
    claims = (
        read(judged.table, similarity=similarity)
        .claims.filter(pl.col("model") == judged.model)
        .select("idx", "kept", "tokens", first=pl.col("start"), last=pl.col("end"))
    )
    shared = pl.min_horizontal("end", "last") - pl.max_horizontal("start", "first")
    return (
        judged.marks.with_row_index("part")
        .join(claims, on="idx")
        .with_columns(shared=shared)
        .filter(pl.col("shared") > 0)
        # A claim's tokens belong to the parts that it lies in.
        .with_columns(
            tokens=pl.col("tokens") * pl.col("shared") / (pl.col("last") - pl.col("first"))
        )
        .group_by("part", "idx", "says", maintain_order=True)
        .agg(
            kept=(pl.col("kept") * pl.col("tokens")).sum() / pl.col("tokens").sum(),
            tokens=pl.col("tokens").sum(),
        )
    )


def twins() -> list[Judged]:
    """The explanations by several writers."""
    rows = pl.read_ndjson(SUBJECTS / "twins.jsonl")
    found = []
    for other in OTHERS:
        table = pl.concat(
            rows.select(
                "idx", model=pl.lit(name), length_penalty=pl.lit(penalty), explanation=pl.col(name)
            )
            for name, penalty in ((FIRST, 0.0), (other, 0.1))
        )
        marks = _by_part(rows.select("idx", "parts", says=f"{other}_says"))
        found.append(Judged(from_frame(table, reference=FIRST), FIRST, other, marks))
    return found


def judged_of(sweep: pl.DataFrame) -> list[Judged]:
    """The real explanations that were judged."""
    marks = pl.read_ndjson(SUBJECTS / "sweep_marks.jsonl")
    found = []
    for (reference, model), own in marks.group_by("reference", "model", maintain_order=True):
        both = sweep.filter(pl.col("model").is_in([reference, model]))
        table = from_frame(both, reference=str(reference))
        parts = _by_part(own.select("idx", "parts", "says"))
        found.append(Judged(table, str(reference), str(model), parts))
    return found


def _by_part(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.explode("parts", "says").select(
        "idx",
        start=pl.col("parts").list.get(0),
        end=pl.col("parts").list.get(1),
        says=pl.col("says"),
    )


def exchanged_within(similarity: str | None) -> Iterator[str]:
    """Omission read, less the share of tokens whose lines were exchanged for others of the text."""
    yield "| explanations | version | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |"
    yield "|" + "---|" * (len(SHARES) + 2)
    for name in SETS:
        lines = pl.read_ndjson(reading_wordings.WORDINGS / f"{name}.jsonl").sort("idx", "line")
        for version in reading_wordings.VERSIONS:
            cells = []
            for share in SHARES:
                found = [
                    reading_wordings.error(
                        *exchanged(lines, version, share, seed), similarity=similarity
                    )
                    for seed in range(3)
                ]
                cells.append(f"{np.mean(found):+.3f} (worst {max(found, key=abs):+.3f})")
            yield f"| {name} | {version} | {' | '.join(cells)} |"


def exchanged(
    lines: pl.DataFrame, version: str, share: float, seed: int
) -> tuple[Completions, float]:
    """Half of each explanation's lines beside other wordings, a share of them of its other lines.

    Returns:
        The table, and the share of the tokens whose lines were exchanged.
    """
    generator = np.random.default_rng(seed)
    rows, gone, whole = [], 0.0, 0.0
    for (idx,), own in lines.group_by("idx", maintain_order=True):
        originals, said = own[reading_wordings.REFERENCE].to_list(), own[version].to_list()
        order, half = generator.permutation(len(said)).tolist(), len(said) // 2
        chosen = []
        for line, other in zip(sorted(order[:half]), order[half : 2 * half], strict=True):
            cost, is_gone = text_of(originals[line]).content_tokens, generator.random() < share
            whole += cost
            gone += cost * is_gone
            chosen.append(other if is_gone else line)
        for model, penalty, texts in (
            (reading_wordings.REFERENCE, 0.0, [originals[line] for line in sorted(order[:half])]),
            (reading_wordings.CHANGED, 0.1, [said[line] for line in sorted(chosen)]),
        ):
            rows.append((model, penalty, idx, "\n".join(texts)))
    columns = ["model", "length_penalty", "idx", "explanation"]
    table = pl.DataFrame(rows, schema=columns, orient="row")
    return from_frame(table, reference=reading_wordings.REFERENCE), gone / whole


if __name__ == "__main__":
    main()
