"""What is taken from a table of activations, and what is said to one that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from nla_audit.errors import UserError
from nla_audit.runs import activations as reading
from nla_audit.runs.activations import Activations, read_activations, rows_by_idx
from tests.pairs.explaining import table_of

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def read(folder: Path, table: pl.DataFrame) -> Activations:
    table.write_parquet(folder / "a.parquet")
    return read_activations(folder / "a.parquet")


def refused(folder: Path, **columns: Any) -> str:
    with pytest.raises(UserError) as error:
        read(folder, table_of(VECTORS, **columns))
    return str(error.value).removeprefix(f"{folder / 'a.parquet'}: ")


@pytest.mark.parametrize("name", ["idx", "doc_id", "n_raw_tokens", "activation_layer", "position"])
def test_a_key_is_one_value(name: str, tmp_path: Path) -> None:
    for dtype, value in {"List": pl.lit([2]), "Struct": pl.struct(a=2)}.items():
        assert refused(tmp_path, **{name: value}).startswith(f'column "{name}" holds {dtype}(')


def test_a_key_that_is_no_whole_number_is_named_with_its_row(tmp_path: Path) -> None:
    for name in ("position", "n_raw_tokens", "activation_layer"):
        for column, shown in ((["2", "2", "two"], '"two"'), ([2.0, 2.0, 2.5], "2.5")):
            line = refused(tmp_path, **{name: pl.Series(2 * column)})
            assert line.startswith("row 2")
            assert f'column "{name}" holds {shown}' in line


def test_bytes_are_text_where_they_are_utf_8(tmp_path: Path) -> None:
    names = [f"d{row}".encode() for row in range(6)]
    found = read(tmp_path, table_of(VECTORS, doc_id=pl.Series(names)))
    assert found.keys["doc_id"].to_list() == [f"d{row}" for row in range(6)]
    names[4] = b"\xff"
    assert refused(tmp_path, doc_id=pl.Series(names)).startswith('row 4: column "doc_id"')


def test_names_are_those_that_completions_would_have(tmp_path: Path) -> None:
    """Integers that pandas wrote as floats, blanks around names, days: one name either way."""
    numbers = pl.Series([1.0, 2.0, None, 4.0, 5.0, 6.0])
    assert read(tmp_path, table_of(VECTORS, doc_id=numbers)).keys["doc_id"][:3].to_list() == [
        "1",
        "2",
        None,
    ]
    days = pl.Series(["2024-01-01"] * 6).str.to_date()
    assert read(tmp_path, table_of(VECTORS, doc_id=days)).keys["doc_id"][0] == "2024-01-01"
    spaced = read(tmp_path, table_of(VECTORS, idx=pl.Series([f" a{row}\t" for row in range(6)])))
    assert rows_by_idx(spaced, ["a3", " a5"]) == [3, 5]


def test_names_that_differ_in_blanks_only_are_one(tmp_path: Path) -> None:
    """Else the second would be read for the first, and its FVE reported."""
    line = refused(tmp_path, idx=pl.Series(["1", " 1", "2", "3", "4", "5"]))
    assert line == 'row 1: column "idx" repeats "1": give each activation its own'
    assert 'column "idx" is empty' in refused(tmp_path, idx=pl.Series(["1", " ", *"2345"]))


def test_missing_vectors_are_told_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK_ROWS", 2)
    table = table_of(VECTORS)
    late = pl.when(pl.int_range(pl.len()) > 2).then("activation_vector").alias("activation_vector")
    found = read(tmp_path, table.with_columns(late))
    assert list(found.problems) == [0, 1, 2]
    assert (found.vectors[3:] == VECTORS[3:]).all()
    nothing = table.with_columns(activation_vector=pl.lit(None, dtype=pl.List(pl.Float32)))
    with pytest.raises(UserError, match="no row holds a vector"):
        read(tmp_path, nothing)
