"""Languages are told by their function words, and names of strangers are no language."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from nla_audit.text.languages import OTHERS, language_of
from nla_audit.text.words import content_count

WORDINGS = Path(__file__).parents[2] / "benchmarks" / "wordings"


@pytest.mark.parametrize("name", ["german", "french", "spanish", "italian", "russian"])
def test_explanations_in_other_languages(name: str) -> None:
    lines = pl.read_ndjson(WORDINGS / f"{name}.jsonl").sort("idx", "line")
    whole = lines.group_by("idx", maintain_order=True).agg(pl.col("original").str.join("\n"))
    assert {language_of(text).name for text in whole["original"]} == {name.capitalize()}


@pytest.mark.parametrize("name", ["lists", "prose", "fields", "markdown", "chinese"])
def test_explanations_in_none_of_them(name: str) -> None:
    lines = pl.read_ndjson(WORDINGS / f"{name}.jsonl")
    texts = [*lines["original"], *lines["paraphrase"], *lines["terse"]]
    assert {language_of(text).name for text in texts} == {"English"}


@pytest.mark.parametrize(
    "text",
    [
        "Biography: Otto von Bismarck, Ludwig von Mises, Carl von Clausewitz; Prussian generals",
        "Crime report: police met van driver, van door, ten men, die hard",
        "Los Angeles, El Paso, La Jolla, Las Vegas: a list of towns",
        'It quotes "la vie en rose" and "de la Cruz".',
        "",
    ],
)
def test_english_with_foreign_names(text: str) -> None:
    assert language_of(text).name == "English"


def test_every_language_knows_its_most_frequent_words() -> None:
    for language in OTHERS:
        assert language.often <= language.own
        assert len(language.own) > 60


def test_lengths_are_counted_alike() -> None:
    said = {
        "The clerk reads the letter of the mayor.": 4,
        "Der Schreiber liest den Brief des Bürgermeisters und er ist nicht froh.": 5,
        "El escribano lee la carta que le ha escrito el alcalde, y por ello no se alegra.": 7,
    }
    for text, count in said.items():
        assert content_count(text, language_of(text).function_words) == count
