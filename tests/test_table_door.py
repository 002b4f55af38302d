"""Files of tables as they come: text, packed, CSV, streamed, or nothing of the kind."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nla_audit.completions import from_frame, load
from nla_audit.errors import UserError
from nla_audit.prefix_table import read_prefixes
from nla_audit.readers import column_names, read_frame
from nla_audit.runs.activations import read_activations
from tests.tables_refused import ROW, json_lines, refused, same_rows

ROOT = Path(__file__).parents[1]


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


@contextmanager
def _as_standard_input(path: Path, *, is_pipe: bool) -> Iterator[None]:
    """What ``path`` holds on descriptor 0, from a pipe that holds it all, or as the file."""
    kept = os.dup(0)
    if is_pipe:
        source, into = os.pipe()
        os.write(into, path.read_bytes())  # a few hundred bytes, which any pipe takes
        os.close(into)
    else:
        source = os.open(path, os.O_RDONLY)
    os.dup2(source, 0)
    os.close(source)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


class TestStreams:
    @staticmethod
    def run(*arguments: object, shell: bool = False, **more: Any) -> subprocess.CompletedProcess:
        program = [sys.executable, "-m", "nla_audit.cli", *map(str, arguments)]
        environment = {**os.environ, **more.pop("environment", {})}
        return subprocess.run(
            program, cwd=ROOT, env=environment, capture_output=True, check=False, **more
        )

    @pytest.mark.parametrize("name", ["-", "/dev/stdin"])
    def test_a_pipe_is_read_once(self, table: pl.DataFrame, tmp_path: Path, name: str) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        done = self.run("tail", name, "--json", input=(tmp_path / "t.parquet").read_bytes())
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)["headline"]) == {"base", "p0.0", "p0.03"}

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    @pytest.mark.parametrize("is_pipe", [True, False])
    def test_standard_input_is_told_by_its_columns(
        self, tmp_path: Path, suffix: str, is_pipe: bool
    ) -> None:
        """Prefixes and completions go to one command, which reads the columns first."""
        prefixes = pl.DataFrame(
            {"model": "m", "unit": "tokens", "length": [1, 2, 3], "fve": [0.1, 0.2, 0.3]}
        )
        path = tmp_path / f"t.{suffix}"
        getattr(prefixes, f"write_{suffix}")(path)
        with _as_standard_input(path, is_pipe=is_pipe):
            for name in ("-", "/dev/stdin"):
                assert column_names([name]) == [prefixes.columns]
            assert read_prefixes(["-"]).models == ("m",)

    def test_a_one_row_table_of_lists_is_no_wrapper(self, tmp_path: Path) -> None:
        row = {**ROW, "messages": [{"role": "user"}]}
        assert load([json_lines(tmp_path / "t.jsonl", row)]).rows.height == 1

    @pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
    def test_devices_are_refused_by_name(self, name: str) -> None:
        refused(Path(name), "a device, not a table")

    def test_an_endless_stream_that_is_no_table_ends_at_once(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with subprocess.Popen(["sh", "-c", f"yes > '{tmp_path / 'pipe'}'"]) as writer:
            refused(tmp_path / "pipe", "not a table of a known format")
            writer.wait(timeout=10)

    def test_a_name_that_is_not_utf8(self, table: pl.DataFrame, tmp_path: Path) -> None:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.parquet"))
        with path.open("wb") as file:
            table.write_parquet(file)
        assert same_rows(load([path]), from_frame(table))

    @pytest.mark.parametrize(
        "environment",
        [
            {"PYTHONIOENCODING": "ascii"},
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            {"PYTHONIOENCODING": "latin-1"},
        ],
    )
    def test_terminals_without_unicode(
        self, table: pl.DataFrame, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        table.with_columns(model=pl.col("model") + " λ🌊").write_parquet(tmp_path / "t.parquet")
        # Both in one process, for it is the process that has the terminal's encoding.
        program = (
            "import sys; from nla_audit import cli; first = cli.run(sys.argv[1:]); "
            "print('\\0', flush=True); cli.main([*sys.argv[1:], '--json'] if not first else [])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, "tail", tmp_path / "t.parquet"],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        shown, plain = done.stdout.split(b"\0")
        assert b"\\u03bb" in shown
        assert "p0.0 λ🌊" in json.loads(plain)["headline"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    @pytest.mark.parametrize("arguments", [["--json"], []])
    def test_a_full_disk_behind_standard_output(
        self, table: pl.DataFrame, tmp_path: Path, arguments: list[str]
    ) -> None:
        table.write_parquet(tmp_path / "t.parquet")
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "nla_audit.cli", "tail", tmp_path / "t.parquet", *arguments],
                cwd=ROOT,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "cannot write (No space left on device)" in done.stderr


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
