"""Reading tables: Parquet, JSON and CSV; a file, several, a folder, a stream, the Hub.

:func:`read_table` reads completions, :func:`read_frame` a table of any columns. Where a fast reader
fails, the file is read again line by line to say which line is at fault.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from nla_audit.errors import UserError
from nla_audit.table.activation_sample import ActivationSample, scanned, unreadable
from nla_audit.table.json_rows import read_json_array, read_json_lines
from nla_audit.table.schema import (
    FILE,
    ROW,
    column_key,
    convert,
    forbid_doubled,
    is_known,
    json_kind,
    source_columns,
)
from nla_audit.table.sources import SUFFIXES, InputTable, Opened, find_tables, keep_piped, opened
from nla_audit.wording import count

__all__ = [
    "SUFFIXES",
    "InputTable",
    "Read",
    "canonical",
    "find_tables",
    "read_frame",
    "read_table",
    "read_whole",
]

#: What polars raises on a damaged file; a panic in its Rust code is no ``Exception``.
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)

#: Rows written out at once to be hashed.
_HASHED_ROWS = 50_000

#: The columns there are → those to read.
_Choose = Callable[[list[str]], Sequence[str]]


@dataclass(frozen=True)
class Read:
    """One table of completions as it was read.

    Attributes:
        frame: canonical columns and types, with ``_file`` and ``_row``.
        columns: canonical columns for which the input held a value.
        sha256: of the input's bytes; in object storage, of the rows read as JSON lines.
        notes: what was understood rather than read, as sentences.
    """

    frame: pl.DataFrame
    columns: frozenset[str]
    sha256: str
    notes: tuple[str, ...]


def read_table(
    table: InputTable,
    number: int,
    *,
    sample: ActivationSample | None = None,
    storage_options: Mapping[str, str] | None = None,
) -> Read:
    """One table of completions in canonical types.

    A table without a column ``model`` is one model's, and is called like its file.

    Args:
        table: the file.
        number: its position among the inputs, kept in column ``_file``.
        sample: the activations to read, of a Parquet table; all where it is ``None``.
        storage_options: as of :func:`polars.scan_parquet`, for object storage.

    Raises:
        UserError: the file is damaged, lacks a required column or holds a value that its column
            cannot.
    """

    def choose(available: list[str]) -> list[str]:
        found = source_columns(
            [*available, *table.partitions], file=table.name, named_after_file=True
        )
        return [name for name in dict.fromkeys(found.values()) if name in available]

    is_csv = False
    if table.is_cloud:
        raw = _scanned(table, scanned(table, storage_options), choose, sample)
        digest = _digest_of_rows(raw)
    else:
        with opened(table) as source:
            if sample is None:
                raw = _raw(table, source, choose, is_known, json_kind)
            else:
                raw = _scanned(table, scanned(replace(table, path=source.path)), choose, sample)
            is_csv = source.format == "csv"
        raw, digest = _with_partitions(raw, table), source.sha256
    found = source_columns(raw.columns, file=table.name, named_after_file=True)
    notes = []
    if "model" not in found:
        raw = raw.with_columns(pl.lit(table.stem).alias("model"))
        notes.append(f'{table.name} has no column "model": its rows are taken as "{table.stem}".')
    frame, columns, unlike = canonical(raw, file=table.name, number=number)
    if is_csv:
        frame = _empty_csv_fields(frame)
    return Read(frame, columns, digest, (*notes, *unlike))


def canonical(
    raw: pl.DataFrame, *, file: str, number: int
) -> tuple[pl.DataFrame, frozenset[str], tuple[str, ...]]:
    """``raw`` in canonical names and types, the canonical columns it has, and notes.

    Raises:
        UserError: a required column is missing or a value has the wrong type.
    """
    names = source_columns(raw.columns, file=file)
    known = raw.select(pl.col(source).alias(name) for name, source in names.items())
    known = known.with_columns(raw[ROW]) if ROW in raw.columns else known.with_row_index(ROW)
    known = known.with_columns(pl.lit(number, dtype=pl.UInt32).alias(FILE))
    frame, notes = convert(known, file=file)
    present = frozenset(name for name in names if frame[name].null_count() < frame.height)
    return frame, present, notes


def read_frame(path: str | Path, *, lower_case: bool = False) -> pl.DataFrame:
    """All columns of the table or tables at ``path``, whatever they are; CSV fields are text.

    Args:
        path: as for :func:`nla_audit.table.completions.load`.
        lower_case: write column names in lower case without white space around them.

    Raises:
        UserError: it cannot be read, or its files do not fit together.
    """
    tables = find_tables([path])
    return joined([read_whole(table, lower_case=lower_case)[0] for table in tables], path)


def joined(frames: Sequence[pl.DataFrame], path: str | Path) -> pl.DataFrame:
    """The tables at ``path`` as one.

    Raises:
        UserError: they do not fit together.
    """
    try:
        return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
    except POLARS_ERRORS as error:
        raise UserError(
            f"{path}: its files do not hold the same columns ({first_line(error)}): give them one "
            "by one"
        ) from error


def column_names(paths: Sequence[str | Path]) -> list[list[str]]:
    """The columns of each table; none where that cannot be told without reading it.

    Whoever reads the table says what is wrong with it. What is piped in can be read again.

    Raises:
        UserError: there is no such file or folder; what is piped in is no table.
    """
    names: list[list[str]] = []
    for table in find_tables(paths):
        found: list[str] = []
        keep_piped(table)
        if table.path.is_file():
            try:
                with opened(table) as source:
                    found = _columns_of(table, source)
            except (UserError, csv.Error, *POLARS_ERRORS):
                found = []
        names.append([*found, *table.partitions])
    return names


def _columns_of(table: InputTable, source: Opened) -> list[str]:
    if source.format == "parquet":
        return list(pl.read_parquet_schema(source.path))
    if source.format == "csv":
        with source.path.open(encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file, delimiter=_separator(source.path)), [])
    return _everything(table, source).columns


def read_whole(table: InputTable, *, lower_case: bool = False) -> tuple[pl.DataFrame, str]:
    """All columns of one table, whatever they are, and the SHA-256 of its bytes.

    Args and errors as for :func:`read_frame`.
    """
    with opened(table) as source:
        raw = _everything(table, source)
    raw = _with_partitions(raw, table)
    if lower_case:
        forbid_doubled(raw.columns, file=table.name)
        raw = raw.rename({name: column_key(name) for name in raw.columns})
    return _lists(raw), source.sha256


def _lists(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists of a fixed size as lists: they say the same, and writers differ in what they use."""
    fixed = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Array)]
    return frame.with_columns(pl.col(name).arr.to_list() for name in fixed)


