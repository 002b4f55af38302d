"""Reading a table: what stands in it whatever the order of rows, and what is missing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.claims import split_claims
from nla_audit.text.pairs import text_pairs
from nla_audit.text.reading import RESAMPLING_FLOOR, Reading, read
from nla_audit.world.sweep.planted import PlantedModel, PlantedSweep, plant

MODELS = (
    PlantedModel("reference", 0.0),
    PlantedModel("half", 0.01, omit=0.5, reword=0.5, add=0.5),
    PlantedModel("tail", 0.02, omit=0.3, tail_copy=0.5, empty=0.1, fail=0.1),
)
ACTIVATIONS = 60
NAMES = ("claims", "chance", "explanations")


@pytest.fixture(scope="module")
def sweep() -> PlantedSweep:
    return plant(MODELS, activations=ACTIVATIONS, seed=3)


@pytest.fixture(scope="module")
def completions(sweep: PlantedSweep) -> Completions:
    return from_frame(sweep.completions, reference="reference")


@pytest.fixture(scope="module")
def reading(completions: Completions) -> Reading:
    return read(completions)


@pytest.fixture(scope="module")
def sampled() -> tuple[PlantedSweep, Reading]:
    """Two samples of each explanation, and so a resampling floor."""
    models = (MODELS[0], PlantedModel("twin", 0.01, omit=0.2))
    sweep = plant(models, activations=ACTIVATIONS, seed=5, samples=2, resampling_omission=0.2)
    return sweep, read(from_frame(sweep.completions, reference="reference"))


def in_text(sweep: PlantedSweep, reading: Reading) -> pl.DataFrame:
    """Each row of the claims with the reference's text beside it."""
    texts = sweep.completions.filter(pl.col("model") == "reference").select(
        "idx", pl.col("sample").alias("reference_sample"), text="explanation"
    )
    return (
        reading.claims.with_columns(
            pl.col("model").cast(pl.String),
            pl.col("sample", "reference_sample").cast(pl.Int64),
        )
        .join(texts, on=["idx", "reference_sample"], how="left")
        .sort("model", "idx", "sample", "claim")
    )


def test_shuffled_rows_give_the_same_reading(sweep: PlantedSweep, reading: Reading) -> None:
    shuffled = sweep.completions.sample(fraction=1.0, shuffle=True, seed=9)
    again = read(from_frame(shuffled, reference="reference"))
    for name in NAMES:
        assert_frame_equal(getattr(reading, name), getattr(again, name), check_exact=True)


def test_the_reading_of_a_table_is_kept(completions: Completions, sweep: PlantedSweep) -> None:
    first = read(completions)
    assert read(completions) is first
    other = completions.with_reference("half")
    assert read(other) is not first  # another reference is another reading


def test_claims_are_those_of_the_reference(sweep: PlantedSweep, reading: Reading) -> None:
    rows = in_text(sweep, reading).filter(pl.col("model") == "half")
    texts = sweep.completions.filter(pl.col("model") == "reference").sort("idx")
    expected = [
        (idx, number, claim.start, claim.end, claim.kind)
        for idx, text in texts.select("idx", "explanation").iter_rows()
        for number, claim in enumerate(split_claims(text))
    ]
    columns = ("idx", "claim", "start", "end", "kind")
    found = rows.with_columns(pl.col("kind").cast(pl.String)).select(columns)
    assert list(found.iter_rows()) == expected


def test_tokens_of_claims_sum_to_those_of_the_explanation(reading: Reading) -> None:
    claims = reading.claims.group_by(pl.col("model").cast(pl.String), "idx", "sample").agg(
        pl.col("tokens").cast(pl.Float64).sum(),
        kept=(pl.col("tokens").cast(pl.Float64) * pl.col("kept")).sum(),
    )
    both = reading.explanations.join(claims, on=["model", "idx", "sample"])
    assert both.height == reading.explanations.height
    np.testing.assert_allclose(both["tokens"], both["tokens_reference"], rtol=1e-5)
    np.testing.assert_allclose(both["kept"], both["kept_tokens"], rtol=1e-4, atol=1e-4)


def test_what_is_kept_and_supported_is_part_of_the_whole(reading: Reading) -> None:
    claims, texts = reading.claims, reading.explanations
    assert claims["kept"].is_between(0, 1).all()
    assert reading.chance["kept"].is_between(0, 1).all()
    assert (texts["kept_tokens"] <= texts["tokens_reference"] + 1e-9).all()
    assert (texts["supported_tokens"] <= texts["tokens_model"] + 1e-9).all()
    assert texts.select("kept_tokens", "supported_tokens").min_horizontal().min() >= 0


def test_failed_explanations_have_no_rows_and_empty_ones_keep_nothing(
    sweep: PlantedSweep, reading: Reading
) -> None:
    own = sweep.completions.filter(pl.col("model") == "tail")
    failed = own.filter(pl.col("explanation").is_null())["idx"].to_list()
    empty = own.filter(pl.col("explanation") == "")["idx"].to_list()
    assert failed
    assert empty
    for table in (reading.claims, reading.explanations, reading.chance):
        rows = table.filter(pl.col("model") == "tail")
        assert rows.filter(pl.col("idx").is_in(failed)).is_empty() or table is reading.chance
    claims = reading.claims.filter((pl.col("model") == "tail") & pl.col("idx").is_in(empty))
    assert claims["idx"].n_unique() == len(empty)
    assert claims["kept"].max() == 0.0
    texts = reading.explanations.filter((pl.col("model") == "tail") & pl.col("idx").is_in(empty))
    assert texts["tokens_model"].to_list() == [0.0] * len(empty)
    assert texts["kept_tokens"].to_list() == [0.0] * len(empty)
    assert (texts["tokens_reference"] > 0).all()


