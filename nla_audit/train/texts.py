"""The documents of a recipe, cut into passages where it asks for them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.runs.documents import Documents
from nla_audit.table.readers import read_frame
from nla_audit.train.dataset import texts_of, without_tags
from nla_audit.train.recipe import Recipe, path_of
from nla_audit.train.recipe_data import Passages
from nla_audit.train.seeds import Use, stream

#: Where a passage may end, the best first: a paragraph, a line, a sentence, a word.
_ENDS = tuple(map(re.compile, (r"\n\s*\n", r"\n", r"[.!?]['\"”’)]*\s", r"\s")))
#: A passage is at least this share of what was asked for, so that it need not end within a word.
_SHORTEST = 0.5


@dataclass(frozen=True)
class TrainingTexts:
    """``n`` texts to take activations from.

    Attributes:
        texts: each is read on its own.
        doc_ids: the document that each is from; passages of one document share it.
        gold: its gold explanation, ``None`` where there is none.
    """

    texts: list[str]
    doc_ids: list[str]
    gold: list[str | None]


def texts_of_recipe(recipe: Recipe, folder: Path) -> TrainingTexts:
    """What activations are taken from: the recipe's documents, or passages of them.

    Args:
        folder: the recipe's own.

    Raises:
        UserError: as :func:`read_texts`.
    """
    assert recipe.data.texts is not None
    texts = read_texts(path_of(recipe.data.texts, folder))
    if recipe.data.passages is None:
        return texts
    return cut_into_passages(texts, recipe.data.passages, stream(recipe.seed, Use.PASSAGES))


def read_texts(path: Path) -> TrainingTexts:
    """All documents of a table (any that :func:`nla_audit.table.readers.read_frame` knows), of a
    ``.txt`` file, or of a folder in which there are some.

    A gold explanation (column ``explanation``) is only meaningful with one position a document.

    Raises:
        UserError: no such file, no column of texts, or texts that are none.
    """
    if _is_text(path) or (path.is_dir() and any(map(_is_text, path.rglob("*")))):
        documents = list(Documents([path]))
        return TrainingTexts(
            [one.text for one in documents],
            [one.doc_id for one in documents],
            [None] * len(documents),
        )
    frame = read_frame(path, lower_case=True)
    if "text" not in frame.columns:
        raise UserError(f"{path}: no column text; it has {', '.join(frame.columns)}")
    column = frame["text"]
    if column.dtype not in (pl.String, pl.Null):
        raise UserError(f'{path}: column "text" holds {column.dtype}, not text: check the column')
    texts = [text or "" for text in column.to_list()]
    names = (
        [str(name) for name in frame["doc_id"].to_list()]
        if "doc_id" in frame.columns
        else [f"row {number}" for number in range(len(texts))]
    )
    explanations = frame["explanation"] if "explanation" in frame.columns else None
    gold = texts_of(explanations, len(texts), path)
    return TrainingTexts(
        texts, names, [None if text is None else without_tags(text) for text in gold]
    )


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and not path.is_dir()


def cut_into_passages(
    texts: TrainingTexts, settings: Passages, rng: np.random.Generator
) -> TrainingTexts:
    """Every document in passages, of which ``settings.at_most`` are drawn, in their order."""
    cut = [
        (passage, name)
        for text, name in zip(texts.texts, texts.doc_ids, strict=True)
        for passage in passages(text, settings.characters)
    ]
    if settings.at_most is not None and len(cut) > settings.at_most:
        chosen = np.sort(rng.choice(len(cut), settings.at_most, replace=False))
        cut = [cut[place] for place in chosen]
    # What was said of a whole document need not be true of a part of it.
    return TrainingTexts([text for text, _ in cut], [name for _, name in cut], [None] * len(cut))


def passages(text: str, characters: int) -> list[str]:
    """``text`` in pieces of at most ``characters``, none shorter than half of that but where the
    whole text is; each ends with a paragraph, or else a line, a sentence or a word, if it can."""
    found = []
    rest = text.strip()
    while len(rest) > characters:
        end = _end_of_passage(rest, characters)
        found.append(rest[:end].strip())
        rest = rest[end:].strip()
    # A last crumb says little; alone it is all there is.
    if rest and (not found or len(rest) >= _SHORTEST * characters):
        found.append(rest)
    return found


def _end_of_passage(text: str, characters: int) -> int:
    start = int(_SHORTEST * characters)
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(text, start, characters)]
        if ends:
            return ends[-1]
    return characters
