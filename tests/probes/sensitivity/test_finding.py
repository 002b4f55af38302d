"""Simulated pairs whose truth is known: what is said, what carried unsaid, what cannot be told."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit.errors import UserError
from nla_audit.findings import Finding
from nla_audit.probes.sensitivity import cube as cube_module
from nla_audit.probes.sensitivity import mentions
from nla_audit.probes.sensitivity.carried import carried
from nla_audit.probes.sensitivity.controls import CONCEPT, OTHER, RANDOM, VARIANCE
from nla_audit.probes.sensitivity.cube import cubes, with_said
from nla_audit.probes.sensitivity.finding import sensitivity
from nla_audit.probes.sensitivity.table import read_table
from nla_audit.probes.sensitivity.verdict import CANNOT_TELL, CARRIED, NEITHER, SAID
from nla_audit.report.colours import ModelColours
from nla_audit.report.figures import render_figures
from nla_audit.text.words import words
from tests.declared import absent, undeclared
from tests.probes.sensitivity.planted import STRENGTHS, PlantedPair, study

SAYS = PlantedPair("p0.0", alpha=0.2)
LATE = PlantedPair("p0.01", alpha=0.5)
SILENT = PlantedPair("p0.03", alpha=np.inf, guess=0.0)
CODED = PlantedPair("p0.03", alpha=np.inf, guess=0.0, code=0.6, seed=1)


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """Three models: one says it early, one late, one has a code."""
    return study([SAYS, LATE, CODED], n=50)


@pytest.fixture(scope="module")
def finding(table: pl.DataFrame) -> Finding:
    return sensitivity(table)


def verdicts(found: Finding) -> dict[str, str]:
    return dict(found.parameters["verdict"])


class TestVerdicts:
    def test_said_and_carried(self, finding: Finding) -> None:
        assert verdicts(finding) == {"p0.0": SAID, "p0.01": SAID, "p0.03": CARRIED}
        assert "p0.03: carried, not said:" in finding.verdict

    def test_the_threshold_is_that_which_was_planted(self, finding: Finding) -> None:
        for pair in (SAYS, LATE):
            row = finding.headline[pair.name]
            # The planted curve is over the component of an activation of length 1.
            low, high = (row[f"alpha50_{end}"] for end in ("low", "high"))
            assert low is not None
            assert high is not None
            assert low < math.tan(math.asin(pair.alpha)) < high
        assert finding.headline["p0.03"]["alpha50"] is None
        times = finding.headline["p0.01"]
        low, high = times["times_reference_low"], times["times_reference_high"]
        assert low is not None
        assert high is not None
        assert low < math.tan(math.asin(0.5)) / math.tan(math.asin(0.2)) < high
        assert re.search(r"p0\.01 needs [\d.]+ \[.+\] times", finding.verdict)
        assert "p0.03 needs more than the ladder holds" in finding.verdict

    def test_neither(self) -> None:
        found = sensitivity(study([SAYS, SILENT]))
        assert verdicts(found) == {"p0.0": SAID, "p0.03": NEITHER}
        assert (found.headline["p0.03"]["carried_unsaid_high"] or 1) < 0.1

    def test_never_named_by_any_model_is_no_neither(self) -> None:
        found = sensitivity(study([SILENT]))
        assert verdicts(found) == {"p0.03": CANNOT_TELL}
        assert any("its words may not be those" in caveat for caveat in found.caveats)

    def test_a_code_is_found_though_no_model_ever_names_the_concept(self) -> None:
        assert verdicts(sensitivity(study([CODED]))) == {"p0.03": CARRIED}

    def test_said_and_carried_at_once_is_told_as_both(self) -> None:
        both = PlantedPair("p0.0", alpha=0.4, code=0.8)
        found = sensitivity(study([both]))
        assert verdicts(found) == {"p0.0": CARRIED}
        assert "p0.0: carried, not said (and said elsewhere)" in found.verdict

    def test_few_activations(self) -> None:
        found = sensitivity(study([SAYS], n=6))
        assert verdicts(found) == {"p0.0": CANNOT_TELL}
        assert all(
            value is None
            for key, value in found.headline["p0.0"].items()
            if key.endswith(("_low", "_high"))
        )

    def test_without_controls_nothing_is_called_carried(self, table: pl.DataFrame) -> None:
        alone = table.filter((pl.col("kind") == CONCEPT) & (pl.col("model") == "p0.03"))
        found = sensitivity(alone)
        assert verdicts(found) == {"p0.03": CANNOT_TELL}
        assert any("no control of kind random, variance" in caveat for caveat in found.caveats)

    def test_without_an_ar_naming_is_still_told(self, table: pl.DataFrame) -> None:
        unread = table.with_columns(
            pl.lit(None, dtype=pl.Float64).alias(name)
            for name in ("component", "concept_component", "fit", "fit_unplanted", "fit_elsewhere")
        )
        found = sensitivity(unread)
        assert verdicts(found)["p0.0"] == SAID
        assert verdicts(found)["p0.03"] == CANNOT_TELL

    def test_an_alarm_over_random_directions_alone_is_none(self, table: pl.DataFrame) -> None:
        """Directions that come back as the concept does clear it, whichever control they are of."""
        for kind in (RANDOM, VARIANCE, OTHER):
            carries = (pl.col("kind") == kind) & (pl.col("strength") > 0)
            raised = table.with_columns(
                component=pl.when(carries)
                .then(pl.col("component") + pl.col("planted") * 0.8)
                .otherwise(pl.col("component")),
                concept_component=pl.when(carries & (pl.col("kind") == OTHER))
                .then(pl.col("concept_component") + pl.col("planted") * 0.8)
                .otherwise(pl.col("concept_component")),
            )
            assert verdicts(sensitivity(raised))["p0.03"] != CARRIED


class TestNumbers:
    def test_all_is_declared_and_drawn(self, finding: Finding) -> None:
        assert undeclared(finding) == absent(finding, finding.metrics) == []
        columns = {column for frame in finding.tables.values() for column in frame.columns}
        assert set(finding.columns) - columns == set()
        drawn = render_figures(finding, ModelColours.of(list(finding.headline), {}))
        assert {figure.name for figure in drawn} == {
            "sensitivity-curves",
            "sensitivity-thresholds",
            "sensitivity-components",
        }
        json.loads(finding.to_json())

    def test_shares_are_those_of_the_table(self, table: pl.DataFrame, finding: Finding) -> None:
        rows = table.filter((pl.col("kind") == CONCEPT) & (pl.col("model") == "p0.01"))
        shares = dict(rows.group_by("strength").agg(pl.col("named").mean()).iter_rows())
        curve = finding.tables["curves"].filter(pl.col("model") == "p0.01")
        assert dict(curve.select("strength", "named").iter_rows()) == pytest.approx(shares)
        assert curve["strength"].to_list() == [0, *STRENGTHS]

    def test_the_share_carried_is_the_slope_of_the_lift(
        self, table: pl.DataFrame, finding: Finding
    ) -> None:
        rows = table.filter((pl.col("kind") == CONCEPT) & (pl.col("model") == "p0.0"))
        unplanted = rows.filter(pl.col("strength") == 0).select("idx", before="component")
        rows = rows.filter((pl.col("strength") > 0) & pl.col("named")).join(unplanted, on="idx")
        lift = (rows["component"] - rows["before"]).to_numpy()
        planted = rows["planted"].to_numpy()
        assert finding.headline["p0.0"]["carried_said"] == pytest.approx(
            (lift * planted).sum() / (planted**2).sum()
        )

    def test_the_price_is_the_words_of_the_mention(self, finding: Finding) -> None:
        weakest = finding.tables["price"].filter(
            (pl.col("model") == "p0.0") & (pl.col("strength") == STRENGTHS[1])
        )
        assert 0 < weakest["tokens_more_named"][0] <= 4  # “It is an evaluation.”
        assert weakest["tokens_more_unnamed"][0] == pytest.approx(0, abs=0.5)

    def test_random_directions_are_named_no_more_than_nothing(self, finding: Finding) -> None:
        for row in finding.headline.values():
            low, high = row["named_random_low"], row["named_unplanted_high"]
            assert low is not None
            assert high is not None
            assert low <= high

    def test_texts_fit_what_was_planted(self, finding: Finding) -> None:
        fits = finding.tables["fits"].filter(
            (pl.col("kind") == CONCEPT) & (pl.col("strength") == 0.8) & (pl.col("model") == "p0.0")
        )
        assert fits["gain_low"][0] > 0
        assert fits["fit"][0] > fits["fit_elsewhere"][0]

    def test_the_order_of_rows_does_not_matter(self, table: pl.DataFrame, finding: Finding) -> None:
        assert sensitivity(table.sample(fraction=1, shuffle=True, seed=0)).to_json() == (
            finding.to_json()
        )

    def test_a_curve_that_falls_is_told(self, table: pl.DataFrame) -> None:
        falls = (pl.col("strength") == STRENGTHS[-1]) & (pl.col("kind") == CONCEPT)
        fallen = table.with_columns(named=pl.col("named") & ~falls)
        caveats = sensitivity(fallen).caveats
        assert any("p0.0: named most often at strength 0.4" in caveat for caveat in caveats)

    def test_an_unknown_reference(self, table: pl.DataFrame) -> None:
        with pytest.raises(UserError, match='no model "p9"'):
            sensitivity(table, reference="p9")


class TestNearness:
    def test_the_limit_is_set_on_one_half_and_judged_on_the_other(
        self, table: pl.DataFrame
    ) -> None:
        generator = np.random.default_rng(0)
        near = generator.normal(size=table.height) + 6 * table["named"].to_numpy()
        marked, limit = with_said(table.with_columns(nearness=pl.Series(near)), "similarity")
        assert limit is not None
        unplanted = marked.filter((pl.col("strength") == 0) & pl.col("said").is_not_null())
        assert unplanted["idx"].n_unique() == 25
        found = sensitivity(table.with_columns(nearness=pl.Series(near)), detector="similarity")
        rates = found.tables["detectors"].filter(pl.col("detector") == "similarity")
        assert (rates["false_alarms"] < 4 * cube_module.FALSE_ALARMS).all()
        assert verdicts(found)["p0.0"] == SAID

    def test_the_nearest_claim_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With an encoder that counts words, nearness is the share of words in common."""

        class Counting:
            def encode(self, texts: list[str], **_: object) -> np.ndarray:
                known = sorted({word for text in texts for word in words(text)})
                counts = np.array([[words(text).count(word) for word in known] for text in texts])
                return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True))

        monkeypatch.setattr(mentions, "sentence_model", lambda name: Counting())
        concept = mentions.sought("test", "somebody is tested", ["tested"])
        texts = [
            "Bread is baked here at dawn. somebody is tested",
            "Bread rises at dawn.",
            None,
            "",
        ]
        near = mentions.nearness(concept, texts, "counting")
        assert near[0] == pytest.approx(1)
        assert near[1] == pytest.approx(0)
        assert np.isnan(near[2:]).all()

    def test_it_needs_a_column(self, table: pl.DataFrame) -> None:
        with pytest.raises(UserError, match="--similarity"):
            sensitivity(table, detector="similarity")


