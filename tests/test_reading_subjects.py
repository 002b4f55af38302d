"""Texts of one subject: what one says again of another, by judges who read every part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers.rewording import rewording
from nla_audit.text.pairs import TextPair, text_of
from tests.benchmark_module import benchmark_module

#: Of the tokens. Two judges of the same 24 explanations differ by 0.01 on average; but what matches
#: beyond doubt they mark with 0.84 on average, and what has no partner with 0.31.
TOLERANCE = 0.15
#: λ = 0.006's interval holds what is left out if "only the topic" of a part counts as nothing.
ONLY_STRICTLY = ("p0.006",)
TOLERANCES = {"base": 0.19}
LEAST_CORRELATION = {"second": 0.4, "terse": 0.55, "p0.006": 0.3}


@pytest.fixture(scope="module")
def subjects() -> Iterator[ModuleType]:
    """``benchmarks/reading_subjects.py`` as a module."""
    with benchmark_module("reading_wordings"), benchmark_module("reading_subjects") as module:
        yield module


def check(subjects: ModuleType, judged: Any) -> None:
    parts = subjects.read_parts(judged, None)
    says, kept, tokens = (parts[name].to_numpy() for name in ("says", "kept", "tokens"))
    assert len(says) == judged.marks.height
    said, read = np.average(says, weights=tokens), np.average(kept, weights=tokens)
    assert read == pytest.approx(said, abs=TOLERANCES.get(judged.model, TOLERANCE))
    assert np.corrcoef(says, kept)[0, 1] > LEAST_CORRELATION.get(judged.model, 0.35)


@pytest.mark.parametrize("place", [0, 1])
def test_two_writers_of_one_passage(subjects: ModuleType, place: int) -> None:
    judged = subjects.twins()[place]
    check(subjects, judged)
    own = rewording(judged.table).headline[judged.model]
    left_out = subjects.left_out(judged, None)
    assert own["omission_tokens_low"] <= left_out <= own["omission_tokens_high"]


@pytest.mark.parametrize(
    "model",
    [
        "p0.006",
        *(pytest.param(model, marks=pytest.mark.slow) for model in ("base", "p0.001", "p0.002")),
    ],
)
def test_two_models_of_one_activation(subjects: ModuleType, sweep_path: Path, model: str) -> None:
    sweep = pl.read_parquet(sweep_path)
    judged = next(one for one in subjects.judged_of(sweep) if one.model == model)
    check(subjects, judged)
    own = rewording(judged.table).headline[model]
    left_out = subjects.left_out(judged, None, strict=model in ONLY_STRICTLY)
    assert own["omission_tokens_low"] <= left_out <= own["omission_tokens_high"]


@pytest.mark.parametrize(("name", "seed", "most"), [("reader", 0, 0.24), ("prose", 1, 0.3)])
def test_other_lines_of_the_same_explanation(
    subjects: ModuleType, name: str, seed: int, most: float
) -> None:
    """By similarity alone 0.27 and 0.37 of what is exchanged was read as said again."""
    lines = pl.read_ndjson(subjects.reading_wordings.WORDINGS / f"{name}.jsonl").sort("idx", "line")
    same, other = (subjects.exchanged(lines, "paraphrase", share, seed) for share in (0.0, 1.0))
    assert (same[1], other[1]) == (0.0, 1.0)
    assert abs(subjects.reading_wordings.error(*same)) < 0.07
    assert -most < subjects.reading_wordings.error(*other) <= 0.0


def test_another_number_that_no_text_had_before_is_no_copy(subjects: ModuleType) -> None:
    """To similarity both are the same: it knows neither."""
    judged = subjects.twins()[0]
    reader = subjects.read(judged.table).reader
    price, other = text_of("The price was 777."), text_of("The price was 888.")
    found = reader.segment(
        judged.model, [TextPair(judged.model, 0, 0, 0, price, text) for text in (other, price)]
    )
    assert found[0].kept[0] < 0.7
    assert found[1].kept[0] == pytest.approx(1.0)


def test_marks_are_of_parts(subjects: ModuleType) -> None:
    rows = pl.read_ndjson(subjects.SUBJECTS / "twins.jsonl")
    for row in rows.iter_rows(named=True):
        ends = [end for part in row["parts"] for end in part]
        assert ends == sorted(ends)
        assert ends[-1] <= len(row["first"])
        assert len(row["parts"]) == len(row["second_says"]) == len(row["terse_says"])
