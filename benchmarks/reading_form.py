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

from nla_audit.completions import from_frame
from nla_audit.text.claims import split_claims
from nla_audit.text.reading import read_afresh
from nla_audit.text.words import FUNCTION_WORDS, piece_count, words

CHANGES = (("deleted", 0.0), ("deleted", 0.3), ("deleted", 0.5), ("exchanged", 0.5))
_MARK = re.compile(r"[.;,:()—–]+(?=\s|$)|[()—–]|(?<=\s)-(?=\s)")
_LINE = re.compile(r"\s*\n\s*|\s{2,}")

Pairs = list[tuple[int, str, str]]


def without_marks(text: str) -> str:
    """Line by line, without punctuation."""
    return "\n".join(_MARK.sub("", line) for line in _LINE.split(text))


def lines_of(text: str, sentences: int, *, function_words: bool) -> str:
    """So many sentences to a line, without the marks between them."""
    said: dict[int, list[str]] = {}
    for claim in split_claims(text):
        kept = [
            word
            for word in claim.text.split()
            if function_words or not (own := words(word)) or not FUNCTION_WORDS.issuperset(own)
        ]
        said.setdefault(claim.sentence, []).append(" ".join(kept).rstrip(".;:,!?"))
    every = [" ".join(parts) for parts in said.values()]
    return "\n".join(
        " ".join(every[start : start + sentences]) for start in range(0, len(every), sentences)
    )


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
    for name, pairs in (
        ("150 pairs of two models, tuned on", twins(sweep, 0, 150)),
        ("150 pairs of two models, not tuned on", twins(sweep, 300, 450)),
        ("50 paraphrases, tuned on", paraphrases(lines, 0)),
        ("50 paraphrases, not tuned on", paraphrases(lines, 1)),
    ):
        print("\n".join(table(name, pairs, given.similarity)), end="\n\n", flush=True)


def twins(sweep: pl.DataFrame, first: int, end: int) -> Pairs:
    """Texts of two equally long models, labels exchanged at random."""
    own = (
        sweep.filter(pl.col("model").is_in(["base", "p0.0"]), pl.col("idx").is_between(first, end))
        .sort("idx", "model")
        .group_by("idx", maintain_order=True)
        .agg("explanation")
        .filter(pl.col("explanation").list.len() == 2)
    )
    flipped = np.random.default_rng(1).random(own.height) < 0.5
    return [
        (idx, *(texts[::-1] if flip else texts))
        for (idx, texts), flip in zip(own.iter_rows(), flipped, strict=True)
    ]


def paraphrases(lines: pl.DataFrame, half: int) -> Pairs:
    """Texts and their paraphrases, of every second activation."""
    chosen = lines["idx"].unique().sort().gather_every(2, half).to_list()
    return [
        (key, "\n".join(own["original"]), "\n".join(own["paraphrase"]))
        for (key,), own in lines.filter(pl.col("idx").is_in(chosen)).group_by(
            "idx", maintain_order=True
        )
    ]


def table(name: str, pairs: Pairs, similarity: str | None) -> Iterator[str]:
    """Share of the first text's tokens read as left out, less what is true, by form and change."""
    yield f"| {name} | " + " | ".join(f"{change} {rate:.0%}" for change, rate in CHANGES) + " |"
    yield "|" + "---|" * (len(CHANGES) + 1)
    models, left = [], {}
    for form, formed in FORMS.items():
        for number, (change, rate) in enumerate(CHANGES):
            model = f"{form} {change} {rate}"
            texts, left[model] = _changed(pairs, change, rate, np.random.default_rng([number]))
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
    pairs: Pairs, models: Sequence[tuple[str, list[str]]], similarity: str | None
) -> dict[str, np.ndarray]:
    """Tokens of each first text (`whole`) and how many of them each model is read to keep."""
    every = [("original", [first for _, first, _ in pairs]), *models]
    frame = pl.concat(
        pl.DataFrame({"idx": [idx for idx, _, _ in pairs], "explanation": texts}).with_columns(
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


def _changed(
    pairs: Pairs, change: str, rate: float, generator: np.random.Generator
) -> tuple[list[str], np.ndarray]:
    """Second texts with claims deleted or exchanged for others', and the share that is left."""
    texts, left = [], []
    for _, _, text in pairs:
        claims = split_claims(text)
        gone = generator.random(len(claims)) < rate
        costs = np.array([piece_count(claim.text) for claim in claims], dtype=np.float64)
        left.append(costs[~gone].sum() / costs.sum() if costs.sum() else 1.0)
        parts, place = [], 0
        for claim, is_gone in zip(claims, gone, strict=True):
            said = claim.text
            if is_gone:
                other = split_claims(pairs[int(generator.integers(len(pairs)))][2])
                said = ""
                if change == "exchanged" and other:
                    said = other[int(generator.integers(len(other)))].text
            parts += [text[place : claim.start], said]
            place = claim.end
        texts.append("".join([*parts, text[place:]]).strip())
    return texts, np.array(left)


if __name__ == "__main__":
    main()