class TestTables:
    def test_it_is_judged_without_models(self) -> None:
        program = (
            "import sys, nla_audit.probes.sensitivity.finding, nla_audit.probes.sensitivity.table;"
            "print('torch' in sys.modules, 'numpy' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["False", "True"]

    def test_it_is_read_again(self, table: pl.DataFrame, tmp_path: Path) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        again, source = read_table(tmp_path / "t.parquet")
        assert again.equals(table)
        assert source.rows == table.height

    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            (lambda t: t.drop("strength"), '"strength" is missing'),
            (lambda t: pl.concat([t, t.head(1)]), "occurs twice"),
            (lambda t: t.with_columns(kind=pl.lit("x")), "none of concept"),
            (lambda t: t.with_columns(strength=-pl.col("strength") - 1), "negative"),
            (lambda t: t.with_columns(idx=pl.lit(None, dtype=pl.String)), '"idx" is empty'),
            (lambda t: t.filter(pl.col("kind") == RANDOM), "no row of the concept"),
            (lambda t: t.with_columns(strength=pl.lit("much")), "another type"),
        ],
    )
    def test_what_is_no_such_table(
        self, table: pl.DataFrame, tmp_path: Path, spoil: object, why: str
    ) -> None:
        assert callable(spoil)
        spoil(table).write_parquet(tmp_path / "t.parquet")
        with pytest.raises(UserError, match=why):
            read_table(tmp_path / "t.parquet")


