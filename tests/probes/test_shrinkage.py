"""Shrinkage: slopes and losses are those that exchanged texts must have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.findings import Finding
from nla_audit.probes import registry
from nla_audit.probes._calibration import rescaled, slope_of
from nla_audit.table.completions import load
from tests.declared import absent, undeclared
from tests.pairs import planted_pair
from tests.probes import exchanged

RIGHT = 0.7


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exchanged.save_study(tmp_path_factory.mktemp("shrinkage"), right=RIGHT)


@pytest.fixture(scope="module")
def finding(root: Path) -> Finding:
    return registry()["shrinkage"].run(
        load(root / "texts.parquet"),
        pair=str(root / "ar"),
        activations=str(root / "activations.parquet"),
        seed=0,
    )


def test_slope_and_loss_are_those_of_the_exchanged_share(finding: Finding) -> None:
    own = finding.headline[exchanged.MODEL]
    assert own["explanations"] == 400
    assert own["slope_low"] <= RIGHT <= own["slope_high"]
    assert own["chance_slope_low"] <= 0 <= own["chance_slope_high"]
    assert own["fve"] == pytest.approx(2 * RIGHT - 1, abs=0.08)
    assert own["fve_rescaled"] == pytest.approx(RIGHT**2, abs=0.06)
    assert own["lost_to_scale_low"] <= 100 * (1 - RIGHT) ** 2 <= own["lost_to_scale_high"]
    assert own["lost_share"] == pytest.approx(
        own["lost_to_scale"] / 100 / own["fve_rescaled"], rel=1e-6
    )
    assert "too far from the mean" in finding.verdict


def test_the_card_declares_every_number(finding: Finding) -> None:
    assert undeclared(finding) == []
    assert absent(finding, finding.metrics) == []


def test_fve_is_that_of_the_scorer(root: Path, finding: Finding) -> None:
    texts = pl.read_parquet(root / "texts.parquet")["explanation"].to_list()
    table = pl.read_parquet(root / "activations.parquet")
    vectors = np.array(table["activation_vector"].to_list())
    scores = planted_pair.load_planted_ar(root / "ar").score(texts, vectors)
    assert finding.headline[exchanged.MODEL]["fve"] == pytest.approx(scores.fve.mean(), abs=1e-6)


def headline_of(root: Path) -> dict[str, float | None]:
    finding = registry()["shrinkage"].run(
        load(root / "texts.parquet"),
        pair=str(root / "ar"),
        activations=str(root / "activations.parquet"),
    )
    return finding.headline[exchanged.MODEL]


def test_texts_in_their_place_are_calibrated(tmp_path: Path) -> None:
    own = headline_of(exchanged.save_study(tmp_path, right=1.0, n=60))
    assert own["slope"] == pytest.approx(1, abs=1e-4)
    assert own["lost_to_scale"] == pytest.approx(0, abs=1e-4)


def test_of_nothing_no_share_is_lost(tmp_path: Path) -> None:
    own = headline_of(exchanged.save_study(tmp_path, right=0.0, n=60))
    assert own["fve_rescaled_low"] < 0
    assert own["lost_share"] is own["lost_share_low"] is own["lost_share_high"] is None


def test_the_factor_comes_from_the_other_half() -> None:
    products, squares = np.array([1.0, 2.0, 3.0, 8.0]), np.ones(4)
    assert rescaled(products, squares, [0, 1, 2, 3]).tolist() == [5.0, 2.0, 5.0, 2.0]
    assert np.isnan(rescaled(products, squares, [7, 7, 7, 7])).all()


def test_the_slope_is_that_of_least_squares() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(5, 1, 500)
    y = 3 + 0.4 * x + generator.normal(0, 0.5, 500)
    frame = pl.DataFrame({"idx": range(500), "x": x, "y": y})
    slope = slope_of(frame, "x", "y", 0)
    assert slope.value == pytest.approx(np.polyfit(x, y, 1)[0])
    assert slope.low < 0.4 < slope.high < 0.5


def test_the_command_needs_a_pair(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["shrinkage", *exchanged.arguments(root), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["headline"][exchanged.MODEL]["slope"] < 1
    assert cli.run(["shrinkage", str(root / "texts.parquet")]) == 2
    assert "needs an AR: give --pair" in capsys.readouterr().err
