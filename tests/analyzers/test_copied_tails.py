"""Final tokens that a text shows without saying anything of them."""

from __future__ import annotations

import polars as pl
import pytest

from nla_audit.analyzers._copied_tails import shown_by_tails
from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.table.completions import from_frame
from nla_audit.world.sweep.planted import PlantedModel, plant

SOURCE = "They had grown much colder in the early March than"


def test_only_what_is_copied_and_not_said_is_shown() -> None:
    said = 'Final token "than" opens a comparison.'
    texts = {
        ("p0.0", 0): said,
        ("p0.01", 0): 'A cold day, "in the early March than"',
        ("p0.0", 1): said,
        ("p0.01", 1): 'Cold: "in the early March than", final "than"',
        ("p0.0", 2): f'{said} It reads "in the early March than".',
        ("p0.01", 2): 'A cold day, "in the early March than"',
        ("p0.0", 3): said,
        ("p0.01", 3): "A cold day and a comparison",
        ("p0.0", 4): said,
        ("p0.01", 4): None,
    }
    rows = [
        {"model": model, "idx": idx, "explanation": text, "source_text": SOURCE}
        for (model, idx), text in texts.items()
    ]
    table = from_frame(pl.DataFrame(rows), reference="p0.0")
    claims = pl.DataFrame(
        {"model": "p0.01", "idx": [0, 1, 2, 3], "sample": 0, "kept": [0.8, 1.0, 0.9, 0.2]}
    )
    assert shown_by_tails(table, claims) == pytest.approx(0.8 / 4)
    bare = from_frame(pl.DataFrame(rows).drop("source_text"), reference="p0.0")
    assert shown_by_tails(bare, claims) == 0


def test_the_interval_of_final_tokens_allows_for_what_is_merely_shown() -> None:
    models = [
        PlantedModel("p0.0", 0.0),
        PlantedModel("twin", 0.001),  # shows how far the reading errs
        PlantedModel("copies", 0.01, omit=0.6, reword=1.0, tail_copy=1.0),
    ]
    sweep = plant(models, activations=200, seed=5)
    finding = drop_analysis(from_frame(sweep.completions, reference="p0.0"))
    row = finding.tables["kinds"].row(
        by_predicate=(pl.col("model") == "copies") & (pl.col("kind") == "final_token"), named=True
    )
    planted = sweep.truth.filter((pl.col("model") == "copies") & (pl.col("kind") == "final_token"))
    truth = (planted["fate"].cast(pl.String) != "omitted").mean()
    assert truth == pytest.approx(0.4, abs=0.1)
    # As it is read, the copied words are taken for the claim.
    assert row["retained"] > truth + 0.05
    assert row["retained_low"] <= truth <= row["retained_high"]
