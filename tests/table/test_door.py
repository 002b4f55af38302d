"""Files of tables as they come: text, packed, CSV, or nothing of the kind."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
import zstandard

from nla_audit.runs.activations import read_activations
from nla_audit.table.completions import from_frame, load
from nla_audit.table.readers import read_frame
from tests.table.refused import ROW, json_lines, refused, same_rows


class TestText:
    """What is no text is refused with its row; two forms of one text are one."""

    @pytest.mark.parametrize(
        ("column", "value", "held"),
        [
            ("explanation", 5, "holds 5, which is not text"),
            ("explanation", 0.5, "holds 0.5, which is not text"),
            ("explanation", True, "holds true, which is not text"),
            ("explanation", ["a"], "holds a list of 1, which is not text"),
            ("explanation", {"text": "a"}, "holds an object, which is not text"),
            ("source_text", 7, "holds 7, which is not text"),
            ("model", ["p0.0"], "holds a list of 1, which is not text or a number"),
            ("idx", True, "holds true, which is not text or a number"),
            ("n_tokens", [1], "holds a list of 1, which is not a single value"),
            ("explanation", "a \ud800", "half of a surrogate pair (character 3)"),
            ("source_text", "\udc00 b", "half of a surrogate pair (character 1)"),
            ("model", "\udc80", "half of a surrogate pair (character 1)"),
            ("idx", "\ud83d", "half of a surrogate pair (character 1)"),
        ],
    )
    @pytest.mark.parametrize("form", ["t.jsonl", "t.json"])
    def test_a_value_that_is_none_is_refused_with_its_row(
        self, tmp_path: Path, form: str, column: str, value: object, held: str
    ) -> None:
        rows: list[dict[str, Any]] = [{**ROW, "idx": number} for number in range(4)]
        rows[2] |= {column: value}
        path = tmp_path / form
        if form == "t.json":
            path.write_text(json.dumps(rows))
        else:
            json_lines(path, *rows)
        refused(path, "row 2", f'column "{column}"', held)

    @pytest.mark.parametrize("column", ["idx", "n_tokens", "explanation", "elsewhere"])
    def test_a_number_without_end(self, tmp_path: Path, column: str) -> None:
        path = json_lines(tmp_path / "t.jsonl", ROW, f'{{"{column}": {"9" * 5000}}}')
        refused(path, "row 1 (line 2)", "thousands of digits")

    def test_whole_pairs_and_zeros_stay(self, tmp_path: Path) -> None:
        path = json_lines(tmp_path / "t.jsonl", ROW | {"explanation": "sea 🌊 \x00 é"})
        assert load([path]).rows["explanation"].to_list() == ["sea 🌊 \x00 é"]

    def test_nan_for_a_missing_text(self, tmp_path: Path) -> None:
        path = json_lines(tmp_path / "t.jsonl", ROW, '{"model":"a","idx":1,"explanation":NaN}')
        assert load([path]).rows["explanation"].to_list() == ["x", None]

    @pytest.mark.parametrize("text", ["café", "Å", "각", "ệ"])
    def test_decomposed_and_composed_are_one_text(self, text: str) -> None:
        composed, apart = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        assert composed != apart
        frame = pl.DataFrame(
            {
                "model": [f"m{apart}", f"m{composed}"],
                "idx": [f"d{composed}", f"e{apart}"],
                "explanation": [apart, composed],
                "source_text": [f"a {apart}", f"a {composed}"],
            }
        )
        found = from_frame(frame)
        assert found.models == (f"m{composed}",)
        assert found.rows["explanation"].to_list() == [composed] * 2
        assert found.rows["source_text"].to_list() == [f"a {composed}"] * 2
        assert found.rows["activation_id"].to_list() == [f"d{composed}", f"e{composed}"]
        assert "2 rows with decomposed letters" in found.notes[0]
        assert (
            not from_frame(found.rows.select("model", "idx", "explanation"))
            .notes[0]
            .startswith("<frame>")
        )


class TestPacked:
    PACKERS: ClassVar[dict[str, Callable[[bytes], bytes]]] = {
        ".gz": gzip.compress,
        ".zst": zstandard.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
    }

    @pytest.mark.parametrize("ending", PACKERS)
    @pytest.mark.parametrize("form", [".parquet", ".jsonl", ".csv"])
    def test_packed_tables_are_read(
        self, table: pl.DataFrame, tmp_path: Path, form: str, ending: str
    ) -> None:
        plain = tmp_path / f"t{form}"
        {".parquet": table.write_parquet, ".jsonl": table.write_ndjson, ".csv": table.write_csv}[
            form
        ](plain)
        packed = tmp_path / "packed" / f"t{form}{ending}"
        packed.parent.mkdir()
        packed.write_bytes(self.PACKERS[ending](plain.read_bytes()))
        for path in (packed, packed.parent):  # by name, and found in its folder
            assert same_rows(load([path]), from_frame(table))

    @pytest.mark.parametrize("ending", PACKERS)
    def test_half_of_a_packed_table(self, tmp_path: Path, ending: str) -> None:
        data = self.PACKERS[ending](os.urandom(5000) + b"model,idx,explanation\n" * 99)
        path = tmp_path / f"t.csv{ending}"
        path.write_bytes(data[: len(data) // 2])
        refused(path, "truncated or damaged")

    def test_a_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nla_audit.local_copies._MOST_UNPACKED", 1 << 20)
        path = tmp_path / "t.csv.gz"
        path.write_bytes(gzip.compress(b"model,idx,explanation\n" + b"a" * (8 << 20)))
        refused(path, "unpacks to more than 200 times its size")

    def test_no_copy_is_left(
        self, table: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress(table.write_csv().encode("utf-16")))
        assert same_rows(load([tmp_path / "t.csv.gz"]), from_frame(table))
        assert list((tmp_path / "temporary").iterdir()) == []


class TestCsv:
    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    def test_a_byte_order_mark_names_the_encoding(
        self, table: pl.DataFrame, tmp_path: Path, encoding: str, form: str
    ) -> None:
        text = table.write_csv() if form == "csv" else table.write_ndjson()
        (tmp_path / f"t.{form}").write_bytes(text.encode(encoding))
        assert same_rows(load([tmp_path / f"t.{form}"]), from_frame(table))

    def test_utf16_without_its_mark_is_named(self, table: pl.DataFrame, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(table.write_csv().encode("utf-16-le"))
        refused(tmp_path / "t.csv", "save it as UTF-8")

    @pytest.mark.parametrize("end", ["\r", "\r\n"])
    def test_ends_of_lines(self, table: pl.DataFrame, tmp_path: Path, end: str) -> None:
        (tmp_path / "t.csv").write_bytes(table.write_csv().replace("\n", end).encode())
        assert same_rows(load([tmp_path / "t.csv"]), from_frame(table))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("model,idx,explanation\na,0,x\na,1\n", "row 1 (line 3) has 2 fields"),
            ("model,idx,explanation\na,0,x,y\n", "row 0 (line 2) has 4 fields"),
            ("model,idx,explanation\ra,0,x\ra,1\r", "row 1 (line 3) has 2 fields"),
            ("model,idx,explanation,idx\na,0,x,1\n", 'column "idx" occurs twice'),
            ("model,idx,explanation,Model\na,0,x,b\n", 'the second time as "Model"'),
            ('model,idx,explanation\na,0,"x" y\n', "check the quotes"),
        ],
    )
    def test_rows_and_columns_that_do_not_fit(self, tmp_path: Path, text: str, words: str) -> None:
        (tmp_path / "t.csv").write_bytes(text.encode())
        refused(tmp_path / "t.csv", words)


class TestAnyTable:
    def test_lists_of_a_fixed_size_and_not_are_one(self, tmp_path: Path) -> None:
        frame = pl.DataFrame({"v": [[1.0, 2.0], [3.0, 4.0]]})
        frame.write_parquet(tmp_path / "list.parquet")
        frame.cast({"v": pl.Array(pl.Float64, 2)}).write_parquet(tmp_path / "fixed.parquet")
        assert read_frame(tmp_path / "list.parquet").equals(read_frame(tmp_path / "fixed.parquet"))

    def test_activations_in_packed_partitions(self, tmp_path: Path) -> None:
        for number in range(2):
            folder = tmp_path / f"doc_id=d{number}"
            folder.mkdir()
            frame = pl.DataFrame({"IDX": [number], "Activation_Vector": [[1.0, number]]})
            frame.cast({"Activation_Vector": pl.Array(pl.Float32, 2)}).write_parquet(
                tmp_path / "t.parquet"
            )
            packed = gzip.compress((tmp_path / "t.parquet").read_bytes())
            (folder / "t.parquet.gz").write_bytes(packed)
        (tmp_path / "t.parquet").unlink()
        read = read_activations(tmp_path)
        assert read.keys.select("idx", "doc_id").rows() == [(0, "d0"), (1, "d1")]
        assert read.vectors.tolist() == [[1, 0], [1, 1]]
