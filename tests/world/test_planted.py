"""The planted sweeps: is their truth true?"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from nla_audit.errors import UserError
from nla_audit.world.sweep import manner
from nla_audit.world.sweep.activation import NAMING_KINDS, QUOTING_KINDS
from nla_audit.world.sweep.planted import (
    DEFAULT_MODELS,
    PlantedModel,
    PlantedSweep,
    count_tokens,
    default_sweep,
    plant,
    plant_to_parquet,
)
from nla_audit.world.sweep.truth import (
    BASELINE_MSE,
    FAILED_REWARD,
    FAILED_TOKENS,
    OVERHEAD_TOKENS,
    SAVING_COLUMNS,
    TOKEN_COLUMNS,
)
from nla_audit.world.sweep.wordings import KINDS, WORDINGS

KEY = ["model", "idx", "sample"]
REFERENCE = PlantedModel("p0.0", 0.0)
BUSY = PlantedModel(
    "busy",
    0.006,
    omit={"genre": 0.6, "style": 0.2, "entity": 0.4},
    reword=0.5,
    add=1.2,
    tail_copy=0.4,
    spurious=0.3,
    filler=0.3,
    fail=0.05,
    empty=0.1,
)


@pytest.fixture(scope="module")
def busy() -> PlantedSweep:
    """A reference and a model that does everything at once."""
    return plant([REFERENCE, BUSY], activations=600, seed=4)


def with_texts(sweep: PlantedSweep) -> pl.DataFrame:
    """The truth with this text, the reference's text and the source beside each claim."""
    texts = sweep.completions.select(*KEY, "source_text", "explanation")
    reference = texts.filter((pl.col("model") == sweep.reference) & (pl.col("sample") == 0))
    reference = reference.select("idx", pl.col("explanation").alias("reference_text"))
    return sweep.truth.join(texts, on=KEY).join(reference, on="idx")


def binomial_bound(rate: float, n: int) -> float:
    """Four standard errors: passes by chance in all but one of sixteen thousand seeds."""
    return 4.0 * math.sqrt(rate * (1.0 - rate) / n)


def test_same_arguments_same_sweep_and_other_seed_other_sweep() -> None:
    first, second = default_sweep(30, seed=1), default_sweep(30, seed=1)
    for name in ("completions", "truth", "explanations", "summary"):
        assert_frame_equal(getattr(first, name), getattr(second, name))
    assert not default_sweep(30, seed=2).completions.equals(first.completions)


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "import sys; from nla_audit.world.sweep.planted import default_sweep; "
        "s = default_sweep(20); "
        "sys.stdout.write(s.completions.write_ndjson() + s.truth.write_ndjson())"
    )
    digests = set()
    for hash_seed in ("0", "1", "31337"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        )
        assert done.stdout.count(b"\n") > 100
        digests.add(hashlib.sha256(done.stdout).hexdigest())
    assert len(digests) == 1


def test_a_longer_sweep_with_more_models_begins_with_the_shorter_one() -> None:
    short = plant([REFERENCE, BUSY], activations=15, seed=3)
    long = plant(
        [BUSY, PlantedModel("other", reword=1.0), REFERENCE],
        activations=25,
        seed=3,
        reference="p0.0",
    )
    kept = long.completions.filter((pl.col("idx") < 15) & (pl.col("model") != "other"))
    assert_frame_equal(kept.sort(KEY), short.completions.sort(KEY))


def test_every_activation_has_a_row_per_model_and_sample() -> None:
    sweep = plant([REFERENCE, BUSY], activations=20, seed=0, samples=3)
    assert sweep.completions.height == 20 * 2 * 3
    assert sweep.completions.select(KEY).is_duplicated().sum() == 0
    assert sweep.truth.select(*KEY, "claim").is_duplicated().sum() == 0


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.7, 1.0])
def test_asked_for_rates_are_realised(rate: float) -> None:
    model = PlantedModel(
        "m", omit=rate / 2, reword=rate, tail_copy=rate, spurious=rate, filler=rate, add=3 * rate
    )
    sweep = plant([REFERENCE, model], activations=400, seed=11)
    truth = sweep.truth.filter(pl.col("model") == "m")
    stated = truth.filter(pl.col("fate") != "omitted")
    naming = stated.filter(pl.col("kind").cast(pl.String).is_in(list(NAMING_KINDS)))
    texts = sweep.explanations.filter(pl.col("model") == "m")
    for realised, expected, n in (
        (1 - stated.height / truth.height, rate / 2, truth.height),
        ((stated["fate"] == "reworded").mean(), rate, stated.height),
        (naming["spurious"].mean(), rate, naming.height),
        (texts["tail_copy"].is_not_null().mean(), rate, texts.height),
        ((texts["filler_tokens"] > 0).mean(), rate, texts.height),
        (texts["added_claims"].sum() / (3 * texts.height), rate, 3 * texts.height),
    ):
        assert realised == pytest.approx(expected, abs=binomial_bound(expected, n) + 1e-12)


