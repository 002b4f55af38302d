"""Reliability: planted variance components come back, and exchanged samples have none."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.analyzers import registry
from nla_audit.analyzers._variance_components import COMPONENTS, across_models, cells, one_model
from nla_audit.analyzers.reliability import samples_needed
from nla_audit.findings import Finding
from nla_audit.table.completions import from_frame

#: Variance of FVE that is due to each of the components.
TRUTH = dict(zip(COMPONENTS, (0.04, 0.01, 0.0025, 0.01), strict=True))
OFFSETS = {"p0.0": -0.1, "p0.01": 0.0, "p0.1": 0.1}
ICC = 0.0425 / 0.0525


def planted(activations: int, seed: int, samples: int = 3) -> pl.DataFrame:
    """Sums of independent normal effects; lengths have no component of the activation."""
    generator = np.random.default_rng(seed)
    rows = []
    for idx, own in enumerate(generator.normal(0, 0.2, activations)):
        for model, offset in OFFSETS.items():
            together = generator.normal(0, 0.05)
            for sample in range(samples):
                claims = generator.integers(1, 6)
                rows.append(
                    {
                        "model": model,
                        "idx": idx,
                        "sample": sample,
                        "explanation": " ".join(["The harbour freezes early."] * claims),
                        "fve": 0.5 + own + offset + together + generator.normal(0, 0.1),
                        "n_tokens": int(generator.integers(20, 60)),
                    }
                )
    return pl.DataFrame(rows)


@cache
def found(seed: int = 0) -> Finding:
    return registry()["reliability"].run(from_frame(planted(200, seed)), seed=0)


def test_the_components_are_those_that_were_planted() -> None:
    table = found().tables["components"].filter(pl.col("measure") == "fve")
    assert table["component"].to_list() == list(COMPONENTS)
    assert table["activations"].to_list() == [200] * 4
    both = table.join(found().tables["variances"], on="component")
    for row in both.iter_rows(named=True):
        truth = TRUTH[row["component"]]
        assert row["fve_low"] <= truth <= row["fve_high"], row["component"]
        assert row["fve_high"] < truth + 0.02
        assert row["share_low"] <= truth / sum(TRUTH.values()) <= row["share_high"]
    assert table["share"].sum() == pytest.approx(1)


def test_the_intervals_cover_in_most_tables_of_sixty_activations() -> None:
    """60 tables; fewer than 49 would be seen in one of a thousand runs of intervals of 93 %."""
    covered = dict.fromkeys(("icc", *COMPONENTS), 0)
    for seed in range(60):
        of_all = cells(planted(60, seed).with_columns(doc_id=pl.lit(None, pl.String)), "fve")
        for component, (variance, _) in zip(COMPONENTS, across_models(of_all, 0), strict=True):
            covered[component] += variance.low <= TRUTH[component] <= variance.high
        icc = one_model(of_all.filter(pl.col("model") == "p0.01"), 0)["icc"]
        covered["icc"] += icc.low <= ICC <= icc.high
    assert min(covered.values()) >= 49, covered


def test_one_sample_is_as_reliable_as_planted_and_exchanged_samples_are_not() -> None:
    for summary in found().headline.values():
        assert summary["activations"] == 200
        assert summary["fve_icc_low"] <= ICC <= summary["fve_icc_high"]
        assert summary["fve_sample_sd"] == pytest.approx(0.1, rel=0.1)
        assert summary["fve_sample_sd_low"] < summary["fve_sample_sd"]
        assert summary["fve_samples_needed"] in (2.0, 3.0)
        assert abs(summary["chance_fve_icc"]) < 0.2
    # Nothing of the length or of the claims is due to the activation.
    own = found().headline["p0.0"]
    assert own["length_icc_low"] <= 0 <= own["length_icc_high"]
    assert own["length_samples_needed"] is None
    assert own["length_sample_sd"] == pytest.approx(np.sqrt((40**2 - 1) / 12), rel=0.1)
    assert own["claims_sample_sd"] == pytest.approx(np.sqrt(2), rel=0.1)


def test_the_verdict_says_what_the_intervals_allow() -> None:
    finding = found()
    own = finding.headline["p0.0"]
    assert f"FVE has a reliability of {own['fve_icc']:.3f} [" in finding.verdict
    assert "length is not shown to tell activations apart" in finding.verdict
    shares = finding.tables["components"].filter(pl.col("measure") == "fve")["share"]
    assert f"activation {shares[0]:.0%}, model {shares[1]:.0%}" in finding.verdict


def test_unequal_numbers_of_samples_and_failures_bias_nothing() -> None:
    table = planted(300, 5, samples=4)
    generator = np.random.default_rng(2)
    table = table.filter(pl.Series(generator.random(table.height) < 0.7))
    fails = pl.Series(generator.random(table.height) < 0.1)
    table = table.with_columns(
        explanation=pl.when(~fails).then("explanation"), fve=pl.when(~fails).then("fve")
    )
    finding = registry()["reliability"].run(from_frame(table), seed=0)
    for row in finding.tables["variances"].to_dicts():
        assert row["fve"] == pytest.approx(TRUTH[row["component"]], abs=0.008)


def test_documents_are_resampled_where_they_are_known() -> None:
    """Activations of one document that are alike say less than as many of different ones."""
    table = planted(40, 1)
    copies = pl.concat(
        [table.with_columns(pl.col("idx") + 40 * copy, doc_id="idx") for copy in range(4)]
    )
    run = registry()["reliability"].run
    by_document = run(from_frame(copies), seed=0).headline["p0.0"]
    by_activation = run(from_frame(copies.drop("doc_id")), seed=0).headline["p0.0"]

    def width(own: dict) -> float:
        return own["fve_icc_high"] - own["fve_icc_low"]

    assert width(by_document) > 1.5 * width(by_activation)


def test_one_sample_each_is_not_known() -> None:
    table = planted(20, 0).filter(pl.col("sample") == 0)
    finding = registry()["reliability"].run(from_frame(table), seed=0)
    assert finding.headline["p0.0"]["fve_icc"] is None
    assert "cannot be told" in finding.verdict
    assert finding.tables["components"].height == 0


@pytest.mark.parametrize(("icc", "samples"), [(0.5, 9), (0.9, 1), (0.95, 1), (0.818, 3)])
def test_samples_needed_are_those_of_spearman_and_brown(icc: float, samples: int) -> None:
    assert samples_needed(icc) == samples
    k = samples_needed(icc)
    assert k * icc / (1 + (k - 1) * icc) >= 0.9
    assert np.isnan(samples_needed(-0.1))


def test_the_command_prints_the_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(20, 0).write_parquet(tmp_path / "t.parquet")
    assert cli.run(["reliability", str(tmp_path / "t.parquet"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["headline"]["p0.1"]["fve_icc"] > 0.5
    planted(20, 0).drop("sample").unique(["model", "idx"]).write_parquet(tmp_path / "t.parquet")
    assert cli.run(["reliability", str(tmp_path / "t.parquet")]) == 2
    assert 'needs the column "sample"' in capsys.readouterr().err