def _with_partitions(frame: pl.DataFrame, table: InputTable) -> pl.DataFrame:
    """``frame`` with the columns that the folders above the file say, where it has none such."""
    own = {column_key(name) for name in frame.columns}
    return frame.with_columns(
        pl.lit(value, dtype=pl.String).alias(name)
        for name, value in table.partitions.items()
        if column_key(name) not in own
    )


def _everything(table: InputTable, source: Opened) -> pl.DataFrame:
    """All columns as they are, whatever they hold."""
    return _raw(table, source, list, lambda name: True, lambda name: "any")


def _raw(
    table: InputTable,
    source: Opened,
    choose: _Choose,
    keep: Callable[[str], bool],
    kind: Callable[[str], str],
) -> pl.DataFrame:
    if source.format == "parquet":
        return _read_parquet(table, source.path, choose)
    if source.format == "csv":
        return _read_csv(table, source.path, choose)
    read = read_json_array if source.format == "json" else read_json_lines
    try:
        return read(source.path, table.name, keep=keep, kind=kind)
    except UnicodeDecodeError:
        _check_utf8(table, source.path)
        raise


def _chosen(lazy: pl.LazyFrame, choose: _Choose) -> pl.DataFrame:
    return lazy.select(choose(lazy.collect_schema().names())).collect()


def _scanned(
    table: InputTable, lazy: pl.LazyFrame, choose: _Choose, sample: ActivationSample | None
) -> pl.DataFrame:
    """The chosen columns, and the number of each row, of the chosen activations."""
    try:
        columns = choose([name for name in lazy.collect_schema().names() if name != ROW])
        if sample is not None:
            idx = source_columns(list(columns), file=table.name, named_after_file=True)["idx"]
            lazy = lazy.filter(sample.keeps(idx))
        return lazy.select(ROW, *columns).collect(engine="streaming")
    except POLARS_ERRORS as error:
        raise unreadable(table, error) from error


