"""Push and pull: their options, and what they say to input that is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest
import yaml

from nla_audit import cli
from nla_audit.table.completions import load as load_completions
from tests.hub_contents import TOKEN, FakeHub, parquet_bytes
from tests.publish.cards import front_matter
from tests.test_writing import small_disk


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
            files[f"data/model={name}/0.parquet"] = parquet_bytes(part.drop("model"))
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
