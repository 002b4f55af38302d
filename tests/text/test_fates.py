"""Fates of claims as spans: on pairs written by hand, and on a planted table."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.fates import fate_spans
from nla_audit.text.reading import read
from nla_audit.world.sweep.planted import PlantedModel, plant

#: A claim, and the same in words that share no stem with it.
_FACTS = (
    ("A travel blog describes alpine huts near glaciers", "mountain shelter diary"),
    ("The sailors repair torn canvas before storms arrive", "crew mends ripped sails"),
    ("Parliament debates agricultural subsidies every autumn", "lawmakers argue farm aid"),
    ("A violin concerto gathers orchestral momentum", "string soloist builds tension"),
    ("Beekeepers harvest lavender honey from wooden hives", "apiary yields sweet nectar"),
    ("Software engineers isolate stubborn memory leaks", "programmers chase buggy allocations"),
)
_STRAY = "Volcanic eruptions buried ancient pottery workshops"


@pytest.fixture(scope="module")
def by_hand() -> Completions:
    """Sixty activations; the model says the first claim as it is and the second in other words.

    It leaves out the third, and in activation 0 it says something of its own as well.
    """
    generator = np.random.default_rng(0)
    rows = []
    for idx in range(60):
        chosen = (0, 1, 3) if idx == 0 else generator.permutation(len(_FACTS))[:3].tolist()
        (first, _), (second, reworded), (third, _) = (_FACTS[number] for number in chosen)
        own = [first, reworded] + [_STRAY] * (idx == 0)
        rows += [
            {"model": "p0.0", "idx": idx, "explanation": f"{first}. {second}. {third}."},
            {"model": "p0.01", "idx": idx, "explanation": ". ".join(own) + "."},
        ]
    frame = pl.DataFrame(rows).with_columns(
        length_penalty=pl.when(pl.col("model") == "p0.0").then(0.0).otherwise(0.01)
    )
    return from_frame(frame)


def fates(completions: Completions, idx: int, model: str) -> list[tuple[str, str]]:
    """(text of the span, its fate) of one explanation, quotes left out."""
    (text,) = completions.of(model).filter(pl.col("idx") == idx)["explanation"]
    spans = fate_spans(completions, [idx], read(completions)).filter(
        (pl.col("model") == model) & (pl.col("fate") != "quote")
    )
    ordered = spans.sort("start").select("start", "end", "fate").iter_rows()
    return [(text[start:end].rstrip("."), fate) for start, end, fate in ordered]


def test_kept_reworded_and_omitted_claims_of_the_reference(by_hand: Completions) -> None:
    assert fates(by_hand, 0, "p0.0") == [
        (_FACTS[0][0], "kept"),
        (_FACTS[1][0], "reworded"),
        (_FACTS[3][0], "omitted"),
    ]


def test_kept_reworded_and_added_claims_of_the_model(by_hand: Completions) -> None:
    assert fates(by_hand, 0, "p0.01") == [
        (_FACTS[0][0], "kept"),
        (_FACTS[1][1], "reworded"),
        (_STRAY, "added"),
    ]


def test_the_reference_names_the_model_it_stands_against(by_hand: Completions) -> None:
    spans = fate_spans(by_hand, [3], read(by_hand))
    of_reference = spans.filter(pl.col("model") == "p0.0")
    assert of_reference["against"].unique().to_list() == ["p0.01"]
    assert spans.filter(pl.col("model") == "p0.01")["against"].null_count() > 0


def test_spans_are_inside_their_texts_and_only_of_the_activations_asked_for() -> None:
    sweep = plant(
        [
            PlantedModel("reference", 0.0),
            PlantedModel("short", 0.01, omit=0.4, reword=0.5, add=1.0, empty=0.2, fail=0.2),
        ],
        activations=40,
        seed=1,
        samples=2,
    )
    completions = from_frame(sweep.completions, reference="reference")
    asked = [2, 3, 5, 7, 11, 13]
    spans = fate_spans(completions, asked, read(completions))
    keys = ["model", "idx", "sample"]
    texts = completions.rows.select(
        pl.col("model").cast(pl.String), "idx", pl.col("sample").cast(pl.Int64), "explanation"
    )
    both = spans.join(texts, on=keys, how="left")
    assert both["explanation"].null_count() == 0  # a failed explanation has no spans
    assert set(both["idx"]) == set(asked)
    assert (both["start"] >= 0).all()
    assert (both["start"] < both["end"]).all()
    assert (both["end"] <= both["explanation"].str.len_chars()).all()
    assert set(both["fate"]) == {"kept", "reworded", "omitted", "added", "quote"}
    own = {(model, fate) for model, fate in both.select("model", "fate").iter_rows()}
    assert ("short", "omitted") not in own
    assert ("reference", "added") not in own
    quoted = both.filter(pl.col("fate") == "quote")
    for text, start, end in quoted.select("explanation", "start", "end").iter_rows():
        assert text[start - 1] == '"'
        assert text[end:].lstrip(" ,.;:…")[:1] == '"'


def test_no_activations_have_no_spans(by_hand: Completions) -> None:
    assert fate_spans(by_hand, [], read(by_hand)).is_empty()
    assert fate_spans(by_hand, [10_000], read(by_hand)).is_empty()
