"""The reading on real text with a known truth; and the calibration that any table can run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from nla_audit.analyzers.calibrate import calibrate
from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.analyzers.rewording import rewording
from nla_audit.errors import UserError
from nla_audit.table.completions import from_frame
from nla_audit.text.reading import READING_ERROR, read
from nla_audit.world.sweep.planted import PlantedModel, plant
from tests.benchmark_module import benchmark_module
from tests.recomputed import worth

#: Tokens of a hundred and more.
MOST_TOKENS = 8


@pytest.fixture(scope="module")
def truth() -> Iterator[ModuleType]:
    """``benchmarks/reading_truth.py`` as a module."""
    with benchmark_module("reading_truth") as module:
        yield module


@pytest.fixture(scope="module")
def sweep(sweep_path: Path) -> pl.DataFrame:
    return pl.read_parquet(sweep_path).filter(pl.col("idx") < 300)


@pytest.mark.parametrize("share", [0.0, pytest.param(0.3, marks=pytest.mark.slow), 0.5])
def test_deleted_clauses_are_a_drop_and_no_rewording(
    truth: ModuleType, sweep: pl.DataFrame, share: float
) -> None:
    table = from_frame(truth._deleted(sweep, share, 11), reference="p0.0")
    numbers = rewording(table).headline["p0.01"]
    assert abs(numbers["rewording_tokens"] or 0.0) <= MOST_TOKENS
    reported = not drop_analysis(table).verdict.startswith("No model")
    assert reported == (share > 0)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["deleted", "exchanged"])
@pytest.mark.parametrize("half", [0, 1])
def test_lines_of_paraphrases_that_are_gone_are_read_as_left_out(
    truth: ModuleType, shared: Path, half: int, change: str
) -> None:
    lines = pl.read_parquet(shared / "data" / "paraphrase_lines_v3ws.parquet").sort("idx", "line")
    own = lines.filter(
        pl.col("idx").is_in(lines["idx"].unique().sort().gather_every(2, half).to_list())
    )
    for share in truth.SHARES:
        _, error = truth.omission_errors(own, share, change, seed=9, similarity=None)
        assert abs(error) <= 0.07, f"{share:.0%} {change}: {error:+.3f}"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["base", "p0.002"])
def test_either_model_may_be_the_reference(sweep: pl.DataFrame, model: str) -> None:
    both = sweep.filter(pl.col("model").is_in(["p0.0", model]))
    there, back = (
        rewording(from_frame(both, reference=reference)).headline[other]
        for reference, other in (("p0.0", model), (model, "p0.0"))
    )
    for part, mirrored in (("omission", "addition"), ("rewording", "rewording")):
        gap = abs((there[f"{part}_tokens"] or 0.0) + (back[f"{mirrored}_tokens"] or 0.0))
        assert gap <= 2, part
    if model == "base":  # as long as the reference: nothing to say in fewer words
        assert abs(there["rewording_tokens"] or 0.0) <= 3


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_sentence_on_what_is_dropped_is_what_was_read(
    truth: ModuleType, sweep: pl.DataFrame, share: float
) -> None:
    table = from_frame(truth._deleted(sweep, share, 5), reference="p0.0")
    finding = drop_analysis(table)
    reading = read(table)
    kept = float(reading.claims["kept"].mean())
    tokens = worth(reading, "p0.01")
    net = 1 - tokens["worth"] / tokens["reference"]
    numbers = finding.headline["p0.01"]
    assert numbers["net_loss_share"] == pytest.approx(net)
    if share:
        # Beyond what the reading's own error could be, whatever the activations drawn.
        assert net > 1.96 * READING_ERROR
        assert f"p0.01 still makes {kept:.0%} [" in finding.verdict
        chance = float(reading.chance["kept"].mean())
        assert f"chance: {chance:.0%}" in finding.verdict
    else:
        assert abs(net) < 1.96 * READING_ERROR
        assert finding.verdict.startswith("No model")


def test_a_table_too_small_for_its_null_says_so() -> None:
    rows = [
        {"model": model, "idx": idx, "explanation": f"Harbour news {idx}. The text ends with town."}
        for model in ("p0.0", "p0.01")
        for idx in range(4)
    ]
    table = from_frame(pl.DataFrame(rows), reference="p0.0")
    for analyzer in (drop_analysis, rewording):
        assert any("Too little text of p0.01" in caveat for caveat in analyzer(table).caveats)


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    models = [PlantedModel("p0.0", 0.0), PlantedModel("p0.01", 0.01, omit=0.5)]
    return plant(models, activations=60, seed=1, samples=2).completions


class TestCalibrate:
    @pytest.mark.slow
    def test_its_sentence_is_what_its_trials_show(self, table: pl.DataFrame) -> None:
        finding = calibrate(from_frame(table, reference="p0.0"), runs=2)
        (numbers,) = finding.headline.values()
        trials = finding.tables["trials"]
        touched = trials.filter((pl.col("rate") > 0) & (pl.col("change") != "run together"))
        error = touched["retained"] - touched["true_retained"]
        assert numbers["retained_bias"] == pytest.approx(error.mean())
        assert f"{error.mean():+.0%} from what was read of the untouched texts" in finding.verdict
        deleted = touched.filter(pl.col("change") == "deleted")["drop_reported"]
        without = trials.filter((pl.col("change") != "deleted") | (pl.col("rate") == 0))
        others = without["drop_reported"]
        assert (
            f"in {deleted.sum():.0f} of {len(deleted)} trials with one, and in {others.sum():.0f} "
            f"of {len(others)} without"
        ) in finding.verdict
        # Nothing is left out of texts that are run together, however tersely.
        assert others.sum() == 0
        assert trials.filter(pl.col("rate") == 0)["true_retained"].null_count() == 0

    def test_deleting_lowers_what_is_retained_and_is_reported(self, table: pl.DataFrame) -> None:
        trials = calibrate(from_frame(table, reference="p0.0")).tables["trials"]
        deleted = trials.filter(pl.col("change") == "deleted").sort("rate")
        assert deleted["retained"].is_sorted(descending=True)
        assert deleted["drop_reported"].to_list() == [0.0, 1.0, 1.0]

    @pytest.mark.slow
    def test_paraphrases_take_the_place_of_claims(self, shared: Path, sweep_path: Path) -> None:
        finding = calibrate(
            from_frame(pl.read_parquet(sweep_path).filter(pl.col("idx") < 40), reference="p0.0"),
            paraphrases=str(shared / "data" / "paraphrase_lines_v3ws.parquet"),
        )
        (numbers,) = finding.headline.values()
        assert abs(numbers["retained_worst"] or 1.0) <= 0.07

    def test_without_twins_it_says_what_is_missing(self, table: pl.DataFrame) -> None:
        one_each = table.filter(pl.col("sample") == 0)
        short = one_each.with_columns(
            pl.when(pl.col("model") == "p0.0")
            .then(pl.col("explanation"))
            .otherwise(pl.lit("Short."))
            .alias("explanation")
        )
        with pytest.raises(UserError, match=re.escape("no twin to try the reading on")):
            calibrate(from_frame(short.drop("n_tokens", strict=False), reference="p0.0"))

    def test_a_run_is_needed(self, table: pl.DataFrame) -> None:
        with pytest.raises(UserError, match="--runs"):
            calibrate(from_frame(table, reference="p0.0"), runs=0)
