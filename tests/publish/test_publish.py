"""What is published comes back as it was: completions, pairs and reports.

Against a server on this machine that speaks the Hub's HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nla_audit import cli
from nla_audit.checkpoint.load import Placement, load
from nla_audit.table.completions import load as load_completions
from tests.hub_contents import FakeHub
from tests.pairs import tiny
from tests.pairs.golden import GOLDEN
from tests.publish.cards import front_matter

FLOAT32 = Placement(dtype="float32", device="cpu")


class TestCompletions:
    def test_push(
        self, hub: FakeHub, completions: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.run(["push", str(completions), "lab/sweep"]) == 0
        files = hub.files("lab/sweep", "dataset")
        assert set(files) == {
            ".gitattributes",
            "README.md",
            "sweep.parquet",
            "sweep.parquet.record.json",
        }
        assert files["sweep.parquet"] == completions.read_bytes()
        assert len(hub.asked("^/lfs/", "PUT")) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("lab/sweep: 3 files of completions: http")
        assert captured.err.count("\n") == 1

    def test_card(self, hub: FakeHub, completions: Path, table: pl.DataFrame) -> None:
        command = ["push", str(completions), "lab/sweep", "--base-model", "Qwen/Qwen3-8B"]
        assert cli.run(command) == 0
        card = hub.files("lab/sweep", "dataset")["README.md"].decode()
        front = front_matter(card)
        assert front["nla"]["base_model"] == "Qwen/Qwen3-8B"
        assert front["configs"] == [{"config_name": "default", "data_files": ["sweep.parquet"]}]
        assert front["size_categories"] == ["n<1K"]
        facts = front["nla"]
        assert facts["injection"] == "add:1"
        assert facts["layer"] == 24
        assert facts["baseline"] == "raw_variance"
        assert facts["ruler"] == "warm-start"
        assert facts["activations"] == 12
        assert set(facts["columns"]) == set(table.columns)
        models = {row["model"]: row for row in facts["models"]}
        assert [models[name]["length_penalty"] for name in models] == [None, 0.0, 0.03]
        for name, row in models.items():
            own = table.filter(pl.col("model") == name)
            assert row["explanations"] == own.height
            assert row["fve_mean"]["value"] == round(own["fve"].mean(), 3)
            assert row["fve_median"]["value"] == round(own["fve"].median(), 3)
            assert row["fve_mean"]["low"] < row["fve_mean"]["value"] < row["fve_mean"]["high"]
            assert row["fve_missing"] == own["fve"].null_count()
            assert f"{row['fve_mean']['value']:.3f} [" in card
        assert "| base | no RL | 12 |" in card
        assert "| p0.03 | 0.03 | 12 |" in card
        assert models["p0.03"]["extracted"] == round(11 / 12, 3)
        assert "nla-audit audit hf://datasets/lab/sweep/sweep.parquet --out report" in card

    def test_what_is_not_known_is_said_to_be(self, hub: FakeHub, tmp_path: Path) -> None:
        bare = pl.DataFrame({"model": ["p0.0"], "idx": [0], "explanation": ["x"]})
        bare.write_parquet(tmp_path / "bare.parquet")
        assert cli.run(["push", str(tmp_path / "bare.parquet"), "lab/bare"]) == 0
        card = hub.files("lab/bare", "dataset")["README.md"].decode()
        facts = front_matter(card)["nla"]
        assert facts["layer"] is facts["injection"] is facts["ruler"] is facts["baseline"] is None
        assert facts["models"][0]["fve_mean"] is None
        assert facts["models"][0]["fve_missing"] == 1
        assert "- **Extraction layer**: not recorded" in card
        assert "nan" not in card.lower()

    def test_text_of_strangers_is_shown_literally(
        self, hub: FakeHub, table: pl.DataFrame, tmp_path: Path
    ) -> None:
        hostile = table.with_columns(pl.col("model").replace("base", "<img src=x> | [a](b)"))
        hostile.write_parquet(tmp_path / "t.parquet")
        assert cli.run(["push", str(tmp_path / "t.parquet"), "lab/t"]) == 0
        card = hub.files("lab/t", "dataset")["README.md"].decode()
        body = card.split("---\n", maxsplit=2)[2]
        assert "<img" not in body
        assert r"&lt;img src=x&gt; \| \[a\](b)" in body

    def test_round_trip(self, hub: FakeHub, completions: Path, tmp_path: Path) -> None:
        assert cli.run(["push", str(completions), "lab/sweep"]) == 0
        out = tmp_path / "back"
        assert cli.run(["pull", "datasets/lab/sweep", "--out", str(out)]) == 0
        assert (out / "sweep.parquet").read_bytes() == completions.read_bytes()
        here = load_completions([completions]).rows
        assert load_completions([out]).rows.equals(here)
        assert load_completions(["hf://datasets/lab/sweep"]).rows.equals(here)
        record = json.loads((tmp_path / "back.record.json").read_text())
        assert record["hub_commit"] == hub.repositories["dataset", "lab/sweep"].branches["main"]
        assert {"versions", "commit"} <= set(record)

    def test_a_folder_of_tables(
        self, hub: FakeHub, completions: Path, table: pl.DataFrame, tmp_path: Path
    ) -> None:
        folder = tmp_path / "tables"
        folder.mkdir()
        for name, part in table.group_by("model"):
            part.write_parquet(folder / f"{name[0]}.parquet")
        assert cli.run(["push", str(folder), "lab/tables"]) == 0
        facts = front_matter(hub.files("lab/tables", "dataset")["README.md"])["nla"]
        assert facts["explanations"] == table.height
        assert load_completions(["hf://datasets/lab/tables"]).rows.height == table.height

    def test_several_rulers(
        self, hub: FakeHub, table: pl.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "t.parquet"
        pl.concat([table, table.with_columns(ar=pl.lit("own"))]).write_parquet(path)
        assert cli.run(["push", str(path), "lab/t"]) == 2
        assert "own" in capsys.readouterr().err
        assert cli.run(["push", str(path), "lab/t", "--ar", "own"]) == 0
        assert front_matter(hub.files("lab/t", "dataset")["README.md"])["nla"]["ruler"] == "own"


class TestPair:
    def test_push_and_pull(
        self, hub: FakeHub, pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        capsys.readouterr()
        assert cli.run(["push", str(pair), "lab/pair"]) == 0
        said = capsys.readouterr().err
        assert "left out: base: a plain language model (--with-base to publish it too)" in said
        assert "left out: av/optimizer.pt: not needed to load the checkpoint" in said
        folders = {name.partition("/")[0] for name in hub.files("lab/pair")}
        assert folders == {".gitattributes", "README.md", "av", "ar"}
        out = tmp_path / "back"
        assert cli.run(["pull", "lab/pair", "--out", str(out)]) == 0
        assert "pair" in capsys.readouterr().err
        there = load(av=out / "av", ar=out / "ar", placement=FLOAT32)
        here = load(av=pair / "av", ar=pair / "ar", placement=FLOAT32)
        assert there.reconstructor is not None
        assert here.reconstructor is not None
        texts = ["a story", ""]
        np.testing.assert_array_equal(
            there.reconstructor.reconstruct(texts), here.reconstructor.reconstruct(texts)
        )

    def test_card(self, hub: FakeHub, pair: Path, completions: Path) -> None:
        command = ["push", str(pair), "lab/pair", "--completions", str(completions)]
        assert cli.run(command) == 0
        card = hub.files("lab/pair")["README.md"].decode()
        front = front_matter(card)
        assert front["base_model"] == "tiny/random"
        assert front["nla"]["layer"] == tiny.LAYER
        by_role = {row["role"]: row for row in front["nla"]["checkpoints"]}
        assert by_role["av"]["injection"] == "add:1"
        assert by_role["ar"]["injection"] is None
        assert by_role["ar"]["ar_trained_in_rl"] is None
        assert by_role["av"]["d_model"] == tiny.D_MODEL
        assert front["nla"]["fve"]["ruler"] == "warm-start"
        assert front["nla"]["fve"]["models"][1]["fve_mean"]["value"] == 0.615
        assert "| av | AV | full checkpoint, model sidecar | 2 | add:1 | not recorded |" in card
        assert "| ar | AR | full checkpoint, model sidecar | 2 | – | – |" in card

    def test_no_fve_is_invented(self, hub: FakeHub, pair: Path) -> None:
        assert cli.run(["push", str(pair), "lab/pair"]) == 0
        card = hub.files("lab/pair")["README.md"].decode()
        assert front_matter(card)["nla"]["fve"] is None
        assert "Not measured for this card." in card

    def test_one_half(self, hub: FakeHub, pair: Path) -> None:
        assert cli.run(["push", str(pair / "av"), "lab/x-av"]) == 0
        assert "nla_meta.yaml" in hub.files("lab/x-av")
        assert load(av="lab/x-av", placement=FLOAT32).verbalizer is not None

    def test_adapters_of_a_sweep(self, hub: FakeHub) -> None:
        golden = GOLDEN / "nano_qwen3"
        assert cli.run(["push", str(golden), "lab/nano"]) == 0
        files = hub.files("lab/nano")
        assert {"av/nla_meta.yaml", "rl-lora/p0.006/adapter_model.safetensors"} <= set(files)
        assert "expected.json" not in files
        rows = {
            row["folder"]: row for row in front_matter(files["README.md"])["nla"]["checkpoints"]
        }
        assert rows["rl-lora/p0.006"]["length_penalty"] == 0.006
        assert rows["rl-lora/p0.006"]["injection"] == "add:1"
        assert rows["ar"]["length_penalty"] is None
        assert load(av="lab/nano/rl-lora/p0.006", placement=FLOAT32).verbalizer is not None

    def test_plain_models_on_request(self, hub: FakeHub, pair: Path) -> None:
        assert cli.run(["push", str(pair), "lab/pair", "--with-base"]) == 0
        assert "base/model.safetensors" in hub.files("lab/pair")


class TestReport:
    def test_push_and_pull(self, hub: FakeHub, report: Path, tmp_path: Path) -> None:
        (report / "notes.txt").write_text("mine")
        assert cli.run(["push", str(report), "lab/report"]) == 0
        files = hub.files("lab/report", "dataset")
        assert files["report.html"] == (report / "report.html").read_bytes()
        assert "notes.txt" not in files
        front = front_matter(files["README.md"])
        assert front["nla"]["seed"] == 3
        assert front["nla"]["models"] == ["p0.0", "p0.03"]
        verdict = json.loads(files["findings.json"])["findings"][0]["verdict"]
        assert verdict.split()[0] in files["README.md"].decode()
        out = tmp_path / "back"
        assert cli.run(["pull", "datasets/lab/report", "--out", str(out)]) == 0
        assert (out / "report.html").read_bytes() == (report / "report.html").read_bytes()
