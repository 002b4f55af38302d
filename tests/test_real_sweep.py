"""The published Qwen3-8B length-penalty sweep: what the analyzers say against an independent count.

The numbers are worked out here from the Parquet file itself, with none of the package's code. The
three pairs in :data:`PUBLISHED` are rounded figures of the same 600 rows.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit.analyzers import registry
from nla_audit.findings import Finding
from nla_audit.table.completions import Completions, load
from nla_audit.text.reading import read
from tests.recomputed import worth

MODELS = ("base", "p0.0", "p0.001", "p0.002", "p0.006", "p0.015", "p0.03")
#: model → mean tokens, mean FVE.
PUBLISHED = {"p0.0": (126.46, 0.587), "p0.001": (91.63, 0.595), "p0.03": (14.15, 0.215)}


@pytest.fixture(scope="module")
def raw(sweep_path: Path) -> pl.DataFrame:
    """The file as it is."""
    return pl.read_parquet(sweep_path)


@pytest.fixture(scope="module")
def completions(sweep_path: Path) -> Completions:
    return load(sweep_path)


@pytest.fixture(scope="module")
def frontier(completions: Completions) -> Finding:
    return registry()["frontier"].run(completions, seed=0)


@pytest.fixture(scope="module")
def rewording(completions: Completions) -> Finding:
    return registry()["rewording"].run(completions, seed=0)


def rows_of(raw: pl.DataFrame, model: str) -> list[dict]:
    return [row for row in raw.to_dicts() if row["model"] == model]


def test_the_reference_is_rl_without_penalty(completions: Completions) -> None:
    assert completions.models == MODELS
    assert completions.reference == "p0.0"
    assert completions.rows.height == 4200


class TestFrontier:
    @pytest.mark.parametrize("model", MODELS)
    def test_mean_tokens_and_fve_of_all_rows(
        self, model: str, raw: pl.DataFrame, frontier: Finding
    ) -> None:
        rows = rows_of(raw, model)
        assert len(rows) == 600
        tokens = [row["n_tokens"] for row in rows]
        fve = [row["fve"] for row in rows if row["extracted"] and row["fve"] is not None]
        summary = frontier.headline[model]
        assert summary["n"] == 600
        assert summary["mean_tokens"] == pytest.approx(sum(tokens) / 600, rel=1e-12)
        assert summary["fve_mean"] == pytest.approx(sum(fve) / len(fve), rel=1e-9)
        assert summary["fve_median"] == pytest.approx(float(np.median(fve)), rel=1e-9)
        assert summary["fve_missing"] == 600 - len(fve)

    @pytest.mark.parametrize("model", PUBLISHED)
    def test_published_means(self, model: str, frontier: Finding) -> None:
        tokens, fve = PUBLISHED[model]
        # As printed: half a unit of the last digit, which p0.0 with 126.465 just reaches.
        summary = frontier.headline[model]
        assert summary["mean_tokens"] == pytest.approx(tokens, abs=0.005 + 1e-9)
        assert summary["fve_mean"] == pytest.approx(fve, abs=0.0005 + 1e-9)

    @pytest.mark.parametrize("model", MODELS)
    def test_failed_and_empty_are_kept_apart(
        self, model: str, raw: pl.DataFrame, frontier: Finding
    ) -> None:
        rows = rows_of(raw, model)
        extracted = [row for row in rows if row["extracted"]]
        empty = [row for row in extracted if not row["explanation"].strip()]
        summary = frontier.headline[model]
        assert summary["extraction_rate"] == pytest.approx(len(extracted) / 600, abs=1e-12)
        assert summary["empty_rate"] == pytest.approx(len(empty) / len(extracted), abs=1e-12)

    @pytest.mark.parametrize("model", MODELS)
    def test_changes_are_paired_by_activation(
        self, model: str, raw: pl.DataFrame, frontier: Finding
    ) -> None:
        own = {row["idx"]: row for row in rows_of(raw, model)}
        reference = {row["idx"]: row for row in rows_of(raw, "p0.0")}
        changes = [
            own[idx]["fve"] - reference[idx]["fve"]
            for idx in own
            if own[idx]["fve"] is not None and reference[idx]["fve"] is not None
        ]
        summary = frontier.headline[model]
        assert summary["fve_change"] == pytest.approx(sum(changes) / len(changes), abs=1e-9)
        saved = sum(reference[idx]["n_tokens"] - own[idx]["n_tokens"] for idx in own)
        whole = sum(row["n_tokens"] for row in reference.values())
        assert summary["token_saving"] == pytest.approx(saved / whole, abs=1e-12)

    @pytest.mark.parametrize("model", MODELS)
    def test_fixed_overhead_is_eleven_or_twelve_tokens(self, model: str, frontier: Finding) -> None:
        assert 11 <= frontier.headline[model]["mean_overhead_tokens"] <= 12

    def test_overhead_is_what_an_empty_explanation_costs(
        self, raw: pl.DataFrame, completions: Completions
    ) -> None:
        empty = raw.filter(pl.col("extracted") & (pl.col("explanation").str.strip_chars() == ""))
        assert empty.height > 0
        assert set(empty["n_tokens"].to_list()) == {completions.overhead_tokens}

    def test_what_costs_is_told_from_what_is_as_good(self, frontier: Finding) -> None:
        """Half of the tokens go at λ = 0.006, for a loss that no interval can hide."""
        loss = dict(frontier.tables["paired_changes"].select("model", "loss").iter_rows())
        assert loss == {
            "base": "costs",
            "p0.001": "no loss above the margin",
            "p0.002": "no loss above the margin",
            "p0.006": "costs",
            "p0.015": "costs",
            "p0.03": "costs",
        }
        assert frontier.headline["p0.03"]["fve_change_high"] < -0.3


class TestRewording:
    PARTS = ("omission", "rewording", "addition", "overhead")

    def test_shares_of_every_model_sum_to_one(self, rewording: Finding) -> None:
        for model in MODELS:
            summary = rewording.headline.get(model, {})
            if model == "p0.0" or "saving_tokens" not in summary:
                continue
            shares = [summary[f"{part}_share"] for part in self.PARTS]
            if model == "base":  # as long as the reference: there is no saving to share
                assert shares == [None] * len(self.PARTS)
            else:
                assert sum(shares) == pytest.approx(1.0, abs=1e-9), model

    def test_all_models_but_the_reference_are_split(self, rewording: Finding) -> None:
        split = {
            model for model in rewording.headline if "saving_tokens" in rewording.headline[model]
        }
        assert set(MODELS) - {"p0.0"} <= split

    def test_shares_of_every_activation_sum_to_one(self, rewording: Finding) -> None:
        table = rewording.tables["activations"]
        assert table["idx"].n_unique() > 500
        shares = table.select(f"{part}_share" for part in self.PARTS).drop_nulls().to_numpy()
        assert len(shares) > 3000
        assert np.abs(shares.sum(axis=1) - 1.0).max() < 1e-9

    def test_parts_are_the_saving_of_the_file(self, raw: pl.DataFrame, rewording: Finding) -> None:
        """The parts of each activation add up to the tokens that the file itself says."""
        tokens = {(row["model"], row["idx"]): row["n_tokens"] for row in raw.iter_rows(named=True)}
        table = rewording.tables["activations"]
        parts = table.select(self.PARTS).to_numpy().sum(axis=1)
        saved = [
            tokens["p0.0", idx] - tokens[model, idx]
            for model, idx in table.select("model", "idx").iter_rows()
        ]
        assert np.abs(parts - np.array(saved)).max() < 1e-9

    def test_waterfall_ends_at_the_tokens_of_the_file(
        self, raw: pl.DataFrame, rewording: Finding
    ) -> None:
        """The reference's content less what the file says is saved, step after step."""
        tokens = {(row["model"], row["idx"]): row["n_tokens"] for row in raw.iter_rows(named=True)}
        for (model,), steps in rewording.tables["waterfall"].group_by("model"):
            rows = rewording.tables["activations"].filter(pl.col("model") == model)
            saved = np.mean([tokens["p0.0", i] - tokens[model, i] for i in rows["idx"]])
            values = dict(steps.select("step", "tokens").iter_rows())
            assert values["model"] == pytest.approx(values["reference"] - saved, abs=1e-9)
            moves = [value for step, value in values.items() if step not in ("reference", "model")]
            assert len(moves) == 4
            assert values["reference"] + sum(moves) == pytest.approx(values["model"], abs=1e-9)

    def test_verdict_says_of_every_model_what_its_saving_is_made_of(
        self, completions: Completions, rewording: Finding
    ) -> None:
        sentences = re.split(r"(?<=[a-z)\]]\.) (?=(?:base|p0\.\d+)\b(?!,))", rewording.verdict)
        said = {sentence.split()[0]: sentence for sentence in sentences}
        assert set(said) == set(MODELS) - {"p0.0"}
        for model, sentence in said.items():
            numbers = rewording.headline[model]
            if numbers["saving_tokens_low"] <= 0 <= numbers["saving_tokens_high"]:
                assert "no saving to split" in sentence
                continue
            tokens = worth(read(completions), model)
            for part, words, expected in (
                ("net_omission", "omission", tokens["reference"] - tokens["worth"]),
                ("terser_wording", "terser wording", tokens["worth"] - tokens["model"]),
            ):
                value, low, high = (numbers[f"{part}_tokens{end}"] for end in ("", "_low", "_high"))
                assert value == pytest.approx(expected)
                assert f"{value:.1f} [{low:.1f}, {high:.1f}] by {words}" in sentence
            content = (
                f"({tokens['reference'] - tokens['kept']:.1f} no longer said, "
                f"{tokens['model'] - tokens['supported']:.1f} newly said"
            )
            assert content in sentence
            # The larger part is named where the difference of the two, reading's error and all,
            # is beyond doubt.
            lead = tokens["reference"] + tokens["model"] - 2 * tokens["worth"]
            assert lead == pytest.approx(numbers["omission_lead_tokens"])
            beyond = abs(lead) > 1.96 * numbers["reading_error_tokens"]
            named = sentence.endswith(("more by omission.", "more by terser wording."))
            assert named <= beyond
            assert named == (numbers["omission_lead_tokens_low"] > 0)
            # Else it is named on condition, if what is measured leaves no doubt.
            evening = numbers["evening_tokens"]
            if not named and evening is not None:
                assert f"unless {evening:.1f} or more of the tokens no longer said" in sentence
                assert evening <= numbers["unrecognised_tokens"]
                least = 2 * evening * tokens["worth"] / tokens["kept"]
                assert least <= lead - 1.96 * numbers["reading_error_tokens"]
