"""Names that a source holds, and what their rate allows for."""

from __future__ import annotations

import sys

import polars as pl
import pytest

from nla_audit.analyzers.faithfulness import faithfulness
from nla_audit.table.completions import from_frame
from nla_audit.world.sweep.planted import PlantedModel, plant

SOURCE = "Yesterday the painter Ada Holm of the Leeds Council sold 17 pictures."
ACTIVATIONS = 40


def summary_of(name: str) -> dict[str, float | None]:
    """Where every explanation names ``name`` and a number of the source."""
    table = pl.DataFrame(
        {
            "model": "p0.0",
            "idx": range(ACTIVATIONS),
            "explanation": f"the text mentions {name} and then 17 pictures",
            "source_text": SOURCE,
        }
    )
    return faithfulness(from_frame(table, reference="p0.0")).headline["p0.0"]


@pytest.mark.parametrize(("name", "lacking"), [("Ada Holm Leeds", 0), ("Ada Leeds", 1)])
def test_two_names_run_together_are_both_looked_up(name: str, lacking: int) -> None:
    found = summary_of(name)
    assert found["checked_names"] == ACTIVATIONS
    assert found["unsupported_name_rate"] == lacking


def test_the_rate_of_names_allows_for_the_rule_that_finds_them() -> None:
    """Numbers are found without error, and as many of them are right here."""
    found = summary_of("Ada Holm")
    assert found["unsupported_name_rate"] == found["unsupported_number_rate"] == 0
    of_numbers = found["unsupported_number_rate_high"]
    assert of_numbers is not None
    assert found["unsupported_name_rate_high"] == pytest.approx(of_numbers + 0.015)


def test_sources_that_are_let_go_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [PlantedModel("p0.0", 0.0, spurious=0.3), PlantedModel("p0.01", 0.01, spurious=0.5)]
    table = from_frame(plant(models, activations=15, seed=2).completions, reference="p0.0")
    kept = faithfulness(table).to_json()
    monkeypatch.setattr(sys.modules["nla_audit.analyzers.faithfulness"], "_KEPT_SOURCES", 1)
    assert faithfulness(table).to_json() == kept
