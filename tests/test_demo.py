"""The demonstration: is the truth that it prints true, and is what it writes whole?"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from nla_audit import cli
from nla_audit.findings import Finding
from nla_audit.table.completions import from_frame
from nla_audit.text.reading import RESAMPLING_FLOOR
from nla_audit.world.sweep.demo import CLOSE, demo_sweep, truth_beside_estimate
from nla_audit.world.sweep.planted import PlantedModel, PlantedSweep, plant

REFERENCE = PlantedModel("p0.0", 0.0)


def finding(name: str, headline: dict) -> Finding:
    return Finding(name, "?", "p0.0", headline, "none")


def omission(sweep: PlantedSweep, estimate: float = 0.0) -> pl.DataFrame:
    """The rates of a comparison in which every model but the reference saves tokens."""
    models = [model for model in sweep.summary["model"] if model != sweep.reference]
    estimates = {model: {"omission_share": estimate, "saving_tokens_low": 1.0} for model in models}
    compared = truth_beside_estimate(sweep, [finding("rewording", estimates)])
    return compared.tables["rates"].filter(pl.col("quantity") == "omission share")


def truth_of(sweep: PlantedSweep, model: str) -> float:
    return omission(sweep).row(by_predicate=pl.col("model") == model, named=True)["truth"]


class TestTruth:
    def test_only_the_reference_has_a_second_sample_and_the_table_is_valid(self) -> None:
        sweep = demo_sweep(30, seed=2)
        samples = dict(sweep.completions.group_by("model").agg(pl.col("sample").max()).iter_rows())
        assert samples.pop("p0.0") == 1
        assert set(samples.values()) == {0}
        assert from_frame(sweep.completions, reference=sweep.reference).has("sample")
        rows = dict(sweep.summary.select("model", "explanations").iter_rows())
        assert rows == {"base": 30, "p0.0": 60, "p0.001": 30, "p0.006": 30, "p0.03": 30}

    def test_all_omission_and_no_omission(self) -> None:
        sweep = plant(
            [
                REFERENCE,
                PlantedModel("silent", 0.1, omit=1.0),
                PlantedModel("terse", 0.2, reword=1.0),
            ],
            activations=40,
            seed=1,
        )
        assert truth_of(sweep, "silent") == pytest.approx(1.0)
        assert truth_of(sweep, "terse") == 0.0

    def test_omitted_fillers_and_punctuation_are_omission(self) -> None:
        talkative = PlantedModel("p0.0", 0.0, filler=1.0)
        sweep = plant([talkative, PlantedModel("silent", omit=1.0)], activations=40, seed=1)
        assert truth_of(sweep, "silent") == pytest.approx(1.0)

    def test_floor_is_the_share_that_two_samples_state_alike(self) -> None:
        sweep = demo_sweep(300, seed=3)
        floor = {RESAMPLING_FLOOR: {"claims_retained": 0.5}}
        compared = truth_beside_estimate(sweep, [finding("drop-analysis", floor)])
        rates = compared.tables["rates"]
        assert rates["model"].to_list() == [RESAMPLING_FLOOR]
        # Each sample leaves out a claim with probability 0.1; some 2,000 claims are counted.
        assert rates["truth"][0] == pytest.approx(0.9, abs=0.02)

    def test_no_saving_no_share(self) -> None:
        sweep = demo_sweep(20)
        estimates = {"base": {"omission_share": 3.0, "saving_tokens_low": -2.0}}
        compared = truth_beside_estimate(sweep, [finding("rewording", estimates)])
        assert compared.tables["rates"].height == 0
        assert "No analyzer" in compared.verdict


class TestComparison:
    def test_error_and_coverage(self) -> None:
        sweep = demo_sweep(50)
        known = dict(sweep.summary.select("model", "tail_held_rate").iter_rows())
        estimates: dict = {
            "p0.006": {
                "holds_tail_rate": known["p0.006"] + 0.01,
                "holds_tail_rate_low": known["p0.006"] - 0.02,
                "holds_tail_rate_high": known["p0.006"] + 0.04,
            },
            "p0.03": {
                "holds_tail_rate": known["p0.03"] + 0.2,
                "holds_tail_rate_low": known["p0.03"] + 0.1,
                "holds_tail_rate_high": known["p0.03"] + 0.3,
            },
            "base": {"holds_tail_rate": known["base"]},
        }
        compared = truth_beside_estimate(sweep, [finding("tail", estimates)])
        rates = {row["model"]: row for row in compared.tables["rates"].to_dicts()}
        assert rates["p0.006"]["error"] == pytest.approx(0.01)
        assert rates["p0.006"]["covered"] is True
        assert rates["p0.03"]["covered"] is False
        assert rates["base"]["covered"] is None
        assert compared.headline["p0.03"]["largest_absolute_error"] == pytest.approx(0.2)
        assert compared.headline["p0.03"]["close_share"] == 0.0
        assert f"2 of 3 rates are estimated within {CLOSE:g}" in compared.verdict
        assert "1 of 2 intervals" in compared.verdict
        assert "“tail held” of p0.03" in compared.verdict


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one small demonstration."""
    out = tmp_path_factory.mktemp("demo") / "out"
    assert cli.run(["demo", "--out", str(out), "--activations", "15", "--seed", "5"]) == 0
    return out


class TestCommand:
    def test_prints_truth_first_and_says_where_the_report_is(
        self, written: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.run(["demo", "--out", str(written), "--activations", "12"]) == 0
        output = capsys.readouterr().out
        assert output.index("planted truth") < output.index("drop-analysis\n")
        assert f"report: {written / 'report' / 'report.html'}" in output.replace("\n/", "/")

    def test_writes_everything_it_names(self, written: Path) -> None:
        record = json.loads((written / "record.json").read_text())
        assert {"arguments", "versions", "commit"} <= set(record)
        present = {p.relative_to(written).as_posix() for p in written.rglob("*") if p.is_file()}
        assert set(record["files"]) == present
        assert {"completions.parquet", "truth.md", "truth.json", "report/report.html"} <= present
        rates = json.loads((written / "truth.json").read_text())["tables"]["rates"]
        shown = (written / "truth.md").read_text()
        assert rates
        for row in rates:
            assert row["metric"] in shown.replace("\\_", "_")

    def test_the_report_names_the_parquet_beside_it(self, written: Path) -> None:
        record = json.loads((written / "report" / "record.json").read_text())
        (source,) = record["tables"]
        assert source["path"] == "completions.parquet"
        assert source["rows"] == pl.read_parquet(written / "completions.parquet").height

    def test_strangers_folder_is_left_alone(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine.txt").write_text("keep")
        assert cli.run(["demo", "--out", str(tmp_path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_bad_numbers_are_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["demo", "--out", "unused", "--activations", "0"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
