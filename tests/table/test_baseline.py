"""What FVE is measured against: recorded, worked out from the table, or said to be missing."""

from __future__ import annotations

import polars as pl
import pytest

from nla_audit.analyzers.frontier import frontier
from nla_audit.errors import UserError
from nla_audit.table.completions import Completions, from_frame


def scored(table: pl.DataFrame, baseline: float = 0.7) -> pl.DataFrame:
    """``table`` with the MSE that its FVE has by ``baseline``."""
    return table.with_columns(mse=(1 - pl.col("fve")) * baseline)


def ruler_caveat(completions: Completions) -> str:
    return next(text for text in frontier(completions).caveats if "by one ruler" in text)


def test_a_recorded_baseline_is_reported_with_its_value(table: pl.DataFrame) -> None:
    completions = from_frame(
        table.with_columns(fve_baseline=pl.lit("mean_normalized"), fve_baseline_value=0.6704)
    )
    assert completions.baseline.name == "mean_normalized"
    assert completions.baseline.value == pytest.approx(0.6704)
    assert "1 − MSE / 0.6704, the baseline mean_normalized" in ruler_caveat(completions)
    parameters = frontier(completions).parameters
    assert parameters["fve_baseline"] == "mean_normalized"
    assert parameters["fve_baseline_value"] == pytest.approx(0.6704)
    assert not {"fve_baseline", "fve_baseline_value"} & set(completions.rows.columns)


def test_a_baseline_that_is_not_recorded_follows_from_mse_and_fve(table: pl.DataFrame) -> None:
    completions = from_frame(scored(table))
    assert completions.baseline.name is None
    assert completions.baseline.value == pytest.approx(0.7)
    caveat = ruler_caveat(completions)
    assert "follows from mse and fve" in caveat
    assert "does not name" in caveat


def test_rows_that_imply_several_values_imply_none(table: pl.DataFrame) -> None:
    spoilt = scored(table).with_columns(
        mse=pl.when(pl.col("model") == "base").then(pl.col("mse") * 1.1).otherwise("mse")
    )
    assert from_frame(spoilt).baseline.value is None
    assert "not recorded" in ruler_caveat(from_frame(spoilt))


def test_two_baselines_are_refused_with_the_row(table: pl.DataFrame) -> None:
    mixed = table.with_columns(
        fve_baseline=pl.when(pl.col("model") == "base")
        .then(pl.lit("raw_variance"))
        .otherwise(pl.lit("mean_normalized"))
    )
    with pytest.raises(UserError, match=r'row 0 \(model "base".*"raw_variance".*--baseline'):
        from_frame(mixed)


def test_values_that_differ_between_models_are_a_caveat(table: pl.DataFrame) -> None:
    values = table.with_columns(
        fve_baseline=pl.lit("raw_variance"),
        fve_baseline_value=pl.when(pl.col("model") == "base").then(0.7).otherwise(0.72),
    )
    assert any("baselines from 0.7 to 0.72" in note for note in from_frame(values).notes)


def test_a_record_that_mse_contradicts_is_a_caveat(table: pl.DataFrame) -> None:
    contradicted = scored(table).with_columns(fve_baseline_value=0.8)
    assert any("imply 0.7" in note for note in from_frame(contradicted).notes)


@pytest.mark.parametrize("value", [0.0, -0.7])
def test_a_baseline_of_no_size_is_refused(table: pl.DataFrame, value: float) -> None:
    with pytest.raises(UserError, match=r"row 0 .*fve_baseline_value.*above 0"):
        from_frame(table.with_columns(fve_baseline_value=value))
