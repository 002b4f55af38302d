"""The reading's error: measured on a table's own twins, and what it does to intervals."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers._drop_verdict import of_kinds
from nla_audit.analyzers._reading_error import (
    LARGE_BIAS,
    LEAST_CLAIMS,
    PLANTED_BIAS,
    Level,
    ReadingError,
    terseness,
)
from nla_audit.analyzers._trials import calibrated
from nla_audit.analyzers._twins import DELETED, EXCHANGED, TOGETHER, Twins, changed
from nla_audit.analyzers._unrecognised import Usual, hidden
from nla_audit.analyzers.calibrate import calibrate
from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from nla_audit.stats import Interval
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.reading import RESAMPLING_FLOOR, read
from nla_audit.world.sweep.planted import PlantedModel, plant
from tests.benchmark_module import BENCHMARKS
from tests.recomputed import worth

ERROR = ReadingError(
    "made up",
    curves={
        DELETED: np.array([[0.0, 0.0, 0.0, 0.0], [0.5, 0.1, 0.04, 0.1], [1.0, 0.0, 0.0, 0.0]]),
        EXCHANGED: np.array([[0.0, 0.0, 0.0, 0.0], [0.5, 0.3, 0.2, 0.3], [1.0, 0.0, 0.0, 0.0]]),
    },
    spread=0.0,
)


def test_what_is_read_too_high_may_be_lower_and_not_higher() -> None:
    wide = ERROR.widen(Interval(0.5, 0.45, 0.55, 100), ERROR.at(Level(0.5, 0.5)).kept)
    assert wide.high == 0.55
    # A text half as long holds half as much in the place of what it left out: .1 + .5 × .2.
    assert wide.low == pytest.approx(0.45 - 0.2)
    assert wide.value == 0.5


def test_deletion_called_rewording_lowers_rewording_and_raises_omission() -> None:
    bias = ERROR.at(Level(0.5, 0.0))
    assert bias.omission == pytest.approx([-0.1, -0.1, -0.1, 0.0, 0.0])
    assert bias.rewording == pytest.approx([0.06, 0.06, 0.06, 0.0, 0.0])
    assert bias.omission + bias.rewording + bias.addition == pytest.approx([0.0] * 5)


def test_what_is_said_again_may_be_another_claim_about_the_same_subject() -> None:
    for error in (ERROR, ReadingError(None, spread=0.0)):
        bias = error.at(Level(0.6, 0.7, other_claims=0.2, supported=0.5))
        # Of .6 that is kept, and of the .5 that say it.
        assert (bias.kept[-2], bias.supported[-2]) == pytest.approx((0.12, 0.1))
        assert bias.claims[-2] == pytest.approx(0.12)
        assert bias.measured_claims.tolist() == bias.claims[:-2].tolist()


def test_a_terse_text_may_say_more_than_is_read() -> None:
    error = replace(ERROR, overlooked=(0.2, 0.1, 0.2))
    deleted, _, terse, _, _ = error.at(Level(0.5, 0.5)).kept
    assert terse == pytest.approx(deleted)
    # Half as terse as the trial: of what is said a tenth is overlooked, .5 being what is left.
    half = error.at(Level(0.5, 0.5, 0.5))
    assert half.kept[2] == pytest.approx(0.1 - (0.5 / 0.9 - 0.5))
    wide = error.widen(Interval(0.5, 0.45, 0.55, 100), error.at(Level(0.5, 0.0, 1.0)).kept)
    assert wide.high == pytest.approx(0.55 + (0.5 / 0.8 - 0.5) - 0.1)
    assert wide.low == pytest.approx(0.35)


def test_a_new_claim_may_be_a_lost_one_in_other_words() -> None:
    rows = pl.DataFrame(
        {
            "tokens_reference": [40.0, 40.0],
            "tokens_model": [20.0, 8.0],
            "kept_tokens": [20.0, 0.0],
            "supported_tokens": [10.0, 8.0],
            "claims_reference": [4.0, 4.0],
            "claims_model": [2.0, 1.0],
            # Two lost beside one new; four lost beside none.
            "lost_claims": [2.0, 4.0],
            "new_claims": [1.0, 0.0],
            "other_words": [0.0, 0.0],
            "content_words": [10.0, 4.0],
        }
    )
    level = Level.of(rows)
    assert (level.retained, level.length) == (20 / 80, 28 / 80)
    # One of the two lost, half of their 20 tokens, in the 10 of the new one.
    assert level.unrecognised_kept == pytest.approx(10 / 80)
    assert level.unrecognised_supported == pytest.approx(10 / 80)
    assert level.unrecognised_claims == pytest.approx(1 / 8)
    # A twin of the reference makes a quarter of its claims anew: half a claim is beyond that.
    assert Level.of(rows, usual=Usual(0.25)).unrecognised_claims == pytest.approx(1 / 16)
    assert Level.of(rows, usual=Usual(0.5)).unrecognised_kept == 0.0
    unmeasured = ReadingError(None, spread=0.0).at(level)
    assert unmeasured.omission == pytest.approx([0.0, 0.0, 10 / 80])
    # All that is lost and new was reworded: omission turns into rewording, at no saving here.
    assert unmeasured.rewording == pytest.approx([0.0, 0.0, 0.0])
    assert unmeasured.claims == pytest.approx([0.0, 0.0, -1 / 8])
    assert unmeasured.measured_claims == pytest.approx([0.0])


def test_other_words_on_a_line_may_hide_a_lost_claim_and_are_none_of_the_new() -> None:
    rows = pl.DataFrame(
        {
            "tokens_reference": [40.0],
            "tokens_model": [20.0],
            "kept_tokens": [20.0],
            "supported_tokens": [19.0],
            "claims_reference": [4.0],
            "claims_model": [2.0],
            "lost_claims": [2.0],
            "new_claims": [0.1],
            # Six of its ten content words are others than the reference's where both say the same.
            "other_words": [6.0],
            "content_words": [10.0],
        }
    )
    # A claim has three content words at the least: two claims at most, if no other words are usual;
    # without a twin, nobody knows what is.
    assert hidden(rows, Usual())[0] < 0
    assert hidden(rows, Usual(other_words=0.0)).tolist() == [2.0]
    # Half a word of the ten is of what it says anew: 2.85 others are usual, 3.15 make 1.05 claims.
    assert hidden(rows, Usual(other_words=0.3)) == pytest.approx([1.05])
    assert hidden(rows, Usual(other_words=0.7))[0] < 0
    level = Level.of(rows, usual=Usual(new=0.05, other_words=0.3))
    assert level.unrecognised_claims == pytest.approx(1.05 / 4)
    assert level.unrecognised_kept == pytest.approx(10.5 / 40)
    # Its words count as supported already.
    assert level.unrecognised_supported == 0.0


def test_twins_without_a_word_show_no_error() -> None:
    models, activations = ["p0.0", "p0.01"], 24
    rows = [(model, idx, "… !!! —", 9) for model in models for idx in range(activations)]
    schema = ["model", "idx", "explanation", "n_tokens"]
    table = from_frame(pl.DataFrame(rows, schema=schema, orient="row"), reference="p0.0")
    assert not calibrated(table, similarity=None, seed=0)[2].measured
    assert "is not measured (p0.0 and p0.01 make no claims)" in " ".join(
        drop_analysis(table).caveats
    )
    assert rewording(table).headline["p0.01"]["rewording_tokens"] in (0.0, None)
    assert calibrate(table).tables["kinds"].is_empty()


def test_terseness_is_the_share_of_function_words_that_is_gone() -> None:
    texts = {"a": "the cat is on the mat today", "b": "cat on mat today", "c": "cat mat today"}
    frame = pl.DataFrame(
        {"model": list(texts), "idx": [0] * 3, "explanation": list(texts.values())}
    )
    found = terseness(from_frame(frame, reference="a"))
    assert found == pytest.approx({"a": 0.0, "b": 1 - (1 / 4) / (4 / 7), "c": 1.0})


def test_sentences_run_together_keep_their_words_but_function_words() -> None:
    text = 'The end "of the day" is near.\nIt names a river.\nThe genre is news.\nLast, a list.'
    new, left = changed(Twins("made up", [0], [text], [text], [[]]), TOGETHER, 1.0, [0])
    assert left.tolist() == [1.0]
    assert new[0].split("\n") == ['end day" near names river genre news', "Last, list"]


@pytest.fixture(scope="module")
def table() -> Completions:
    models = [PlantedModel("p0.0", 0.0), PlantedModel("p0.01", 0.01, omit=0.5)]
    sweep = plant(models, activations=60, seed=1, samples=2)
    return from_frame(sweep.completions, reference="p0.0")


def test_one_calibration_serves_all_analyzers(table: Completions) -> None:
    first = calibrated(table, similarity=None, seed=0)
    drop_analysis(table)
    assert calibrated(table, similarity=None, seed=0)[2] is first[2]


def test_a_kind_has_an_interval_only_where_its_error_is_known_small(table: Completions) -> None:
    finding = drop_analysis(table)
    _, tried, _ = calibrated(table, similarity=None, seed=0)
    assert tried is not None
    untouched = tried.claims.filter((pl.col("change") == DELETED) & (pl.col("rate") == 0))
    counted = dict(untouched["kind"].value_counts().iter_rows())
    rows = finding.tables["kinds"].to_dicts()
    assert rows
    for row in rows:
        known = counted.get(row["kind"], 0) >= LEAST_CLAIMS
        large = abs(PLANTED_BIAS.get(row["kind"], 0.0)) > LARGE_BIAS
        assert (row["known_error"] is not None) == (known or large)
        small = known and abs(row["known_error"]) <= LARGE_BIAS
        assert (row["retained_low"] is not None) == small


def test_the_error_of_kinds_on_planted_truth_is_the_measured_one() -> None:
    text = (BENCHMARKS / "reading_error.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| retained: (\w+) \|[^|]*\|[^|]*\| ([+-][\d.]+) \|", text, re.MULTILINE)
    assert pytest.approx({kind: float(points) / 100 for kind, points in rows}) == PLANTED_BIAS


def test_a_kind_that_is_misread_on_planted_truth_has_no_interval_anywhere() -> None:
    flat = np.array([[0.0, 0.0], [1.0, 0.0]])
    both = {DELETED: flat, EXCHANGED: flat}
    names = ("final_token", "entity", "content")
    error = ReadingError(
        "twins", kinds=dict.fromkeys(names, both), kind_claims=dict.fromkeys(names, LEAST_CLAIMS)
    )
    final, entity, content = (error.of_kind(kind, 0.5, 1.0) for kind in names)
    assert final is not None
    assert final > LARGE_BIAS
    assert entity is not None
    assert 0 < entity <= LARGE_BIAS
    assert content == 0


def test_without_twins_the_error_is_said_to_be_unmeasured(table: Completions) -> None:
    one_each = table.rows.filter(pl.col("sample") == 0).select("model", "idx", "explanation")
    own = from_frame(one_each, reference="p0.0")
    finding = drop_analysis(own)
    assert any("error on this table is not measured" in caveat for caveat in finding.caveats)
    assert finding.tables["kinds"]["retained_low"].null_count() == finding.tables["kinds"].height


def test_what_cannot_be_told_names_the_most_that_can_be_missing() -> None:
    models = [PlantedModel("p0.0", 0.0), PlantedModel("p0.01", 0.01)]
    own = from_frame(plant(models, activations=60, seed=2).completions, reference="p0.0")
    finding = drop_analysis(own)
    tokens = worth(read(own), "p0.01")
    net = 1 - tokens["worth"] / tokens["reference"]
    numbers = finding.headline["p0.01"]
    most = numbers["net_loss_share_high"]
    assert numbers["net_loss_share"] == pytest.approx(net)
    assert most is not None
    assert most > net
    assert "Whether p0.01 drops anything cannot be told" in finding.verdict
    assert f"p0.01 at most {most:.0%} can be missing" in finding.verdict


def test_a_model_that_adds_more_than_it_leaves_out_is_said_to() -> None:
    models = [PlantedModel("p0.0", 0.0), PlantedModel("longer", 0.01, omit=0.1, add=3.0)]
    own = from_frame(plant(models, activations=60, seed=2).completions, reference="p0.0")
    finding = drop_analysis(own)
    rows = read(own).explanations
    lost = (rows["tokens_reference"] - rows["kept_tokens"]).sum()
    added = (rows["tokens_model"] - rows["supported_tokens"]).sum()
    assert added > 2 * lost
    assert finding.headline["longer"]["net_loss_share_high"] <= 0
    assert "longer leaves out no more than it adds of its own." in finding.verdict
    assert "cannot be told" not in finding.verdict


def test_what_a_second_sample_says_anew_is_no_sign_of_other_words() -> None:
    models = [PlantedModel("p0.0", 0.0, add=2.0), PlantedModel("p0.01", 0.01, omit=0.6, add=2.0)]
    sweep = plant(models, activations=60, seed=3, samples=2, resampling_omission=0.3)
    both = from_frame(sweep.completions, reference="p0.0")
    first = from_frame(sweep.completions.filter(pl.col("sample") == 0), reference="p0.0")
    rows = read(both).explanations
    twin = rows.filter(pl.col("model") == RESAMPLING_FLOOR)
    usual = twin["new_claims"].sum() / twin["claims_model"].sum()
    assert usual > 0.1

    def beside(texts: pl.DataFrame) -> pl.Series:
        """Words of each text that are not of its new claims."""
        return texts["content_words"] * (1 - texts["new_claims"] / texts["claims_model"])

    other = twin["other_words"].sum() / beside(twin).sum()
    own = rows.filter(pl.col("model") == "p0.01")
    new = np.maximum(own["new_claims"] - usual * own["claims_model"], 0.0)
    new += np.maximum(own["other_words"] - other * beside(own), 0.0) / 3
    expected = np.minimum(own["lost_claims"], new).sum() / own["claims_reference"].sum()
    share = drop_analysis(both).headline["p0.01"]["unrecognised_share"]
    assert share == pytest.approx(expected)
    alone = drop_analysis(first).headline["p0.01"]["unrecognised_share"]
    assert alone is not None
    assert share < 0.8 * alone


def test_omission_beside_new_claims_may_be_rewording_and_without_them_not() -> None:
    models = [
        PlantedModel("p0.0", 0.0),
        PlantedModel("less", 0.01, omit=0.6),
        PlantedModel("other", 0.02, omit=0.6, add=2.0),
    ]
    own = from_frame(plant(models, activations=60, seed=2).completions, reference="p0.0")
    finding = rewording(own)
    rows = read(own).explanations
    for model, hides in (("less", False), ("other", True)):
        row = rows.filter(pl.col("model") == model)
        pairs = np.minimum(row["lost_claims"], row["new_claims"])
        omitted = row["tokens_reference"] - row["kept_tokens"]
        hidden = float((omitted * pairs / np.maximum(row["lost_claims"], 1e-9)).mean())
        numbers = finding.headline[model]
        low, most = numbers["omission_tokens_low"], numbers["unrecognised_tokens"]
        assert most == pytest.approx(hidden)
        assert low is not None
        assert (hidden > 0.1 * float(omitted.mean())) == hides
        assert low <= float(omitted.mean()) - hidden
        share = drop_analysis(own).headline[model]["unrecognised_share"]
        assert share == pytest.approx(pairs.sum() / row["claims_reference"].sum())


def _kinds(*rows: tuple[str, int, float, float | None, float | None]) -> pl.DataFrame:
    names = ["kind", "claims", "retained", "retained_low", "retained_high"]
    return pl.DataFrame(list(rows), schema=names, orient="row").with_columns(model=pl.lit("p0.1"))


def test_kinds_are_named_only_where_known_many_and_apart() -> None:
    genre, tail = ("genre", 150, 0.7, 0.65, 0.75), ("final_token", 200, 0.2, 0.15, 0.25)
    (sentence,) = of_kinds("p0.1", _kinds(genre, tail))
    assert "p0.1 keeps 20% [15%, 25%] of the 200 final token claims and 70% [65%, 75%]" in sentence
    assert of_kinds("p0.1", _kinds(genre, ("final_token", 99, 0.2, 0.15, 0.25))) == []
    assert of_kinds("p0.1", _kinds(genre, ("final_token", 200, 0.2, None, None))) == []
    assert of_kinds("p0.1", _kinds(genre, ("final_token", 200, 0.6, 0.55, 0.65))) == []
    assert of_kinds("p0.2", _kinds(genre, tail)) == []


def test_two_runs_of_calibration_show_coverage_of_each_by_the_other() -> None:
    sweep = plant([PlantedModel("p0.0", 0.0)], activations=24, seed=1, samples=2)
    finding = calibrate(from_frame(sweep.completions, reference="p0.0"), runs=2)
    (summary,) = finding.headline.values()
    trials = finding.tables["trials"]
    tried = trials.filter((pl.col("rate") > 0) & (pl.col("change") != TOGETHER))
    inside = (tried["retained_low"] <= tried["true_retained"]) & (
        tried["true_retained"] <= tried["retained_high"]
    )
    assert summary["retained_coverage"] == pytest.approx(inside.mean())
    assert (trials["retained"] <= trials["retained_high"]).all()
    assert set(trials["run"]) == {0, 1}
    together = trials.filter(pl.col("change") == TOGETHER)
    untouched = trials.filter(pl.col("rate") == 0)
    assert together["true_retained"].to_list() == pytest.approx(untouched["retained"].to_list())
