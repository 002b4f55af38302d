"""``nla-audit extract`` from the command line: the texts that it takes, and those it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM

from nla_audit import cli
from nla_audit.nla.injection import Injection
from nla_audit.runs.documents import Documents
from nla_audit.runs.extract import extract
from nla_audit.runs.target import TargetModel, load_target
from tests.pairs import tiny
from tests.runs.extracting import (
    FLOAT32,
    SAMPLING,
    one_line,
    save_target,
    vectors,
)


class TestDocuments:
    def test_formats_give_the_same_documents(self, tmp_path: Path) -> None:
        rows = [{"id": n, "text": text} for n, text in enumerate(["one", "two", "three"])]
        pl.DataFrame(rows).write_parquet(tmp_path / "t.parquet")
        pl.DataFrame(rows).write_ndjson(tmp_path / "t.jsonl")
        found = [
            [(d.number, d.doc_id, d.text) for d in Documents([tmp_path / name])]
            for name in ("t.parquet", "t.jsonl")
        ]
        assert found[0] == found[1] == [(0, "0", "one"), (1, "1", "two"), (2, "2", "three")]

    def test_ids_are_file_and_row_where_there_is_no_column(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "b.jsonl").write_text('{"text":"x"}\n\n{"text":""}\n{"text":"y"}\n')
        (tmp_path / "a.txt").write_text("first line\nsecond line\n")
        found = [(d.number, d.doc_id, d.text) for d in Documents([tmp_path])]
        assert found == [
            (0, "a.txt", "first line\nsecond line"),
            (1, "sub/b.jsonl:0", "x"),
            (3, "sub/b.jsonl:2", "y"),
        ]
        assert Documents([tmp_path]).expected() == 4

    def test_row_ids_where_the_id_column_repeats(self, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").write_text('{"id": 1, "text": "x"}\n' * 2)
        documents = Documents([tmp_path / "t.jsonl"], row_ids=True)
        assert [d.doc_id for d in documents] == ["t.jsonl:0", "t.jsonl:1"]

    def test_lines(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("first line\n\nthird line\n")
        found = [(d.number, d.doc_id, d.text) for d in Documents([tmp_path], lines=True)]
        assert found == [(0, "a.txt:0", "first line"), (2, "a.txt:2", "third line")]
        assert Documents([tmp_path], lines=True).expected() == 3

    def test_parquet_is_read_in_pieces(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nla_audit.runs.documents._PARQUET_ROWS", 3)
        pl.DataFrame({"body": list("abcdefg")}).write_parquet(tmp_path / "t.parquet")
        documents = Documents([tmp_path / "t.parquet"], text_column="body")
        assert [d.text for d in documents] == list("abcdefg")
        assert [d.text for d in documents] == list("abcdefg")
        assert documents.expected() == 7

    def test_limit(self, tmp_path: Path) -> None:
        pl.DataFrame({"text": list("abcdefg")}).write_parquet(tmp_path / "t.parquet")
        documents = Documents([tmp_path / "t.parquet"], limit=2)
        assert [d.text for d in documents] == ["a", "b"]
        assert documents.expected() == 2


class TestCommand:
    OPTIONS = ("--layer", str(tiny.LAYER), "--minimum-position", "4", "--max-tokens", "60")

    def test_writes_a_table_and_a_record(
        self, qwen: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "a.parquet"
        arguments = ["extract", str(qwen), str(texts), *self.OPTIONS, "--out", str(out)]
        assert cli.run([*arguments, "--positions-per-document", "3"]) == 0
        rows = pl.read_parquet(out).height
        assert one_line(capsys).startswith(f"{out}: {rows} activations of width {tiny.D_MODEL}")
        record = json.loads((tmp_path / "a.parquet.record.json").read_text())
        assert record["result"]["rows"] == rows
        assert record["written_by"] == "nla-audit extract"
        assert record["arguments"]["seed"] == 0
        assert record["settings"]["layer"] == tiny.LAYER
        assert record["settings"]["dtype"] == "torch.float32"
        assert record["settings"]["texts"][0]["name"] == "texts.jsonl"
        assert {entry["file"] for entry in record["settings"]["model"]} >= {
            "model/config.json",
            "model/model.safetensors",
            "model/tokenizer.json",
        }
        assert record["versions"]["torch"] == torch.__version__

    def test_a_finished_run_is_not_repeated(
        self, target: TargetModel, texts: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = texts.parent / "a.parquet"
        first = extract(target, Documents([texts]), out, sampling=SAMPLING)
        written = out.stat().st_mtime_ns
        monkeypatch.setattr(TargetModel, "activations", None)
        assert extract(target, Documents([texts]), out, sampling=SAMPLING) == first
        assert out.stat().st_mtime_ns == written

    def test_part_counts_from_one(self, qwen: Path, texts: Path, tmp_path: Path) -> None:
        ids: set[str] = set()
        for part in ("1/2", "2/2"):
            out = tmp_path / f"{part[0]}.parquet"
            arguments = ["extract", str(qwen), str(texts), *self.OPTIONS, "--out", str(out)]
            assert cli.run([*arguments, "--part", part]) == 0
            found = set(pl.read_parquet(out)["doc_id"])
            assert not ids & found
            ids |= found
        assert len(ids) > 15

    def test_help_has_an_example(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["extract", "--help"]) == 0
        assert "nla-audit extract Qwen/Qwen3-8B texts.jsonl --layer 24" in capsys.readouterr().out

    BAD: ClassVar[dict[str, tuple[Callable[[Path], object], list[str], str]]] = {
        "no such text": (lambda root: None, ["absent.jsonl"], "no such file or folder"),
        "unknown format": (
            lambda root: (root / "t.docx").write_text("x"),
            ["t.docx"],
            "not a known format of texts",
        ),
        "empty folder": (lambda root: (root / "f").mkdir(), ["f"], "no texts in this folder"),
        "no such column": (
            lambda root: (root / "t.jsonl").write_text('{"txet": "x"}\n'),
            ["t.jsonl"],
            't.jsonl: row 0 (line 1): no column "text": name "txet" with --text-column',
        ),
        "no such column in Parquet": (
            lambda root: pl.DataFrame({"body": ["x"]}).write_parquet(root / "t.parquet"),
            ["t.parquet"],
            'no column "text": name one of body with --text-column',
        ),
        "no such id column": (
            lambda root: (root / "t.jsonl").write_text('{"text": "x"}\n'),
            ["t.jsonl", "--id-column", "key"],
            'no column "key"',
        ),
        "column of numbers": (
            lambda root: (root / "t.jsonl").write_text('{"text": "x"}\n{"text": 3}\n'),
            ["t.jsonl"],
            't.jsonl: row 1 (line 2): column "text" holds 3, not text',
        ),
        "repeated id": (
            lambda root: (root / "t.jsonl").write_text('{"id": 1, "text": "x"}\n' * 2),
            ["t.jsonl"],
            't.jsonl: row 1: document id "1" occurs twice: name a column without repeats',
        ),
        "id of the wrong type": (
            lambda root: (root / "t.jsonl").write_text('{"id": null, "text": "x"}\n'),
            ["t.jsonl"],
            'column "id" holds None, not a document id',
        ),
        "half of a surrogate pair": (
            lambda root: (root / "t.jsonl").write_text('{"text": "ab\\ud83d"}\n'),
            ["t.jsonl"],
            "holds half of a surrogate pair (character 3)",
        ),
        "broken JSON": (
            lambda root: (root / "t.jsonl").write_text('{"text": "x"}\n{"text": \n'),
            ["t.jsonl"],
            "t.jsonl: row 1 (line 2) is not JSON",
        ),
        "no object": (
            lambda root: (root / "t.jsonl").write_text("[1]\n"),
            ["t.jsonl"],
            "is not a JSON object",
        ),
        "not UTF-8": (
            lambda root: (root / "t.txt").write_bytes(b"fine\n\xff\n"),
            ["t.txt"],
            "t.txt: line 2, byte 1 is not UTF-8",
        ),
        "truncated Parquet": (
            lambda root: (root / "t.parquet").write_bytes(b"PAR1 and no more"),
            ["t.parquet"],
            "not a whole Parquet file",
        ),
        "same name twice": (
            lambda root: (
                (root / "sub").mkdir(),
                (root / "sub" / "texts.jsonl").write_text('{"text": "x"}\n'),
            ),
            ["texts.jsonl", "sub/texts.jsonl"],
            "sub/texts.jsonl: given twice, or called like texts.jsonl",
        ),
        "only short texts": (
            lambda root: (root / "t.txt").write_text("a"),
            ["t.txt"],
            "no position to read in 1 document: none has a token at position 4 or later",
        ),
        "no such layer": (
            lambda root: None,
            ["texts.jsonl", "--layer", "9"],
            "no layer 9: its layers are 0 to 3",
        ),
        "part beyond the last": (
            lambda root: None,
            ["texts.jsonl", "--part", "5/4"],
            '--part "5/4": write which of how many, from 1/4 on',
        ),
        "output is there": (
            lambda root: (root / "a.parquet").write_text("precious"),
            ["texts.jsonl"],
            "a.parquet: exists already, made by another run; name another --out",
        ),
        "output of another format": (
            lambda root: None,
            ["texts.jsonl", "--out", "a.csv"],
            "end the name in .parquet",
        ),
        "output in a file": (
            lambda root: (root / "file").write_text(""),
            ["texts.jsonl", "--out", "file/a.parquet"],
            "file",
        ),
    }

    @pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
    def test_bad_input(
        self,
        case: tuple[Callable[[Path], object], list[str], str],
        qwen: Path,
        texts: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        tmp_path = texts.parent
        prepare, arguments, message = case
        monkeypatch.chdir(tmp_path)
        prepare(tmp_path)
        before = sorted(path.name for path in tmp_path.iterdir())
        command = ["extract", str(qwen), *self.OPTIONS, "--out", "a.parquet", *arguments]
        assert cli.run(command) == 2
        assert message in one_line(capsys)
        after = {path.name for path in tmp_path.iterdir() if ".parts-" not in path.name}
        assert sorted(after) == before

    def test_not_a_target(
        self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = tiny.save_pair(tmp_path / "pair", "qwen3", Injection("add", block=1))
        capsys.readouterr()  # transformers' bars of saving
        out = tmp_path / "a.parquet"
        rest = [str(texts), *self.OPTIONS, "--out", str(out)]
        for half in ("av", "ar"):
            assert cli.run(["extract", str(root / half), *rest]) == 2
            assert f"this is an {half.upper()}; activations come from" in one_line(capsys)
        for folder, message in (
            (root, "no checkpoint itself, but holds ar, av, base"),
            (tmp_path / "absent", "no such folder"),
        ):
            assert cli.run(["extract", str(folder), *rest]) == 2
            assert message in one_line(capsys)
        assert cli.run(["extract", str(root / "av"), *rest, "--force"]) == 0

    def test_a_pickle_is_refused(
        self, qwen: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = shutil.copytree(qwen, tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        out = tmp_path / "a.parquet"
        assert cli.run(["extract", str(folder), str(texts), *self.OPTIONS, "--out", str(out)]) == 2
        assert "a pickle that can run code" in one_line(capsys)


class TestNotFinite:
    def save_broken(self, folder: Path, *, tokens: Sequence[int] | slice) -> Path:
        save_target(folder, "qwen3")
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            model.get_input_embeddings().weight[tokens] = float("nan")
        model.save_pretrained(folder)
        return folder

    def test_left_out_and_said(self, texts: Path, tmp_path: Path) -> None:
        tokenizer = tiny.make_tokenizer(bos=False)
        poison = tokenizer(" quoted", add_special_tokens=False)["input_ids"][-1:]
        target = load_target(
            self.save_broken(tmp_path / "model", tokens=poison), layer_index=1, placement=FLOAT32
        )
        said: list[str] = []
        out = tmp_path / "a.parquet"
        done = extract(target, Documents([texts]), out, sampling=SAMPLING, notice=said.append)
        table = pl.read_parquet(out)
        assert np.isfinite(vectors(table)).all()
        assert done.unusable > 0
        assert done.rows == table.height > 0
        assert "left out, zero or not finite; the first is document d" in said[0]

    def test_all_of_them(
        self, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = self.save_broken(tmp_path / "model", tokens=slice(None))
        out = tmp_path / "a.parquet"
        options = [*TestCommand.OPTIONS, "--out", str(out)]
        assert cli.run(["extract", str(folder), str(texts), *options]) == 2
        assert "is finite in torch.float32" in capsys.readouterr().err
        assert not out.exists()
