"""Is the reading of claims the same however a text is punctuated? Real texts in other forms.

    python benchmarks/reading_form.py SWEEP PARAPHRASES [--similarity MODEL] > table.md

SWEEP is a table of completions with the equally long models `base` and `p0.0`; PARAPHRASES has one
line of an explanation a row: `idx, line, original, paraphrase`. The second text of each pair is
changed in form alone, or claims of it are deleted or exchanged as well; what was tuned on is
reported apart from what was not.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from nla_audit.analyzers._twins import DELETED, EXCHANGED, Twins, by_claim, changed, lines_of
from nla_audit.table.completions import from_frame
from nla_audit.text.reading import read_afresh

CHANGES = ((DELETED, 0.0), (DELETED, 0.3), (DELETED, 0.5), (EXCHANGED, 0.5))
_MARK = re.compile(r"[.;,:()—–]+(?=\s|$)|[()—–]|(?<=\s)-(?=\s)")
_LINE = re.compile(r"\s*\n\s*|\s{2,}")


def without_marks(text: str) -> str:
    """Line by line, without punctuation."""
    return "\n".join(_MARK.sub("", line) for line in _LINE.split(text))


FORMS = {
    "as it is": lambda text: text,
    "without punctuation": without_marks,
    "without function words": lambda text: lines_of(text, 1, function_words=False),
    "three sentences to a line": lambda text: lines_of(text, 3, function_words=True),
    "both": lambda text: lines_of(text, 3, function_words=False),
}


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("sweep")
    arguments.add_argument("paraphrases")
    arguments.add_argument("--similarity")
    given = arguments.parse_args()
    lines = pl.read_parquet(given.paraphrases).sort("idx", "line")
    sweep = pl.read_parquet(given.sweep).filter(pl.col("extracted"))
    for pairs in (
        twins("150 pairs of two models, tuned on", sweep, 0, 150),
        twins("150 pairs of two models, not tuned on", sweep, 300, 450),
        paraphrases("50 paraphrases, tuned on", lines, 0),
        paraphrases("50 paraphrases, not tuned on", lines, 1),
    ):
        print("\n".join(table(pairs, given.similarity)), end="\n\n", flush=True)


def twins(name: str, sweep: pl.DataFrame, first: int, end: int) -> Twins:
    """Texts of two equally long models, labels exchanged at random."""
    own = (
        sweep.filter(pl.col("model").is_in(["base", "p0.0"]), pl.col("idx").is_between(first, end))
        .sort("idx", "model")
        .group_by("idx", maintain_order=True)
        .agg("explanation")
        .filter(pl.col("explanation").list.len() == 2)
    )
    flipped = np.random.default_rng(1).random(own.height) < 0.5
    pairs = [
        texts[::-1] if flip else texts
        for texts, flip in zip(own["explanation"].to_list(), flipped, strict=True)
    ]
    return by_claim(name, own["idx"].to_list(), *map(list, zip(*pairs, strict=True)))


def paraphrases(name: str, lines: pl.DataFrame, half: int) -> Twins:
    """Texts and their paraphrases, of every second activation."""
    chosen = lines["idx"].unique().sort().gather_every(2, half).to_list()
    own = (
        lines.filter(pl.col("idx").is_in(chosen))
        .group_by("idx", maintain_order=True)
        .agg(pl.col("original", "paraphrase").str.join("\n"))
    )
    return by_claim(name, *(own[column].to_list() for column in ("idx", "original", "paraphrase")))


def table(pairs: Twins, similarity: str | None) -> Iterator[str]:
    """Share of the first text's tokens read as left out, less what is true, by form and change."""
    heads = [pairs.name, *(f"{change} {rate:.0%}" for change, rate in CHANGES)]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    models, left = [], {}
    for form, formed in FORMS.items():
        for number, (change, rate) in enumerate(CHANGES):
            model = f"{form} {change} {rate}"
            texts, left[model] = changed(pairs, change, rate, [number])
            models.append((model, [formed(text) for text in texts]))
    found = _kept(pairs, models, similarity)
    untouched = found["as it is deleted 0.0"]
    for form in FORMS:
        cells = []
        for change, rate in CHANGES:
            model = f"{form} {change} {rate}"
            bias = np.sum(untouched * left[model] - found[model]) / np.sum(found["whole"])
            cells.append(f"{bias:+.3f}")
        yield f"| {form} | {' | '.join(cells)} |"


def _kept(
    pairs: Twins, models: Sequence[tuple[str, list[str]]], similarity: str | None
) -> dict[str, np.ndarray]:
    """Tokens of each first text (`whole`) and how many of them each model is read to keep."""
    every = [("original", pairs.first), *models]
    frame = pl.concat(
        pl.DataFrame({"idx": pairs.idx, "explanation": texts}).with_columns(
            model=pl.lit(model), length_penalty=pl.lit(float(model != "original"))
        )
        for model, texts in every
    )
    read = read_afresh(
        from_frame(frame, reference="original"), similarity=similarity, with_chance=False
    ).explanations.sort("idx")
    kept = {str(model): rows["kept_tokens"].to_numpy() for (model,), rows in read.group_by("model")}
    one = read.filter(pl.col("model") == models[0][0])
    return {**kept, "whole": one["tokens_reference"].to_numpy()}


if __name__ == "__main__":
    main()
