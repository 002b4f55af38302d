"""Pieces: parts of like size however a text is punctuated, and not too many of them."""

from __future__ import annotations

import polars as pl
import pytest

from nla_audit.table.completions import from_frame
from nla_audit.text.pairs import text_of
from nla_audit.text.pieces import MOST_PIECES, MOST_SENTENCES, PIECE_WORDS, SENTENCE_WORDS
from nla_audit.text.reading import read_afresh
from nla_audit.text.words import content_count, words
from nla_audit.world.sweep.planted import PlantedModel, plant

_NO_MARKS = " ".join(
    f"harbour{number} ships{number} carry{number} grain{number}" for number in range(30)
)


def test_a_stretch_without_marks_is_cut_into_equal_parts() -> None:
    pieces = text_of(_NO_MARKS).pieces
    assert len(pieces.pieces) == round(120 / PIECE_WORDS)
    assert len(pieces.sentences) == round(120 / SENTENCE_WORDS)
    assert set(pieces.lengths.tolist()) == {PIECE_WORDS}


@pytest.mark.parametrize(
    "text",
    [
        _NO_MARKS,
        "Short. Two words, and more of them; (an aside) — the end.",
        "a " + "㍿" * 9,  # each is four words to Unicode, and none to who looks for words
    ],
)
def test_every_word_and_token_is_in_one_piece(text: str) -> None:
    found = text_of(text, content=100.0)
    assert words(" ".join(found.pieces.pieces)) == words(" ".join(found.pieces.sentences))
    assert words(found.pieces.words) == words(text)
    assert found.pieces.tokens.sum() == pytest.approx(100.0)
    assert found.pieces.lengths.tolist() == [content_count(part) for part in found.pieces.pieces]


@pytest.mark.parametrize("mark", ["", ", ", ". ", "\n"])
def test_a_very_long_text_is_cut_more_coarsely(mark: str) -> None:
    pieces = text_of(mark.join([_NO_MARKS + " "] * 200)).pieces
    assert len(pieces.sentences) <= 2 * MOST_SENTENCES
    assert len(pieces.pieces) <= 2 * MOST_PIECES
    assert words(pieces.words) == words(_NO_MARKS) * 200


def test_a_part_is_about_the_names_that_stand_in_it() -> None:
    text = f"a passage about Whitlock and {_NO_MARKS} and then about Juarez"
    subjects = text_of(text).pieces.subjects
    assert subjects[0] == {"whitlock"}
    assert subjects[-1] == {"juarez"}
    assert not any(subjects[1:-1])


def test_a_text_without_its_marks_says_the_same() -> None:
    models = (PlantedModel("a", 0.0), PlantedModel("b", 0.01, reword=0.5))
    rows = plant(models, activations=160, seed=5).completions.select("model", "idx", "explanation")
    bare = rows.with_columns(
        explanation=pl.when(pl.col("model") == "b")
        .then(pl.col("explanation").str.replace_all(r"[.,;:()—–]+(\s|$)", "$1"))
        .otherwise("explanation")
    )
    assert _kept(bare) == pytest.approx(_kept(rows), abs=0.05)


def _kept(rows: pl.DataFrame) -> float:
    found = read_afresh(from_frame(rows, reference="a"), with_chance=False).explanations
    return float(found["kept_tokens"].sum() / found["tokens_reference"].sum())


def test_what_introduces_examples_goes_with_the_first_of_them() -> None:
    found = text_of('It asks for a role in court (e.g., "chief clerk", "senior bailiff").').pieces
    assert found.pieces == [
        "It asks for a role in court",
        '(e.g., "chief clerk",',
        '"senior bailiff").',
    ]


def test_chinese_is_cut_into_pieces_of_several_words() -> None:
    found = text_of("这是一篇刊登在地方报纸上的简短新闻，报道青泽县一座老石桥的加固工程。").pieces
    assert max(len(piece) for piece in found.pieces) >= 12