def test_an_activation_without_a_reference_explanation_is_left_out(sweep: PlantedSweep) -> None:
    gone = (pl.col("model") == "reference") & (pl.col("idx") == 7)
    rows = sweep.completions.with_columns(
        explanation=pl.when(gone).then(None).otherwise("explanation"),
        extracted=pl.when(gone).then(False).otherwise("extracted"),
    )
    reading = read(from_frame(rows, reference="reference"))
    for name in NAMES:
        assert 7 not in getattr(reading, name)["idx"].to_list()
    assert reading.explanations["idx"].n_unique() == ACTIVATIONS - 1


def test_one_sample_has_no_floor(reading: Reading) -> None:
    assert not reading.has_floor
    assert reading.claims.filter(pl.col("model") == RESAMPLING_FLOOR).is_empty()


def test_a_sample_is_compared_with_another_number_s(sampled: tuple[PlantedSweep, Reading]) -> None:
    sweep, reading = sampled
    twin = in_text(sweep, reading).filter(pl.col("model") == "twin")
    keys = twin.select("idx", "sample").unique()
    assert keys.height == 2 * ACTIVATIONS
    assert (twin["sample"] != twin["reference_sample"]).all()
    for row in twin.iter_rows(named=True):
        claim = split_claims(row["text"])[row["claim"]]
        assert (claim.start, claim.end) == (row["start"], row["end"])


def test_the_same_samples_are_paired_with_the_roles_exchanged() -> None:
    frame = pl.DataFrame(
        {
            "model": ["a", "b"] * 3,
            "length_penalty": [0.0, 0.1] * 3,
            "idx": [0] * 6,
            "sample": [0, 0, 1, 1, 2, 2],
            "explanation": [f"the text number {number} of a model" for number in range(6)],
        }
    )
    paired = [
        {
            frozenset((pair.reference.claims[0].text, pair.other.claims[0].text))
            for pair in text_pairs(from_frame(frame, reference=reference).rows, reference)
            if pair.model != RESAMPLING_FLOOR
        }
        for reference in ("a", "b")
    ]
    assert paired[0] == paired[1]
    assert len(paired[0]) == 3


def test_the_floor_is_the_other_sample_of_the_reference(
    sampled: tuple[PlantedSweep, Reading],
) -> None:
    _, reading = sampled
    assert reading.has_floor
    floor = reading.claims.filter(pl.col("model") == RESAMPLING_FLOOR)
    assert floor.select("idx", "sample").unique().height == 2 * ACTIVATIONS
    # Both samples leave out a fifth, and so does the twin: it drops what resampling drops.
    twin = reading.claims.filter(pl.col("model") == "twin")
    assert floor["kept"].mean() == pytest.approx(0.8, abs=0.06)
    assert twin["kept"].mean() == pytest.approx(floor["kept"].mean(), abs=0.06)


def test_a_model_with_more_samples_than_the_reference_meets_its_first(
    sampled: tuple[PlantedSweep, Reading],
) -> None:
    sweep, _ = sampled
    first_only = (pl.col("model") != "reference") | (pl.col("sample") == 0)
    rows = sweep.completions.filter(first_only)
    reading = read(from_frame(rows, reference="reference"))
    assert not reading.has_floor
    spans = reading.claims.filter(pl.col("model") == "twin").select("idx", "sample", "start", "end")
    first, second = (spans.filter(pl.col("sample") == n).drop("sample") for n in (0, 1))
    assert_frame_equal(first, second)


def test_chance_reads_other_activations_and_finds_little(reading: Reading) -> None:
    chance = reading.chance.filter(pl.col("model") == "half")["kept"].mean()
    kept = reading.claims.filter(pl.col("model") == "half")["kept"].mean()
    assert chance < 0.25
    assert kept > chance + 0.2


def test_progress_is_told_to_the_end(sweep: PlantedSweep) -> None:
    told: list[tuple[int, int]] = []
    read(
        from_frame(sweep.completions.filter(pl.col("idx") < 20), reference="reference"),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (20, 20)
    assert told == sorted(told)


def test_one_model_alone_reads_nothing(sweep: PlantedSweep) -> None:
    rows = sweep.completions.filter(pl.col("model") == "reference")
    reading = read(from_frame(rows))
    assert reading.claims.is_empty()
    assert reading.explanations.is_empty()


def test_another_seed_changes_the_null_and_little_else(
    completions: Completions, reading: Reading
) -> None:
    other = read(completions, seed=1)
    assert not other.chance.equals(reading.chance)
    for model in ("half", "tail"):
        ours, theirs = (
            found.claims.filter(pl.col("model") == model)["kept"].mean()
            for found in (reading, other)
        )
        assert ours == pytest.approx(theirs, abs=0.02)
