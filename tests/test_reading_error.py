"""The reading's error: measured on a table's own twins, and what it does to intervals."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers._reading_error import LARGE_BIAS, LEAST_CLAIMS, ReadingError
from nla_audit.analyzers._trials import calibrated
from nla_audit.analyzers._twins import DELETED, EXCHANGED
from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.completions import Completions, from_frame
from nla_audit.stats import Interval
from nla_audit.text.reading import read
from nla_audit.world.planted import PlantedModel, plant

ERROR = ReadingError(
    "made up",
    curves={
        DELETED: np.array([[0.0, 0.0, 0.0, 0.0], [0.5, 0.1, 0.04, 0.1], [1.0, 0.0, 0.0, 0.0]]),
        EXCHANGED: np.array([[0.0, 0.0, 0.0, 0.0], [0.5, 0.3, 0.2, 0.3], [1.0, 0.0, 0.0, 0.0]]),
    },
    spread=0.0,
)


def test_what_is_read_too_high_may_be_lower_and_not_higher() -> None:
    wide = ERROR.widen(Interval(0.5, 0.45, 0.55, 100), ERROR.at(0.5, 0.5).kept)
    assert wide.high == 0.55
    # A text half as long holds half as much in the place of what it left out: .1 + .5 × .2.
    assert wide.low == pytest.approx(0.45 - 0.2)
    assert wide.value == 0.5


def test_deletion_called_rewording_lowers_rewording_and_raises_omission() -> None:
    bias = ERROR.at(0.5, 0.0)
    assert bias.omission == pytest.approx([-0.1, -0.1])
    assert bias.rewording == pytest.approx([0.06, 0.06])
    assert bias.omission + bias.rewording + bias.addition == pytest.approx([0.0, 0.0])


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
        assert (row["known_error"] is not None) == known
        small = known and abs(row["known_error"]) <= LARGE_BIAS
        assert (row["retained_low"] is not None) == small


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
    rows = read(own).explanations
    lost = (rows["tokens_reference"] - rows["kept_tokens"]).sum()
    added = (rows["tokens_model"] - rows["supported_tokens"]).sum()
    net = float((lost - added) / rows["tokens_reference"].sum())
    numbers = finding.headline["p0.01"]
    most = numbers["net_loss_share_high"]
    assert numbers["net_loss_share"] == pytest.approx(net)
    assert most is not None
    assert most > net
    assert "Whether p0.01 drops anything cannot be told" in finding.verdict
    assert f"p0.01 at most {most:.0%} can be missing" in finding.verdict
