"""Twins: pairs of real texts that say the same, one of them changed at a known rate.

Two samples of one model, or two equally long models with their labels exchanged at random, say as
much of each other either way. Delete or exchange a share of one's claims, and how much of the other
it still says is known, whatever the two differed in before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.errors import UserError
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import equally_long
from nla_audit.table.readers import read_frame
from nla_audit.table.schema import forbid_other_types
from nla_audit.text.claims import split_claims
from nla_audit.text.words import FUNCTION_WORDS, piece_count, words
from nla_audit.unicode_form import composed_column
from nla_audit.wording import count

Floats = NDArray[np.float64]

#: Activations that are tried, and at least so many are needed.
MOST_TWINS, LEAST_TWINS = 150, 20
#: The same where every changed sentence is embedded anew, which takes longer than all the rest.
FEW_TWINS = 60
#: Columns of a table of paraphrases, besides ``idx``.
_SAID_TWICE = ("original", "paraphrase")
DELETED, EXCHANGED = "deleted", "exchanged"
#: Sentences run together, so many to a line and without function words: all that is said stays.
TOGETHER, _TO_A_LINE = "run together", 3


@dataclass(frozen=True)
class Twins:
    """Pairs of texts that say the same, or as much of it as two samples of one model do.

    Attributes:
        name: what they are, in words.
        idx: `[pairs]`, the activation of each.
        first, second: `[pairs]`, the texts.
        parts: `[pairs]`, the character spans of the second text that are deleted or exchanged.
        whole: whether the second text says all that the first does, and nothing else.
    """

    name: str
    idx: list[int]
    first: list[str]
    second: list[str]
    parts: list[list[tuple[int, int]]]
    whole: bool = False


def twins_of(completions: Completions, seed: int, *, few: bool = False) -> Twins:
    """The reference beside its second sample, or beside an equally long model, labels exchanged.

    Args:
        completions: the table.
        seed: of the draw.
        few: whether to take :data:`FEW_TWINS` at most.

    Raises:
        UserError: the table has no twins, or too few.
    """
    rows = completions.rows.filter(pl.col("explanation").is_not_null())
    own = rows.filter(pl.col("model") == completions.reference).sort("idx", "sample")
    by_idx = own.group_by("idx", maintain_order=True).agg("explanation")
    several = by_idx.filter(pl.col("explanation").list.len() > 1)
    if several.height >= LEAST_TWINS:
        pairs = [(idx, texts[0], texts[1]) for idx, texts in several.iter_rows()]
        name = f"two samples of {completions.reference}"
    else:
        name, pairs = _beside_another(completions, rows, by_idx)
    generator = np.random.default_rng([seed, 11])
    most = FEW_TWINS if few else MOST_TWINS
    if len(pairs) > most:
        chosen = generator.choice(len(pairs), most, replace=False)
        pairs = [pairs[place] for place in np.sort(chosen)]
    flipped = generator.random(len(pairs)) < 0.5
    first = [b if flip else a for (_, a, b), flip in zip(pairs, flipped, strict=True)]
    second = [a if flip else b for (_, a, b), flip in zip(pairs, flipped, strict=True)]
    return by_claim(name, [idx for idx, _, _ in pairs], first, second)


def by_claim(name: str, idx: list[int], first: list[str], second: list[str]) -> Twins:
    """Twins of which the second text is changed claim by claim."""
    parts = [[(claim.start, claim.end) for claim in split_claims(text)] for text in second]
    return Twins(name, idx, first, second, parts)


def _beside_another(
    completions: Completions, rows: pl.DataFrame, by_idx: pl.DataFrame
) -> tuple[str, list[tuple[int, str, str]]]:
    nearest = equally_long(completions)
    if nearest is None:
        raise UserError(
            f"no twin to try the reading on: {completions.reference} has a second sample of fewer "
            f"than {LEAST_TWINS} activations, and no other model is equally long; give "
            "--paraphrases, or more second samples"
        )
    other = rows.filter(pl.col("model") == nearest).unique("idx", keep="first", maintain_order=True)
    both = by_idx.with_columns(pl.col("explanation").list.first()).join(
        other.select("idx", second="explanation"), on="idx", maintain_order="left"
    )
    if both.height < LEAST_TWINS:
        raise UserError(
            f"only {both.height} activations have texts by {completions.reference} and {nearest}: "
            f"calibrating needs {LEAST_TWINS}"
        )
    return f"{completions.reference} and {nearest}", list(both.iter_rows())


def paraphrased(path: str) -> Twins:
    """Originals and their paraphrases, line by line, from a table of them.

    Raises:
        UserError: the table lacks a column, or holds too few activations.
    """
    frame = read_frame(path, lower_case=True)
    missing = [name for name in ("idx", *_SAID_TWICE) if name not in frame.columns]
    if missing:
        raise UserError(f"{path}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    forbid_other_types(frame, ["idx"], file=path)
    for name in _SAID_TWICE:
        if not isinstance(frame.schema[name], pl.String | pl.Null | pl.Categorical | pl.Enum):
            raise UserError(
                f'{path}: column "{name}" holds no text: check that it is the right one'
            )
    said = frame.with_columns(
        composed_column(frame[name].cast(pl.String)) for name in _SAID_TWICE
    ).drop_nulls(["idx", *_SAID_TWICE])
    # Lines stand in their order; activations in one that no order of rows or form of file changes.
    label = pl.col("idx").cast(pl.String)
    in_order = said.sort(label.cast(pl.Int64, strict=False), label, maintain_order=True)
    by_idx = in_order.group_by("idx", maintain_order=True)
    idx, first, second, parts = [], [], [], []
    for number, (_, lines) in enumerate(by_idx):
        idx.append(number)
        first.append("\n".join(text.strip() for text in lines["original"]))
        ends, spans = 0, []
        texts = [text.strip() for text in lines["paraphrase"]]
        for text in texts:
            spans.append((ends, ends + len(text)))
            ends += len(text) + 1
        second.append("\n".join(texts))
        parts.append(spans)
    if len(idx) < LEAST_TWINS:
        raise UserError(f"{path}: {count(len(idx), 'activation')}: calibrating needs {LEAST_TWINS}")
    name = f"paraphrases of {path.rsplit('/', 1)[-1]}"
    return Twins(name, idx, first, second, parts, whole=True)


def changed(
    twins: Twins, change: str, rate: float, seed: Sequence[int]
) -> tuple[list[str], Floats]:
    """The second texts with a share of their parts deleted, or exchanged for another activation's.

    Run together, the whole text changes and nothing is left out, whatever the rate.

    Returns:
        The texts, and for each the share of its tokens whose content is left of it.
    """
    if change == TOGETHER:
        terse = [lines_of(text, _TO_A_LINE, function_words=False) for text in twins.second]
        return terse, np.ones(len(terse))
    generator = np.random.default_rng(seed)
    texts, left = [], []
    for place, (text, spans) in enumerate(zip(twins.second, twins.parts, strict=True)):
        gone = generator.random(len(spans)) < rate
        costs = np.array([piece_count(text[a:b]) for a, b in spans], dtype=np.float64)
        left.append(float(costs[~gone].sum() / costs.sum()) if costs.sum() else 1.0)
        affected = [span for span, is_gone in zip(spans, gone, strict=True) if is_gone]
        new = ["" if change == DELETED else _elsewhere(twins, place, generator) for _ in affected]
        texts.append(_replaced(text, affected, new))
    return texts, np.array(left)


def lines_of(text: str, sentences: int, *, function_words: bool) -> str:
    """So many sentences to a line, without the marks between them.

    Without function words it is the same in as few words as a terse text has.
    """
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


def _elsewhere(twins: Twins, place: int, generator: np.random.Generator) -> str:
    """A part of another activation's text."""
    other = int(generator.integers(len(twins.second) - 1))
    other += other >= place
    spans = twins.parts[other]
    if not spans:
        return ""
    start, end = spans[int(generator.integers(len(spans)))]
    return twins.second[other][start:end]


def _replaced(text: str, spans: Sequence[tuple[int, int]], new: Sequence[str]) -> str:
    """``text`` with other words in the place of these spans, which are in order."""
    found, place = [], 0
    for (start, end), instead in zip(spans, new, strict=True):
        found += [text[place:start], instead]
        place = end
    return "".join([*found, text[place:]]).strip()
