"""Push and pull, against a server on this machine that speaks the Hub's HTTP."""

from __future__ import annotations

import hashlib
import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from nla_audit import cli
from nla_audit.checkpoint.load import Placement, load
from nla_audit.completions import load as load_completions
from nla_audit.nla.injection import Injection
from nla_audit.report.audit import run_audit
from tests.hub_server import TOKEN, FakeHub
from tests.pairs import tiny
from tests.pairs.golden import GOLDEN
from tests.test_writing import small_disk

FLOAT32 = Placement(dtype="float32", device="cpu")


@pytest.fixture(autouse=True)
def logged_in(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def completions(table: pl.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "sweep.parquet"
    table.write_parquet(path)
    record = {
        "command": "explain",
        "av": {"injection": "add:1"},
        "ar": {"layer": 24},
        "baselines": {"chosen": "raw_variance"},
    }
    (tmp_path / "sweep.parquet.record.json").write_text(json.dumps(record))
    return path


@pytest.fixture(scope="module")
def saved_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_pair(tmp_path_factory.mktemp("pair"), "qwen3", Injection("add", block=1))


@pytest.fixture
def pair(saved_pair: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(saved_pair, tmp_path / "pair")
    (folder / "av" / "optimizer.pt").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def written_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    rows = [
        {"model": model, "idx": idx, "explanation": text, "fve": 0.5}
        for model, text in (("p0.0", "a cold harbour"), ("p0.03", "cold"))
        for idx in range(4)
    ]
    pl.DataFrame(rows).write_parquet(folder / "sweep.parquet")
    run_audit(load_completions([folder / "sweep.parquet"]), folder / "report", seed=3)
    return folder / "report"


@pytest.fixture
def report(written_report: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written_report, tmp_path / "report")


def front_matter(card: bytes | str) -> dict[str, Any]:
    text = card.decode() if isinstance(card, bytes) else card
    _, header, _ = text.split("---\n", maxsplit=2)
    return yaml.safe_load(header)


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


class TestOptions:
    def test_dry_run_lists_what_a_push_puts_there(
        self, hub: FakeHub, completions: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.run(["push", str(completions), "lab/sweep", "--dry-run"]) == 0
        assert hub.requests == []
        said = capsys.readouterr().out
        listing, card = said.split("\n\n", maxsplit=1)
        listed = dict(reversed(line.split(maxsplit=1)) for line in listing.splitlines()[:-1])
        assert listing.endswith("bytes of completions would go to dataset lab/sweep")
        assert cli.run(["push", str(completions), "lab/sweep"]) == 0
        files = hub.files("lab/sweep", "dataset")
        assert listed == {
            name: f"{len(data):,}" for name, data in files.items() if name != ".gitattributes"
        }
        assert card.rstrip() == files["README.md"].decode().rstrip()

    def test_private(self, hub: FakeHub, completions: Path) -> None:
        assert cli.run(["push", str(completions), "lab/sweep", "--private"]) == 0
        assert hub.repositories["dataset", "lab/sweep"].access == "private"

    def test_private_does_not_push_to_a_public_repository(
        self, hub: FakeHub, completions: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hub.add("lab/sweep", {"a": b""}, kind="dataset")
        assert cli.run(["push", str(completions), "lab/sweep", "--private"]) == 2
        assert "exists already and is public" in capsys.readouterr().err
        assert set(hub.files("lab/sweep", "dataset")) == {"a"}

    def test_revision(self, hub: FakeHub, completions: Path, tmp_path: Path) -> None:
        command = ["push", str(completions), "lab/sweep", "--revision", "v2"]
        assert cli.run(command) == 0
        assert cli.run(command) == 0
        assert "sweep.parquet" not in hub.files("lab/sweep", "dataset")
        assert "sweep.parquet" in hub.files("lab/sweep", "dataset", "v2")
        assert cli.run(["pull", "datasets/lab/sweep@v2", "--out", str(tmp_path / "v2")]) == 0
        assert (tmp_path / "v2" / "sweep.parquet").is_file()

    def test_a_card_written_by_hand_stays(
        self, hub: FakeHub, completions: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hub.add("lab/sweep", {"README.md": b"# mine"}, kind="dataset")
        assert cli.run(["push", str(completions), "lab/sweep"]) == 0
        assert hub.files("lab/sweep", "dataset")["README.md"] == b"# mine"
        assert "kept the README.md that is there" in capsys.readouterr().err

    def test_a_card_of_ours_is_renewed(self, hub: FakeHub, completions: Path) -> None:
        assert cli.run(["push", str(completions), "lab/sweep"]) == 0
        pl.read_parquet(completions)[:12].write_parquet(completions)
        assert cli.run(["push", str(completions), "lab/sweep"]) == 0
        facts = front_matter(hub.files("lab/sweep", "dataset")["README.md"])["nla"]
        assert [row["model"] for row in facts["models"]] == ["base"]

    def test_pull_of_a_folder_brings_the_sidecar_above(self, hub: FakeHub, tmp_path: Path) -> None:
        hub.add(
            "lab/x",
            {
                "nla_meta.yaml": b"kind: nla_dataset",
                "rl/p0.0/config.json": b"{}",
                "rl/p0.1/config.json": b"{}",
            },
        )
        assert cli.run(["pull", "lab/x/rl/p0.0", "--out", str(tmp_path / "o")]) == 0
        found = {p.relative_to(tmp_path / "o").as_posix() for p in (tmp_path / "o").rglob("*.*")}
        assert {"nla_meta.yaml", "rl/p0.0/config.json"} <= found
        assert "rl/p0.1/config.json" not in found

    def test_pull_leaves_pickles_and_code_there(
        self, hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hub.add("lab/x", {"config.json": b"{}", "pytorch_model.bin": b"x", "modeling.py": b"x"})
        out = tmp_path / "o"
        assert cli.run(["pull", "lab/x", "--out", str(out)]) == 0
        assert [path.name for path in out.iterdir()] == ["config.json"]
        said = capsys.readouterr().err
        assert "left there: modeling.py" in said
        assert "left there: pytorch_model.bin" in said

    def test_a_pull_that_broke_off_goes_on(self, hub: FakeHub, tmp_path: Path) -> None:
        files = {"a.parquet": b"a" * 1000, "b.parquet": b"b" * 1000}
        hub.add("lab/x", files, kind="dataset")
        hub.breaks["b.parquet"] = 1000
        out = tmp_path / "o"
        command = ["pull", "datasets/lab/x", "--out", str(out)]
        assert cli.run(command) == 2
        assert not out.exists()
        hub.breaks.clear()
        hub.requests.clear()
        assert cli.run(command) == 0
        assert (out / "b.parquet").read_bytes() == files["b.parquet"]
        assert len(hub.asked("^/cdn/", "GET")) == 1
        assert sorted(p.name for p in out.iterdir()) == ["a.parquet", "b.parquet"]
        assert not list(tmp_path.glob(".o.partial-*"))

    def test_a_full_disk_is_that_of_the_output(
        self, hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        files = {"a.parquet": b"a" * 1000, "b.parquet": b"b" * 50_000}
        hub.add("lab/x", files, kind="dataset")
        out = tmp_path / "o"
        command = ["pull", "datasets/lab/x", "--out", str(out)]
        with small_disk(10_000):
            assert cli.run(command) == 2
        *_, line = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"error: {out}: cannot write (File too large): free some space")
        assert not out.exists()
        former = tmp_path / f".o.partial-{'0' * 16}"  # of a commit that is no longer the newest
        former.mkdir()
        assert cli.run(command) == 0
        assert (out / "b.parquet").read_bytes() == files["b.parquet"]
        assert not list(tmp_path.glob(".o.partial-*"))

    def test_a_partitioned_data_set(self, hub: FakeHub, table: pl.DataFrame) -> None:
        files = {"data/other/0.parquet": b"not asked for"}
        for (name,), part in table.group_by("model"):
            content = BytesIO()
            part.drop("model").write_parquet(content)
            files[f"data/model={name}/0.parquet"] = content.getvalue()
        hub.add("lab/hive", files, kind="dataset")
        found = load_completions(["hf://datasets/lab/hive/data"])
        assert found.rows.height == table.height
        assert set(found.models) == set(table["model"])


class TestBadInput:
    def test_what_a_dry_run_prints_is_harmless_in_a_terminal(
        self, pair: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (pair / "av" / "a\x1b[2Jb.txt").write_text("x")
        (pair / "av" / "c\x1b]0;title\x07d.pt").write_text("x")
        sidecar = yaml.safe_load((pair / "av" / "nla_meta.yaml").read_text(encoding="utf-8"))
        sidecar["prompt_templates"]["av"] += "\x1b[31m\u202ered\x9b2J"
        sidecar["base_checkpoint"] = "lab/\x1b[8mbase"
        (pair / "av" / "nla_meta.yaml").write_text(yaml.safe_dump(sidecar))
        assert cli.run(["push", str(pair), "lab/x", "--dry-run"]) == 0
        said = capsys.readouterr()
        assert "ab.txt" in said.out
        assert "cd.pt" in said.err.replace("\n", "")
        for text in (said.out, said.err):
            assert not any(sign in text for sign in "\x1b\x9b\x07\u202e")

    @pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "a\\..\\evil.json"])
    def test_pull_stays_in_its_folder(
        self,
        name: str,
        hub: FakeHub,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        hub.add("lab/x", {"av/config.json": b"{}"})
        files = ["av/config.json", name]
        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: files)
        out = tmp_path / "below" / "out"
        assert "is not inside it" in self.fails(capsys, "pull", "lab/x", "--out", str(out))
        assert not list(tmp_path.rglob("*evil*"))

    def fails(self, capsys: pytest.CaptureFixture[str], *command: str) -> str:
        capsys.readouterr()
        assert cli.run(list(command)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1, captured.err
        return captured.err

    def test_push_what(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "t.docx").write_text("x")
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / "config.json").write_text("{}")
        (tmp_path / "pickle").mkdir()
        (tmp_path / "pickle" / "config.json").write_text("{}")
        (tmp_path / "pickle" / "pytorch_model.bin").write_text("x")
        pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "x.parquet")
        for name, message in (
            ("absent", "no such file or folder"),
            ("empty", "nothing to publish in this folder: name a table of completions"),
            ("t.docx", "not a table"),
            ("half", "no model.safetensors"),
            ("pickle", "a pickle that can run code"),
            ("x.parquet", 'column "idx" is missing'),
        ):
            assert message in self.fails(capsys, "push", str(tmp_path / name), "lab/x")

    def test_push_a_plain_model(self, pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
        error = self.fails(capsys, "push", str(pair / "base"), "lab/x")
        assert "no half of an NLA here" in error

    def test_push_a_report_with_a_file_missing(
        self, report: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (report / "report.md").unlink()
        error = self.fails(capsys, "push", str(report), "lab/x")
        assert "report.md is missing from the report" in error

    def test_push_a_report_that_names_files_elsewhere(
        self, report: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record = json.loads((report / "record.json").read_text())
        (report.parent / "secret").write_text("secret")
        (report / "record.json").write_text(json.dumps({**record, "files": ["../secret"]}))
        error = self.fails(capsys, "push", str(report), "lab/x")
        assert "names ../secret, which is not in this folder" in error

    def test_push_completions_of_completions(
        self, completions: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = str(completions)
        error = self.fails(capsys, "push", path, "lab/x", "--completions", path)
        assert "--completions is for pairs" in error

    def test_push_where(
        self,
        hub: FakeHub,
        completions: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path = str(completions)
        assert "write owner/name" in self.fails(capsys, "push", path, "sweep")
        assert "write owner/name" in self.fails(capsys, "push", path, "lab/sweep/data")
        refused = self.fails(capsys, "push", path, "others/sweep")
        assert "the Hub refused (403: You cannot write to others/sweep): check the nam" in refused
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert "run `hf auth login`" in self.fails(capsys, "push", path, "lab/sweep")
        monkeypatch.delenv("HF_TOKEN")
        assert "you are not logged in" in self.fails(capsys, "push", path, "lab/sweep")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.failures[""] = (500, "")
        error = self.fails(capsys, "push", path, "lab/sweep")
        assert "the Hub answered with an error (500)" in error
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        assert "cannot be reached" in self.fails(capsys, "push", path, "lab/sweep")
        assert hub.repositories == {}

    @pytest.mark.parametrize(
        "case",
        [
            ("^/lfs/", (500, ""), "the Hub answered with an error (500): try again later"),
            ("^/lfs/", (403, "quota is used up"), "the Hub refused (403: quota is used up)"),
            ("/commit/", (413, "too large"), "the Hub refused (413: too large)"),
            ("/commit/", (429, ""), "the Hub answered with an error (429): try again later"),
        ],
    )
    def test_push_that_fails_midway_goes_on(
        self,
        case: tuple[str, tuple[int, str], str],
        hub: FakeHub,
        completions: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        where, failure, message = case
        hub.failures[where] = failure
        assert message in self.fails(capsys, "push", str(completions), "lab/sweep")
        assert set(hub.files("lab/sweep", "dataset")) == {".gitattributes"}
        hub.failures.clear()
        assert cli.run(["push", str(completions), "lab/sweep"]) == 0
        assert "sweep.parquet" in hub.files("lab/sweep", "dataset")
        if where == "/commit/":  # what is up there already does not go up again
            assert len(hub.asked("^/lfs/", "PUT")) == 1

    def test_push_of_a_file_that_the_hub_refuses(
        self, hub: FakeHub, completions: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        digest = hashlib.sha256(completions.read_bytes()).hexdigest()
        hub.refused_objects[digest] = "this file is flagged"
        error = self.fails(capsys, "push", str(completions), "lab/sweep")
        assert "this file is flagged" in error

    def test_pull(
        self,
        hub: FakeHub,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("HF_TOKEN")
        hub.add("lab/x", {"av/config.json": b"{}", "code/run.py": b""})
        hub.add("lab/gated", {"av/config.json": b"{}"}, access="gated")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").write_text("precious")
        out = str(tmp_path / "o")
        for address, folder, message in (
            ("x", out, "not an address on the Hub: write owner/name for a pair"),
            ("datasets/x", out, "not an address on the Hub"),
            ("lab/absent", out, "(completions and reports: datasets/lab/absent): no such model"),
            ("datasets/lab/x", out, "no such data set"),
            ("lab/x@v9", out, "no such revision"),
            ("lab/x/ar", out, 'no folder or file "ar" in the repository'),
            ("lab/x/code", out, "holds nothing that belongs to a pair, a table or a report"),
            ("lab/gated", out, "access is restricted"),
            ("lab/x", str(tmp_path / "full"), "exists already: name another folder"),
            ("lab/x", str(tmp_path / "full" / "file" / "o"), "choose another place"),
        ):
            assert message in self.fails(capsys, "pull", address, "--out", folder)
        assert not Path(out).exists()

    @pytest.mark.parametrize("name", ["push", "pull"])
    def test_help_has_an_example(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run([name, "--help"]) == 0
        assert f"\n    nla-audit {name} " in capsys.readouterr().out
