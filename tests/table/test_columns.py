"""Columns of tables as their writers have them: names, types, folders that say them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nla_audit.errors import UserError
from nla_audit.runs.activations import read_activations, rows_by_idx
from nla_audit.table.completions import from_frame, load
from tests.table.refused import ROW, json_lines, refused, same_rows


class TestPartitions:
    def test_folders_say_what_files_do_not(self, table: pl.DataFrame, tmp_path: Path) -> None:
        for (model,), part in table.group_by("model"):
            folder = tmp_path / "hive" / "ar=warm-start" / f"model={model}"
            folder.mkdir(parents=True)
            part.drop("model", "ar").write_parquet(folder / "part-0.parquet")
        expected = from_frame(table)
        assert same_rows(load([tmp_path / "hive"]), expected)
        one = tmp_path / "hive" / "ar=warm-start" / "model=p0.0"
        for path in (one, one / "part-0.parquet"):
            assert load([path]).rows.equals(from_frame(table.filter(model="p0.0")).rows)

    def test_json_below_a_quoted_value_and_null(self, tmp_path: Path) -> None:
        for folder in ("model=a%2Fb", "length_penalty=__HIVE_DEFAULT_PARTITION__"):
            (tmp_path / folder).mkdir()
        json_lines(tmp_path / "model=a%2Fb" / "t.jsonl", {"idx": 1, "explanation": "x"})
        assert load([tmp_path / "model=a%2Fb"]).models == ("a/b",)
        path = tmp_path / "length_penalty=__HIVE_DEFAULT_PARTITION__" / "t.jsonl"
        assert load([json_lines(path, ROW)]).length_penalties == {"a": None}

    def test_a_column_of_the_file_wins(self, table: pl.DataFrame, tmp_path: Path) -> None:
        (tmp_path / "model=x").mkdir()
        table.write_parquet(tmp_path / "model=x" / "t.parquet")
        assert same_rows(load([tmp_path]), from_frame(table))


class TestColumns:
    @pytest.mark.parametrize("spell", [str.upper, str.title, lambda name: f" {name} "])
    @pytest.mark.parametrize("form", ["t.parquet", "t.jsonl", "t.csv"])
    def test_spelling_of_names_does_not_matter(
        self, table: pl.DataFrame, tmp_path: Path, form: str, spell: Callable[[str], str]
    ) -> None:
        other = table.rename({name: spell(name) for name in table.columns})
        path = tmp_path / form
        {"parquet": other.write_parquet, "jsonl": other.write_ndjson, "csv": other.write_csv}[
            form[2:]
        ](path)
        assert same_rows(load([path]), from_frame(table))

    @pytest.mark.parametrize(
        "columns",
        [
            ["mse", "idx", "explanation"],
            ["length_penalty", "n_tokens", "idx", "explanation"],
            ["MSE", "IDX", "EXPLANATION"],
        ],
    )
    def test_no_known_column_is_to_be_renamed(self, columns: list[str]) -> None:
        frame = pl.DataFrame({name: ["1"] for name in columns})
        with pytest.raises(UserError, match='column "model" is missing') as caught:
            from_frame(frame)
        assert "rename" not in str(caught.value)

    @pytest.mark.parametrize("name", ["models", "model_name", "Modell", "av_model"])
    def test_a_near_name_is_suggested_as_it_is_spelled(self, name: str) -> None:
        frame = pl.DataFrame({name: ["a"], "idx": [0], "explanation": ["x"], "mse": [0.1]})
        if name == "model_name":  # too far to be sure
            words = 'column "model" is missing'
        else:
            words = f'rename "{name}" to "model"'
        with pytest.raises(UserError, match=words):
            from_frame(frame)

    @pytest.mark.parametrize("dtype", [pl.UInt8, pl.UInt32, pl.UInt64, pl.Int16, pl.Int128])
    def test_whole_numbers_of_every_width(self, table: pl.DataFrame, dtype: Any) -> None:
        assert same_rows(from_frame(table.cast({"idx": dtype})), from_frame(table))

    def test_ids_beyond_63_bits_are_names(self, tmp_path: Path) -> None:
        ids = [2**64 - 1, 2**63, 5]
        frame = pl.DataFrame(
            {"model": ["a"] * 3, "idx": pl.Series(ids, dtype=pl.UInt64), "explanation": ["x"] * 3}
        )
        expected = sorted(map(str, ids))
        assert from_frame(frame).rows["activation_id"].to_list() == expected
        frame.write_csv(tmp_path / "t.csv")
        json_lines(tmp_path / "t.jsonl", *frame.to_dicts())
        for name in ("t.csv", "t.jsonl"):
            assert load([tmp_path / name]).rows["activation_id"].to_list() == expected
        vectors = frame.select("idx", activation_vector=pl.Series([[1.0, 2.0]] * 3))
        vectors.write_parquet(tmp_path / "a.parquet")
        activations = read_activations(tmp_path / "a.parquet")
        assert rows_by_idx(activations, ids) == [0, 1, 2]


class TestPeers:
    def test_a_header_line_and_a_model_named_after_its_file(self, tmp_path: Path) -> None:
        rows = [{"idx": number, "extracted": True, "explanation": "x"} for number in range(3)]
        paths = []
        for name in ("step0", "step100"):
            head = {"meta": True, "av_ckpt": name, "n": 3}
            paths.append(json_lines(tmp_path / f"{name}.jsonl", head, *rows))
        found = load(paths)
        assert found.models == ("step0", "step100")
        assert found.rows.height == 6
        assert sum('no column "model"' in note for note in found.notes) == 2

    def test_two_files_of_one_name(self, tmp_path: Path) -> None:
        paths = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            paths.append(json_lines(tmp_path / name / "dump.jsonl", {"idx": 0, "explanation": "x"}))
        assert load(paths).models == ("first/dump", "second/dump")

    def test_names_of_the_reliability_tables(self, tmp_path: Path) -> None:
        frame = pl.DataFrame(
            {"activation_idx": [0, 0], "sample_idx": [0, 1], "description": ["x", "y"]}
        )
        frame.write_parquet(tmp_path / "r.parquet")
        rows = load([tmp_path / "r.parquet"]).rows
        assert rows.select("idx", "sample", "explanation").rows() == [(0, 0, "x"), (0, 1, "y")]

    def test_without_idx_the_document_is_named(self, tmp_path: Path) -> None:
        pl.DataFrame({"doc_id": ["d"], "explanation": ["x"]}).write_parquet(tmp_path / "t.parquet")
        refused(tmp_path / "t.parquet", 'column "idx" is missing', 'rename "doc_id" where each')

    @pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.csv", "t"])
    def test_an_array_is_an_array_whatever_its_name(
        self, table: pl.DataFrame, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / name).write_text(json.dumps(table.to_dicts(), indent=1))
        assert same_rows(load([tmp_path / name]), from_frame(table))

    @pytest.mark.parametrize(
        ("write", "words"),
        [
            (lambda p: np.savez(p, pred=np.ones(3), gold=np.ones(3)), "NumPy arrays (pred, gold)"),
            (lambda p: np.save(p, np.ones(3)), "an array of NumPy"),
            (lambda p: p.write_bytes(b"\x80\x04\x95abc"), "a pickle"),
            (lambda p: p.write_bytes(b"SQLite format 3\x00"), "a database of SQLite"),
            (lambda p: p.write_text('{\n "rows": [\n {"idx": 1}\n ]\n}'), 'under "rows"'),
            (lambda p: p.write_text('{"rows": [{"idx": 1}]}'), 'holds the rows under "rows"'),
            (lambda p: p.write_text('{"mine": [{"idx": 1}]}'), 'holds the rows under "mine"'),
            (
                lambda p: p.write_text('{"version": "2", "Data": [{"idx": 1}, {"idx": 2}]}'),
                'holds the rows under "Data"',
            ),
            (
                lambda p: p.write_text('{"columns": ["idx"], "index": [0], "data": [[1]]}'),
                'holds the rows under "data"',
            ),
            (lambda p: p.write_text('{\n"idx": [1],\n"model": ["a"]}'), "by its columns"),
            (lambda p: p.write_text('{\n"idx": 1\n}'), "one JSON object over several lines"),
            (lambda p: p.write_text('[{"model": "a"}, 3]'), "row 1 is not a JSON object"),
            (lambda p: p.write_text("[]"), "no rows"),
            (lambda p: p.write_text("[" * 100_000), "nested too deeply"),
            (lambda p: p.write_text('{"idx": 1, "idx": 2}'), 'the key "idx" twice'),
        ],
    )
    def test_what_is_no_table_is_named(
        self, tmp_path: Path, write: Callable[[Path], object], words: str
    ) -> None:
        suffix = ".npz" if "arrays" in words else ".npy" if "NumPy" in words else ".json"
        path = tmp_path / f"t{suffix}"
        write(path)
        refused(path, words)