def test_omission_is_by_kind(busy: PlantedSweep) -> None:
    truth = busy.truth.join(busy.completions.filter(pl.col("explanation") != ""), on=KEY)
    for kind in KINDS:
        mine = truth.filter((pl.col("model") == "busy") & (pl.col("kind") == kind))
        expected = BUSY.omission(kind)
        assert mine.height > 100
        assert (mine["fate"] == "omitted").mean() == pytest.approx(
            expected, abs=binomial_bound(expected, mine.height) + 1e-12
        )


def test_empty_and_failed_explanations_are_kept_apart(busy: PlantedSweep) -> None:
    mine = busy.completions.filter(pl.col("model") == "busy")
    failed = mine.filter(~pl.col("extracted"))
    empty = mine.filter(pl.col("explanation") == "")
    n = mine.height
    assert failed.height / n == pytest.approx(0.05, abs=binomial_bound(0.05, n))
    assert empty.height / n == pytest.approx(0.1 * 0.95, abs=binomial_bound(0.1, n))
    assert failed["explanation"].null_count() == failed["fve"].null_count() == failed.height
    assert failed["n_tokens"].unique().to_list() == [FAILED_TOKENS]
    assert failed["reward"].unique().to_list() == [FAILED_REWARD]
    assert empty["extracted"].all()
    assert empty["fve"].null_count() == 0
    assert empty["n_tokens"].unique().to_list() == [OVERHEAD_TOKENS]
    assert busy.truth.join(failed, on=KEY).is_empty()
    fates = busy.truth.join(empty, on=KEY)["fate"].cast(pl.String).unique().to_list()
    assert fates == ["omitted"]


def test_omitting_everything_leaves_empty_text() -> None:
    sweep = plant([REFERENCE, PlantedModel("none", 0.03, omit=1.0)], activations=50, seed=5)
    mine = sweep.completions.filter(pl.col("model") == "none")
    assert mine["explanation"].unique().to_list() == [""]
    assert mine["extracted"].all()
    row = sweep.summary.row(by_predicate=pl.col("model") == "none", named=True)
    assert row["omission_share"] == row["omission_token_share"] == row["empty_rate"] == 1.0
    assert row["spurious_rate"] is None  # nothing was named, so there is no rate
    assert all(row[f"retained.{kind}"] == 0.0 for kind in KINDS)


def test_a_failed_reference_has_no_claims_and_no_differences() -> None:
    sweep = plant([PlantedModel("p0.0", 0.0, fail=1.0), BUSY], activations=30, seed=0)
    assert sweep.truth.is_empty()
    assert sweep.explanations["omitted_claims"].null_count() == sweep.explanations.height
    row = sweep.summary.row(by_predicate=pl.col("model") == "busy", named=True)
    assert row["omission_share"] is None
    assert row["additions"] is None


def test_spans_point_at_the_claims(busy: PlantedSweep) -> None:
    rows = with_texts(busy).to_dicts()
    assert len(rows) > 5_000
    for row in rows:
        said = row["reference_text"][row["start"] : row["end"]]
        assert count_tokens(said) == row["reference_tokens"] > 0
        if row["fate"] == "omitted":
            assert (row["tokens"], row["own_start"], row["own_end"]) == (0, None, None)
            continue
        own = row["explanation"][row["own_start"] : row["own_end"]]
        assert count_tokens(own) == row["tokens"] > 0
        assert own == own.strip()
        if row["named"] is not None:
            assert row["named"] in own


def test_spans_of_one_text_do_not_overlap(busy: PlantedSweep) -> None:
    ordered = busy.truth.sort(*KEY, "start").with_columns(
        previous_end=pl.col("end").shift(1).over(KEY)
    )
    assert ordered.filter(pl.col("start") <= pl.col("previous_end")).is_empty()


def test_tokens_add_up(busy: PlantedSweep) -> None:
    table = busy.explanations.join(busy.completions.filter(pl.col("extracted")), on=KEY)
    assert (table.select(pl.sum_horizontal(TOKEN_COLUMNS)).to_series() == table["n_tokens"]).all()
    counted = [count_tokens(text) + OVERHEAD_TOKENS for text in table["explanation"]]
    assert counted == table["n_tokens"].to_list()
    claims = busy.truth.group_by(KEY).agg(claim_tokens=pl.col("tokens").sum())
    joined = table.join(claims, on=KEY)
    # What is stated beyond the reference's claims are the additions (a negative saving).
    assert (joined["claim_tokens"] - joined["addition_saving"] == joined["stated_tokens"]).all()