def _digest_of_rows(frame: pl.DataFrame) -> str:
    """What stands for the hash of a file that is not here: that of the rows read of it."""
    digest = hashlib.sha256()
    for piece in frame.iter_slices(_HASHED_ROWS):
        digest.update(piece.write_ndjson().encode())
    return digest.hexdigest()


def _read_parquet(table: InputTable, path: Path, choose: _Choose) -> pl.DataFrame:
    try:
        return _chosen(pl.scan_parquet(path, glob=False, hive_partitioning=False), choose)
    except pl.exceptions.DuplicateError as error:
        raise UserError(
            f"{table.name}: a column occurs twice ({first_line(error)}): remove one of them"
        ) from error
    except POLARS_ERRORS as error:
        raise UserError(
            f"{table.name}: not a whole Parquet file (truncated or damaged: {first_line(error)}): "
            "copy or write it again"
        ) from error


def _read_csv(table: InputTable, path: Path, choose: _Choose) -> pl.DataFrame:
    """All fields as text; conversion is ours, so that errors can name the row."""
    separator = _separator(path)
    try:
        header, rows = _check_csv(table, path, separator)
    except UnicodeDecodeError:
        _check_utf8(table, path)
        raise
    forbid_doubled(header, file=table.name)
    try:
        lazy = pl.scan_csv(
            path, separator=separator, infer_schema=False, glob=False, raise_if_empty=True
        )
        frame = _chosen(lazy, choose)
    except POLARS_ERRORS as error:
        raise UserError(
            f"{table.name}: not readable as CSV ({first_line(error)}): check quotes and separators"
        ) from error
    if frame.height != rows:
        raise UserError(
            f"{table.name}: {rows} or {frame.height} rows, depending on how its quotes are read: "
            "put quotes around text, and double those within it"
        )
    return frame


def _separator(path: Path) -> str:
    """The separator that the header uses most: comma, tab or semicolon."""
    with path.open("rb") as file:
        header = file.readline(1 << 20)
    return max((",", "\t", ";"), key=lambda mark: header.count(mark.encode()))


def _check_csv(table: InputTable, path: Path, separator: str) -> tuple[list[str], int]:
    """The header and the number of rows of a CSV of which every row is as wide as the header.

    A row with too few fields is as wrong as one with too many: what is missing was lost from
    somewhere, and polars would take it from the end.
    """
    csv.field_size_limit(1 << 30)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter=separator, strict=True)
        header: list[str] = []
        row = -1
        try:
            for fields in lines:
                if not fields:  # an empty line
                    continue
                if not header:
                    header = fields
                    continue
                row += 1
                if len(fields) != len(header):
                    raise UserError(
                        f"{table.name}: row {row} (line {lines.line_num}) has "
                        f"{count(len(fields), 'field')} where the header has "
                        f"{len(header)}: put quotes around text that holds separators or line "
                        "breaks"
                    )
        except csv.Error as error:
            raise UserError(
                f"{table.name}: row {row + 1} (line {lines.line_num}): {error}: check the quotes"
            ) from error
    return header, row + 1


def _empty_csv_fields(frame: pl.DataFrame) -> pl.DataFrame:
    """An empty CSV field of a row marked ``extracted`` is an empty explanation.

    CSV has no null; most writers leave the field of an empty text bare.
    """
    bare = pl.col("explanation").is_null() & pl.col("extracted").fill_null(False)
    return frame.with_columns(
        pl.when(bare).then(pl.lit("")).otherwise(pl.col("explanation")).alias("explanation")
    )


def _check_utf8(table: InputTable, path: Path) -> None:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{table.name}: line {number}, byte {error.start + 1} is not UTF-8 "
                    f"(0x{line[error.start]:02x}): save the file as UTF-8"
                ) from error


def first_line(error: BaseException) -> str:
    """The first line of what a library says of an error, cut to a length that fits into ours."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
