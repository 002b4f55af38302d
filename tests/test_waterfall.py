"""The waterfall of tokens as a table that a reader takes in, net of the resampling floor."""

from __future__ import annotations

import pytest

from nla_audit.analyzers.rewording import rewording
from nla_audit.table.completions import from_frame
from nla_audit.text.reading import RESAMPLING_FLOOR
from nla_audit.world.sweep.planted import PlantedModel, plant

MODELS = [PlantedModel("p0.0", 0.0), PlantedModel("p0.01", 0.01, omit=0.5)]


def test_steps_lead_from_the_reference_to_the_model_and_beyond_the_floor() -> None:
    sweep = plant(MODELS, activations=30, seed=1, samples=2)
    finding = rewording(from_frame(sweep.completions, reference="p0.0"))
    (row,) = finding.tables["waterfall_by_model"].to_dicts()
    model, floor = finding.headline["p0.01"], finding.headline[RESAMPLING_FLOOR]
    moves = ("no_longer_said", "fewer_words", "newly_said", "overhead")
    ends = row["reference_tokens"] + sum(row[name] for name in moves)
    assert row["model_tokens"] == pytest.approx(ends)
    assert row["model_tokens"] < row["reference_tokens"]
    beyond = model["omission_tokens"] - floor["omission_tokens"]
    assert row["no_longer_said_beyond_floor"] == pytest.approx(-beyond)
    assert 0 < beyond < model["omission_tokens"]
    beyond = model["addition_tokens"] - floor["addition_tokens"]
    assert row["newly_said_beyond_floor"] == pytest.approx(-beyond)


def test_without_a_floor_nothing_is_called_beyond_it() -> None:
    sweep = plant(MODELS, activations=30, seed=1)
    finding = rewording(from_frame(sweep.completions, reference="p0.0"))
    table = finding.tables["waterfall_by_model"]
    assert table.columns[0] == "model"
    assert not [name for name in table.columns if "floor" in name]
    (figure,) = (one for one in finding.figures if one.name == "waterfall")
    assert "differ in is not known here" in figure.caption
