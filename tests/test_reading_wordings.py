"""Other wording and terser wording are not omission: on explanations written in three ways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from tests.benchmark_module import benchmark_module

ENGLISH = ("lists", "prose", "fields", "markdown", "keyvalue", "notes", "analyst", "clipped")
LANGUAGES = ("chinese", "german", "french", "spanish", "italian", "russian")
SLOW = {"lists", "clipped", "analyst", "markdown", *LANGUAGES} - {"chinese"}
SETS = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in (*ENGLISH, *LANGUAGES)
]
#: Units and times of day are told in others ("0.8 kg" for 800 g), which is not seen.
CONVERTED = {"keyvalue", "notes"}
#: Said in words that have little in common, in languages of which no related words are known.
OTHER_WORDS = {("german", "paraphrase"), ("spanish", "paraphrase"), ("italian", "paraphrase")}
#: Largest error in the share of tokens that is left out.
TOLERANCE, TOLERANCE_IN_OTHER_WORDS = 0.07, 0.1


@pytest.fixture(scope="module")
def wordings() -> Iterator[ModuleType]:
    """``benchmarks/reading_wordings.py`` as a module."""
    with benchmark_module("reading_wordings") as module:
        yield module


def lines_of(wordings: ModuleType, name: str) -> pl.DataFrame:
    return pl.read_ndjson(wordings.WORDINGS / f"{name}.jsonl").sort("idx", "line")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("version", ["paraphrase", "terse"])
@pytest.mark.parametrize(
    ("share", "change"), [(0.0, "deleted"), (0.3, "exchanged"), (0.5, "deleted")]
)
def test_what_is_left_out_is_what_was_deleted(
    wordings: ModuleType, name: str, version: str, share: float, change: str
) -> None:
    table, true = wordings.changed(lines_of(wordings, name), version, share, change, seed=3)
    others = (name, version) in OTHER_WORDS
    most = TOLERANCE_IN_OTHER_WORDS if others else TOLERANCE
    assert abs(wordings.error(table, true)) <= most
    own = rewording(table).headline[wordings.CHANGED]
    content = wordings.read(table).explanations["tokens_reference"].mean()
    assert own["omission_tokens_low"] <= true * content <= own["omission_tokens_high"]


@pytest.mark.parametrize("mark", ["{}. ", "({}) ", "- "])
def test_numbers_of_a_list_are_nothing_that_is_said(wordings: ModuleType, mark: str) -> None:
    lines = lines_of(wordings, "prose").with_columns(
        marked=pl.format("{}{}", (pl.col("line") + 1).map_elements(mark.format, pl.String), "terse")
    )
    plain, true = wordings.changed(lines, "terse", 0.3, "deleted", seed=0)
    marked, _ = wordings.changed(lines, "marked", 0.3, "deleted", seed=0)
    assert wordings.error(marked, true) == pytest.approx(wordings.error(plain, true), abs=0.005)
    kinds = [drop_analysis(table).tables["kinds"] for table in (plain, marked)]
    assert kinds[0]["claims"].to_list() == kinds[1]["claims"].to_list()


@pytest.mark.parametrize("name", SETS)
def test_terser_wording_is_said_to_be_terser_wording(wordings: ModuleType, name: str) -> None:
    table, _ = wordings.changed(lines_of(wordings, name), "terse", 0.0, "deleted", seed=0)
    assert rewording(table).verdict.endswith("more by terser wording.")
    assert drop_analysis(table).verdict.startswith("No model is shown to drop more")


@pytest.mark.parametrize("name", [*ENGLISH, "chinese", "german", "french", "spanish"])
@pytest.mark.parametrize("version", ["paraphrase", "terse"])
def test_names_and_numbers_in_other_words_are_kept(
    wordings: ModuleType, name: str, version: str
) -> None:
    """All are said again, some spelt or by initials, and half of them once half is deleted.

    Numbers that are spelt, and names of peoples, are known in English alone.
    """
    lines = lines_of(wordings, name)
    least_of_all = 0.9 if name in ENGLISH and name not in CONVERTED else 0.8
    for share, least, most in ((0.0, least_of_all, 1.0), (0.5, 0.3, 0.8)):
        table, _ = wordings.changed(lines, version, share, "deleted", seed=0)
        found = drop_analysis(table).tables["items"].filter(pl.col("items") >= 20)
        assert found.height
        assert found["retained"].is_between(least, most).all(), found
        assert (found["chance"] <= 0.15).all(), found


@pytest.mark.parametrize("name", ["lists", "prose"])
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_clauses_run_together_in_fewer_words(wordings: ModuleType, name: str, share: float) -> None:
    """Every clause that is left keeps three of five words, with no mark to the next one."""
    generator = np.random.default_rng(0)
    lines = lines_of(wordings, name)
    said, lost, words = [], 0, 0
    for text in lines["original"]:
        left = []
        for clause in re.split(r"(?<=[,;:])\s+", text):
            own = clause.split()
            words += len(own)
            if generator.random() < share:
                lost += len(own)
            else:
                kept = max(1, round(0.6 * len(own)))
                left.append(" ".join(own[-kept:]).strip(",;:"))
        said.append(" ".join(left))
    lines = lines.with_columns(terse=pl.Series(said))
    table, _ = wordings.changed(lines, "terse", 0.0, "deleted", seed=0)
    assert abs(wordings.error(table, lost / words)) <= TOLERANCE
