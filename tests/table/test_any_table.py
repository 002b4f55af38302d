"""Whatever is in a file: a valid table, or one line, within two seconds."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla_audit.errors import UserError
from nla_audit.table.completions import load

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)

NAMES = st.sampled_from(
    [
        "model",
        "idx",
        "explanation",
        "fve",
        "n_tokens",
        "extracted",
        "sample",
        "ar",
        "source_text",
        "length_penalty",
        "MODEL",
        "tag",
        "doc_id",
        "other",
    ]
)

SURROGATES = st.characters(categories=["Cs", "Lu", "Mn"])

ROWS = st.lists(
    st.dictionaries(NAMES, JSON | st.text(SURROGATES, max_size=4), max_size=8), max_size=6
)

LIKELY = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["base", "p0.0", "é", "e\u0301"]),
            "idx": st.integers(0, 3) | st.integers(0, 2**70) | st.text(max_size=2),
            "explanation": st.none() | st.text(max_size=9) | st.integers(),
        },
        optional={"fve": st.floats(), "extracted": st.booleans(), "n_tokens": st.integers()},
    ),
    max_size=6,
)

bounded = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_one_line(path: Path, data: bytes) -> None:
    """Whatever is in the file: a valid table or one line, within two seconds."""
    path.write_bytes(data)
    started = time.monotonic()
    refused = None
    try:
        rows = load([path]).rows
    except UserError as error:
        refused = str(error)
    if refused is not None:
        assert "\n" not in refused
        assert str(path) in refused
    else:
        assert rows.height
        assert rows["model"].null_count() == rows["idx"].null_count() == 0
    assert time.monotonic() - started < 2


class TestAnything:
    @given(rows=ROWS | LIKELY, array=st.booleans())
    @bounded
    def test_json(self, tmp_path: Path, rows: list[dict[str, object]], array: bool) -> None:
        text = json.dumps(rows) if array else "\n".join(map(json.dumps, rows))
        read_or_one_line(tmp_path / "t.jsonl", text.encode())

    @given(lines=st.lists(st.text('a1",;\t\r é{[\x00"\\', max_size=12), max_size=5))
    @bounded
    def test_csv_and_broken_lines(self, tmp_path: Path, lines: list[str]) -> None:
        read_or_one_line(tmp_path / "t.csv", "\n".join(["model,idx,explanation", *lines]).encode())
        read_or_one_line(tmp_path / "t.jsonl", "\n".join(lines).encode())

    @given(
        start=st.sampled_from(
            [
                b"",
                b"PAR1",
                b"\x1f\x8b\x08\x00",
                b"\x28\xb5\x2f\xfd",
                b"BZh9",
                b"\xfd7zXZ\x00",
                b"\xff\xfe",
                b"\xfe\xff",
                b"PK\x03\x04",
                b"[",
                b"{",
                b"model,idx,explanation\n",
            ]
        ),
        rest=st.binary(max_size=60),
        name=st.sampled_from(["t.parquet", "t.jsonl", "t.csv", "t.csv.gz", "t"]),
    )
    @bounded
    def test_bytes(self, tmp_path: Path, start: bytes, rest: bytes, name: str) -> None:
        read_or_one_line(tmp_path / name, start + rest)

    @given(
        columns=st.dictionaries(
            NAMES,
            st.sampled_from(
                [
                    pl.Int8,
                    pl.UInt64,
                    pl.Float32,
                    pl.String,
                    pl.Boolean,
                    pl.Date,
                    pl.Binary,
                    pl.Categorical,
                    pl.List(pl.String),
                    pl.Array(pl.Int8, 2),
                    pl.Decimal(5, 2),
                    pl.Null,
                    pl.Time,
                    pl.Struct({"a": pl.Int8}),
                ]
            ),
            min_size=2,
        ),
        rows=st.integers(0, 3),
    )
    @bounded
    def test_types(self, tmp_path: Path, columns: dict[str, Any], rows: int) -> None:
        values = {pl.String: "x", pl.Categorical: "x", pl.Int8: 1, pl.UInt64: 2**63}
        frame = pl.DataFrame(
            {
                name: pl.Series([values.get(dtype)] * rows, dtype=dtype)
                for name, dtype in columns.items()
            }
        )
        frame.write_parquet(tmp_path / "w.parquet")
        read_or_one_line(tmp_path / "t.parquet", (tmp_path / "w.parquet").read_bytes())