def test_savings_add_up_to_the_difference(busy: PlantedSweep) -> None:
    tokens = busy.completions.filter(pl.col("extracted")).select(*KEY, "n_tokens")
    reference = tokens.filter(pl.col("model") == busy.reference).select(
        "idx", pl.col("n_tokens").alias("reference_n_tokens")
    )
    table = busy.explanations.join(tokens, on=KEY).join(reference, on="idx")
    saving = table["reference_n_tokens"] - table["n_tokens"]
    assert (table.select(pl.sum_horizontal(SAVING_COLUMNS)).to_series() == saving).all()
    itself = table.filter(pl.col("model") == busy.reference)
    assert itself.select(SAVING_COLUMNS).sum().row(0) == (0, 0, 0, 0)


def test_terse_wordings_are_shorter() -> None:
    sweep = plant([REFERENCE, PlantedModel("terse", reword=1.0)], activations=200, seed=8)
    means = (
        sweep.truth.filter(pl.col("model") == "terse")
        .group_by("kind")
        .agg(pl.col("reference_tokens").mean(), pl.col("tokens").mean())
    )
    assert means.height == len(KINDS)
    assert (means["tokens"] < 0.7 * means["reference_tokens"]).all()


def test_tail_copies_end_the_text_and_the_source(busy: PlantedSweep) -> None:
    table = busy.explanations.join(busy.completions, on=KEY).filter(
        pl.col("tail_copy").is_not_null()
    )
    assert table["tail_quoted"].sum() not in (0, table.height)
    for row in table.iter_rows(named=True):
        assert row["source_text"].endswith(" " + row["tail_copy"])
        assert 4 <= len(row["tail_copy"].split()) <= 8
        assert row["explanation"].endswith(row["tail_copy"] + '"' * row["tail_quoted"])


def test_right_claims_are_in_the_source_and_spurious_ones_are_not(busy: PlantedSweep) -> None:
    named = with_texts(busy).filter(pl.col("named").is_not_null())
    assert named["spurious"].sum() > 100
    for row in named.iter_rows(named=True):
        assert (row["named"] in row["source_text"]) != row["spurious"]
        if row["spurious"] and row["kind"] == "number":
            assert row["named"].split()[0] not in row["source_text"]
        if row["spurious"] and row["kind"] == "entity":
            assert row["named"].split()[0] not in row["source_text"]
    kinds = set(named["kind"].cast(pl.String).unique())
    assert kinds == NAMING_KINDS | {"final_token"}


def test_final_token_claims_name_the_last_word(busy: PlantedSweep) -> None:
    claims = with_texts(busy).filter(
        (pl.col("kind") == "final_token") & (pl.col("fate") != "omitted")
    )
    assert (claims["named"] == claims["source_text"].str.split(" ").list.last()).all()


def test_predicted_quotes_are_not_in_any_source(busy: PlantedSweep) -> None:
    guesses = [g for value in manner.EXPECTATIONS for g in value.guesses]
    for source in busy.completions["source_text"].unique():
        assert not any(guess in source for guess in guesses)


def test_quote_counts_match_the_quotation_marks(busy: PlantedSweep) -> None:
    table = busy.explanations.join(busy.completions.filter(pl.col("extracted")), on=KEY)
    marks = table["explanation"].str.count_matches('"', literal=True)
    assert (marks == 2 * (table["cited_quotes"] + table["predicted_quotes"])).all()
    assert (table["verbatim_quotes"] == table["cited_quotes"] - table["spurious_quotes"]).all()


def test_every_wording_that_should_name_its_item_does() -> None:
    for kind in NAMING_KINDS | QUOTING_KINDS:
        for template in (*WORDINGS[kind].long, *WORDINGS[kind].short):
            assert "{item}" in template, template


def test_source_texts_look_like_texts(busy: PlantedSweep) -> None:
    words = busy.completions["source_text"].unique().str.split(" ").list.len()
    assert 55 <= words.min() <= words.max() <= 130


def test_other_activations_rarely_share_the_tail() -> None:
    sweep = plant([REFERENCE], activations=500, seed=0)
    tails = [" ".join(source.split(" ")[-5:]) for source in sweep.completions["source_text"]]
    assert len(set(tails)) > 0.8 * len(tails)


def test_measures_are_consistent(busy: PlantedSweep) -> None:
    scored = busy.completions.drop_nulls("fve")
    assert (scored["mse"] - (1 - scored["fve"]) * BASELINE_MSE).abs().max() < 1e-12
    assert (scored["nmse"] - (1 - scored["fve"])).abs().max() < 1e-12
    assert (scored["reward"] + scored["mse"]).abs().max() == 0.0


