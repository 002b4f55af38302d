"""Reading tables of completions: Parquet, JSON lines, CSV and TSV; a file, several, or a folder.

Only the known columns are read. Where a fast reader fails, the file is read again line by line
to say which line is at fault.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import polars as pl

from nla_audit import hub
from nla_audit.errors import UserError
from nla_audit.schema import ALIASES, FILE, INPUT_COLUMNS, ROW, convert, source_columns

#: File name suffix → format.
SUFFIXES = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
_FORMATS = ", ".join(SUFFIXES)
#: What polars raises on a damaged file; a panic in its Rust code is no ``Exception``.
_POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
#: Rows per frame when JSON lines are parsed one by one, to bound the Python objects in memory.
_SLOW_CHUNK = 20_000


@dataclass(frozen=True)
class Table:
    """One input file: where it lies, and how it is called in messages and records."""

    name: str
    path: Path
    format: str


def find_tables(paths: Sequence[str | Path]) -> list[Table]:
    """The table files behind ``paths`` (files, folders, ``hf://`` addresses), in a fixed order.

    Raises:
        UserError: a path that does not exist, a folder without tables, an unknown format.
    """
    if not paths:
        raise UserError("no table given: name a Parquet, JSONL or CSV file, a folder, or hf://…")
    tables: list[Table] = []
    for given in paths:
        name = str(given)
        if name.startswith(hub.PREFIX):
            found = hub.download_tables(name, tuple(SUFFIXES))
        else:
            found = _local(Path(name))
        tables += [Table(label, path, _format(path, label)) for label, path in found]
    return tables


def _local(path: Path) -> list[tuple[str, Path]]:
    if path.is_dir():
        files = sorted(
            entry
            for entry in path.iterdir()
            if entry.suffix.lower() in SUFFIXES and entry.is_file()
        )
        if not files:
            deeper = sorted(
                {str(entry.parent) for entry in path.glob("*/*") if entry.suffix in SUFFIXES}
            )
            hint = f"; there are some in {deeper[0]}" if deeper else ""
            raise UserError(f"{path}: no table in this folder ({_FORMATS}){hint}")
        return [(str(file), file) for file in files]
    if not path.exists():
        siblings = [entry.name for entry in _entries(path.parent)]
        near = get_close_matches(path.name, siblings, n=1, cutoff=0.75)
        hint = f'did you mean "{path.parent / near[0]}"?' if near else "check the path"
        raise UserError(f"{path}: no such file or folder: {hint}")
    return [(str(path), path)]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _format(path: Path, name: str) -> str:
    """The format by suffix, or by the first bytes where the suffix says nothing."""
    known = SUFFIXES.get(path.suffix.lower())
    if known:
        return known
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise UserError(
            f"{name}: cannot be read ({error.strerror}): check its permissions"
        ) from error
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return "jsonl"
    header = start.split(b"\n", maxsplit=1)[0]
    if b"explanation" in header and any(mark in header for mark in (b",", b"\t", b";")):
        return "csv"
    raise UserError(
        f"{name}: not a table of a known format: give it one of the suffixes {_FORMATS}"
    )


def read_table(table: Table, number: int) -> tuple[pl.DataFrame, frozenset[str], str]:
    """One file in canonical types.

    Args:
        table: the file.
        number: its position among the inputs, kept in column ``_file``.

    Returns:
        The rows (with ``_file`` and ``_row``), the canonical columns the file has, and the
        SHA-256 of its bytes.

    Raises:
        UserError: the file is damaged or lacks a required column.
    """
    try:
        with table.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        empty = table.path.stat().st_size == 0
    except OSError as error:
        raise UserError(
            f"{table.name}: cannot be read ({error.strerror}): check its permissions"
        ) from error
    if empty:
        raise UserError(f"{table.name}: the file is empty: write the completions again")
    reader = {"parquet": _read_parquet, "jsonl": _read_jsonl, "csv": _read_csv}[table.format]
    raw = reader(table)
    frame, columns = canonical(raw, file=table.name, number=number)
    if table.format == "csv":
        frame = _empty_csv_fields(frame)
    return frame, columns, digest


def canonical(raw: pl.DataFrame, *, file: str, number: int) -> tuple[pl.DataFrame, frozenset[str]]:
    """``raw`` in canonical names and types, and the canonical columns it has.

    Raises:
        UserError: a required column is missing or a value has the wrong type.
    """
    names = source_columns(raw.columns, file=file)
    known = raw.select(pl.col(source).alias(name) for name, source in names.items())
    known = known.with_row_index(ROW).with_columns(pl.lit(number, dtype=pl.UInt32).alias(FILE))
    present = frozenset(name for name in names if known[name].null_count() < known.height)
    return convert(known, file=file), present


def _known(lazy: pl.LazyFrame, table: Table) -> pl.DataFrame:
    available = lazy.collect_schema().names()
    names = source_columns(available, file=table.name)
    return lazy.select(list(dict.fromkeys(names.values()))).collect()


def _read_parquet(table: Table) -> pl.DataFrame:
    try:
        return _known(pl.scan_parquet(table.path, glob=False), table)
    except _POLARS_ERRORS as error:
        raise UserError(
            f"{table.name}: not a whole Parquet file (truncated or damaged: {_first_line(error)}): "
            "copy or write it again"
        ) from error


def _read_csv(table: Table) -> pl.DataFrame:
    """All fields as text; conversion is ours, so that errors can name the row."""
    separator = _separator(table)
    try:
        lazy = pl.scan_csv(
            table.path, separator=separator, infer_schema=False, glob=False, raise_if_empty=True
        )
        return _known(lazy, table)
    except _POLARS_ERRORS as error:
        _check_utf8(table)
        _check_csv_fields(table, separator)
        raise UserError(
            f"{table.name}: not readable as CSV ({_first_line(error)}): check quotes and separators"
        ) from error


def _separator(table: Table) -> str:
    """The separator that the header uses most: comma, tab or semicolon."""
    with table.path.open("rb") as file:
        header = file.readline(1 << 20)
    return max((",", "\t", ";"), key=lambda mark: header.count(mark.encode()))


def _check_csv_fields(table: Table, separator: str) -> None:
    csv.field_size_limit(1 << 30)
    with table.path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter=separator, strict=True)
        row, width = -2, 0
        try:
            for row, fields in enumerate(lines, start=-1):
                width = width or len(fields)
                if len(fields) > width:
                    raise UserError(
                        f"{table.name}: row {row} (line {lines.line_num}) has {len(fields)} fields "
                        f"where the header has {width}: put quotes around text that holds "
                        "separators"
                    )
        except csv.Error as error:
            raise UserError(
                f"{table.name}: row {row + 1} (line {lines.line_num}): {error}: check the quotes"
            ) from error


def _empty_csv_fields(frame: pl.DataFrame) -> pl.DataFrame:
    """An empty CSV field of a row marked ``extracted`` is an empty explanation.

    CSV has no null; most writers leave the field of an empty text bare.
    """
    bare = pl.col("explanation").is_null() & pl.col("extracted").fill_null(False)
    return frame.with_columns(
        pl.when(bare).then(pl.lit("")).otherwise(pl.col("explanation")).alias("explanation")
    )


def _read_jsonl(table: Table) -> pl.DataFrame:
    try:
        # The types are inferred over the whole file: a key may first appear on its last line.
        return _known(pl.scan_ndjson(table.path, infer_schema_length=None), table)
    except _POLARS_ERRORS:
        _check_utf8(table)
        return _read_jsonl_slowly(table)


def _read_jsonl_slowly(table: Table) -> pl.DataFrame:
    """Line by line with Python's parser, which accepts the ``NaN`` that Python writes."""
    frames = []
    rows: list[dict[str, Any]] = []
    for row in _json_rows(table):
        rows.append(row)
        if len(rows) == _SLOW_CHUNK:
            frames.append(pl.from_dicts(rows, infer_schema_length=None, strict=False))
            rows = []
    if rows:
        frames.append(pl.from_dicts(rows, infer_schema_length=None, strict=False))
    if not frames:
        raise UserError(f"{table.name}: the file has no rows: write the completions again")
    return pl.concat(frames, how="diagonal_relaxed")


def _json_rows(table: Table) -> Iterator[dict[str, Any]]:
    wanted = {*INPUT_COLUMNS, *ALIASES}
    row = 0
    with table.path.open(encoding="utf-8-sig") as file:
        for line_number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{table.name}: row {row} (line {line_number})"
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{where} is not JSON ({error.msg} at character {error.colno}): correct or "
                    "remove the line"
                ) from error
            except RecursionError as error:
                raise UserError(f"{where} is nested too deeply: remove the line") from error
            if not isinstance(value, dict):
                raise UserError(f"{where} is not a JSON object: write one object per line")
            yield {key: item for key, item in value.items() if key in wanted}
            row += 1


def _check_utf8(table: Table) -> None:
    with table.path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{table.name}: line {number}, byte {error.start + 1} is not UTF-8 "
                    f"(0x{line[error.start]:02x}): save the file as UTF-8"
                ) from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