@pytest.mark.slow
def test_power_and_false_alarms() -> None:
    """A code is found in nine of ten studies, and clean pairs raise it in one of twenty."""
    seeds, found, false = 25, 0, 0
    by_chance = {"random": 0, "features": 0}
    for seed in range(seeds):
        coded = PlantedPair("coded", alpha=np.inf, guess=0.0, code=0.6, seed=seed)
        clean = PlantedPair("clean", alpha=0.3, seed=seed)
        silent = PlantedPair("silent", alpha=np.inf, guess=0.0, seed=seed)
        alarms = _alarms([coded, clean, silent], seed)
        found += alarms["coded"]
        false += alarms["clean"] + alarms["silent"]
        # The hardest clean pairs: the concept is one more draw of a control, and is never named.
        for concept in by_chance:
            by_chance[concept] += _alarms([silent], seed, concept=concept)["silent"]
    print(
        f"a code is found in {found} of {seeds} studies; alarms: {false} of {2 * seeds} clean "
        f"pairs, and of {seeds} each whose concept is a draw of a control: {by_chance}"
    )
    assert found >= 0.9 * seeds
    assert false <= 0.05 * 2 * seeds
    assert max(by_chance.values()) <= 4  # more are less likely than 1 in 100 at a rate of 5 %


def _alarms(pairs: list[PlantedPair], seed: int, concept: str = "apart") -> dict[str, bool]:
    marked, _ = with_said(study(pairs, n=40, seed=seed, concept=concept), "words")
    models = [pair.name for pair in pairs]
    return {
        model: carried(one).p_value < 0.05 for model, one in cubes(marked, models, seed).items()
    }