def test_fve_loss_is_the_worth_of_what_was_dropped() -> None:
    sweep = plant([REFERENCE, PlantedModel("short", omit=0.4)], activations=300, seed=2)
    fve = sweep.completions.pivot(on="model", index="idx", values="fve")
    lost = (
        sweep.truth.filter((pl.col("model") == "short") & (pl.col("fate") == "omitted"))
        .group_by("idx")
        .agg(worth=pl.col("worth").sum())
    )
    paired = fve.join(lost, on="idx").select(
        loss=pl.col("p0.0") - pl.col("short"), worth=pl.col("worth")
    )
    residual = paired["loss"] - paired["worth"]
    # Two independent explanation noises of 0.03 remain, and none of the activation's own.
    assert residual.std() == pytest.approx(0.03 * math.sqrt(2), rel=0.15)
    assert abs(residual.mean()) < 4 * residual.std() / math.sqrt(paired.height)


def test_a_twin_of_the_reference_does_not_differ_from_it() -> None:
    sweep = plant([REFERENCE, PlantedModel("twin", omit=0.1)], activations=600, seed=6, samples=2)
    claims = sweep.truth.filter((pl.col("model") == "twin") | (pl.col("sample") == 1))
    shares = claims.group_by("model", "sample").agg(
        (pl.col("fate") == "omitted").mean().alias("share"), pl.len()
    )
    assert shares.height == 3
    for share, n in shares.select("share", "len").iter_rows():
        assert share == pytest.approx(0.1, abs=binomial_bound(0.1, n))
    fve = sweep.completions.pivot(on=["model", "sample"], index="idx", values="fve")
    difference = fve['{"p0.0",0}'] - fve['{"twin",0}']
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(600)


def test_default_sweep_gets_shorter_and_poorer_with_the_penalty() -> None:
    summary = default_sweep(150).summary.filter(pl.col("length_penalty").is_not_null())
    assert summary["length_penalty"].to_list() == [0.0, 0.001, 0.006, 0.03]
    for column in ("mean_tokens", "fve_mean"):
        assert summary[column].is_sorted(descending=True)
    assert summary["omission_share"].is_sorted()


def test_writing_gives_the_same_completions(tmp_path: Path) -> None:
    path = plant_to_parquet(
        tmp_path / "sweep.parquet", DEFAULT_MODELS, activations=40, seed=9, reference="p0.0"
    )
    held = plant(DEFAULT_MODELS, activations=40, seed=9, reference="p0.0")
    assert_frame_equal(pl.read_parquet(path), held.completions)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sweep.parquet"]


def test_writing_over_several_chunks_keeps_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nla_audit.world.sweep.planted._CHUNK", 7)
    path = plant_to_parquet(tmp_path / "s.parquet", [REFERENCE, BUSY], activations=20, seed=1)
    monkeypatch.undo()
    whole = plant([REFERENCE, BUSY], activations=20, seed=1).completions
    assert_frame_equal(pl.read_parquet(path).sort(KEY), whole.sort(KEY))


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.LazyFrame, "sink_parquet", interrupt)
    with pytest.raises(KeyboardInterrupt):
        plant_to_parquet(tmp_path / "s.parquet", [REFERENCE], activations=5, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/s\.parquet: cannot write .*choose another place"):
        plant_to_parquet(tmp_path / "file" / "s.parquet", [REFERENCE], activations=2, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": []}, "at least one model"),
        ({"models": [REFERENCE, REFERENCE]}, "two models are called 'p0.0'"),
        ({"reference": "p9"}, "no model is called 'p9'"),
        ({"activations": 0}, "at least 1"),
        ({"samples": 0}, "at least 1"),
        ({"seed": -1}, "seed is -1"),
        ({"resampling_omission": 1.5}, "resampling_omission is 1.5"),
        ({"models": [PlantedModel("p0.0", omit=0.3)]}, "leave omit at 0"),
    ],
)
def test_bad_sweeps_are_refused_in_one_line(arguments: dict, message: str) -> None:
    complete = {"models": [REFERENCE], "activations": 2, "seed": 0, **arguments}
    with pytest.raises(UserError, match=message) as caught:
        plant(complete.pop("models"), **complete)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"omit": 1.2}, "omit is 1.2"),
        ({"omit": {"genre": -0.1}}, r"omit\[genre\] is -0.1"),
        ({"omit": {"colour": 0.1}}, "unknown kind 'colour'"),
        ({"add": 4}, "add is 4"),
        ({"fail": float("nan")}, "fail is nan"),
    ],
)
def test_bad_rates_are_refused_in_one_line(rates: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        PlantedModel("m", **rates)
    assert "\n" not in str(caught.value)
