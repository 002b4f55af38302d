"""What explanations of the synthetic language name: counted on texts whose answer is plain."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from nla_audit.world.toy.explanations import write_explanation
from nla_audit.world.toy.facts import ENDING, facts_named, probe_accuracy
from nla_audit.world.toy.language import FACTS

TRUE = {
    "topic": "harbour",
    "tone": "gloomy",
    "speaker": "judge",
    "time": "dusk",
    "purpose": "warns",
}
PROBE = dict.fromkeys(FACTS, 0.8)


def named(texts: list[str | None], model: str = "p0.0", penalty: float | None = 0.0):
    """The finding for explanations of documents of which each states :data:`TRUE`."""
    n = len(texts)
    completions = pl.DataFrame(
        {
            "model": [model] * n,
            "length_penalty": pl.Series([penalty] * n, dtype=pl.Float64),
            "idx": range(n),
            "doc_id": [str(row) for row in range(n)],
            "explanation": pl.Series(texts, dtype=pl.String),
            "source_text": ["apple kite lion"] * n,
        }
    )
    return completions, pl.DataFrame({"idx": range(n), **{f: [v] * n for f, v in TRUE.items()}})


def shares(texts: list[str | None], fact: str) -> dict[str, float]:
    table = facts_named(*named(texts), PROBE).tables["facts"]
    return table.row(by_predicate=pl.col("fact") == fact, named=True)


def test_gold_explanations_are_right_but_for_what_they_leave_out():
    rng = np.random.default_rng(0)
    texts = [write_explanation(rng, TRUE, ["apple", "kite", "lion"]) for _ in range(400)]
    for fact in FACTS:
        found = shares(texts, fact)
        assert found["wrong"] == 0
        assert found["right"] + found["left_out"] == pytest.approx(1)
        assert found["left_out"] == pytest.approx(0.1, abs=0.05)
    assert shares(texts, ENDING)["right"] == 1


@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        ("harbour scene .", 1, 0),
        ("kitchen scene .", 0, 1),
        ("harbour scene . set at the kitchen .", 0, 1),  # both is no answer
        ("gloomy tone .", 0, 0),
        ("", 0, 0),
    ],
)
def test_a_fact_is_right_wrong_or_left_out(text, right, wrong):
    found = shares([text] * 12, "topic")
    assert (found["right"], found["wrong"]) == (right, wrong)
    assert found["left_out"] == 1 - right - wrong


@pytest.mark.parametrize(
    ("text", "right", "wrong", "in_source"),
    [
        ('ends " kite lion "', 1, 0, 1.0),
        ('ends " lion kite "', 0, 1, 1.0),
        ('ends " apple cow "', 0, 1, 0.5),
        ("ends there", 0, 0, None),
    ],
)
def test_quoted_endings(text, right, wrong, in_source):
    finding = facts_named(*named([text] * 12), PROBE)
    found = finding.tables["facts"].row(by_predicate=pl.col("fact") == ENDING, named=True)
    assert (found["right"], found["wrong"]) == (right, wrong)
    assert finding.headline["p0.0"]["quoted_in_source"] == in_source


def test_failed_explanations_are_not_counted_and_chance_is_of_what_is_named():
    finding = facts_named(*named(["harbour scene ."] * 12 + [None] * 12), PROBE)
    assert finding.headline["p0.0"]["n"] == 12
    topic = finding.tables["facts"].row(by_predicate=pl.col("fact") == "topic", named=True)
    assert topic["chance"] == 1  # every document here is of the harbour


def test_the_verdict_names_what_falls_most_and_least():
    whole = "harbour scene . gloomy tone . judge speaking . at dusk . he warns . "
    first, facts = named([whole] * 12)
    last, _ = named(["gloomy tone ."] * 12, "p0.1", 0.1)
    finding = facts_named(pl.concat([first, last]), facts, PROBE)
    assert "“tone” least (100% to 100%)" in finding.verdict
    assert "100% by p0.0, 20% by p0.1" in finding.verdict


def test_the_probe_reads_what_is_linear_and_nothing_else():
    rng = np.random.default_rng(1)
    n = 600
    facts = pl.DataFrame({fact: rng.choice(values, n) for fact, values in FACTS.items()})
    activations = rng.normal(size=(n, 40))
    for place, value in enumerate(FACTS["tone"]):
        activations[:, place] += 6.0 * (facts["tone"] == value).to_numpy()
    accuracy = probe_accuracy(activations.astype(np.float32), facts, np.arange(n) % 3 == 0)
    assert accuracy["tone"] > 0.95
    assert accuracy["topic"] < 0.3  # eight values, nothing planted
