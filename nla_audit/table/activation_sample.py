"""Tables that need not fit into memory: scanned lazily, and read for some activations only.

All rows of a chosen activation are read, whatever model wrote them and whichever file holds them,
so that comparisons stay paired. Which activations are chosen depends on their ids and the seed
alone: the same in any order of rows and files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nla_audit.errors import UserError, first_line
from nla_audit.table.schema import ROW, is_known, source_columns
from nla_audit.table.sources import InputTable
from nla_audit.wording import count

#: Bytes that reading, checking and analysing a table takes for each byte of its rows in memory;
#: measured on planted tables: see tests/table/test_activation_sample.py.
COPIES = 5
#: Of the free memory, which others want as well.
_SHARE = 0.5
#: Parquet is seldom packed more tightly: below this much of the free memory on disk a table is not
#: looked at before it is read.
_TIGHTEST = 1 / 40
#: Rows, and tables, by which the size of the others is judged.
_TRIED_ROWS, _TRIED_TABLES = 2000, 8
#: Ids are told apart by so many bytes of their hashes.
_DIGEST = 8
_DIGESTED_AT_ONCE = 1 << 18
#: What polars raises on a table that it cannot scan.
_POLARS_SCAN_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


@dataclass(frozen=True)
class ActivationSample:
    """Which activations of some tables are read.

    Attributes:
        idx: their ids as text.
        note: how much that is of how much, and why, in one sentence.
    """

    idx: pl.Series
    note: str

    def keeps(self, column: str) -> pl.Expr:
        """Whether a row is read. One without an id is, for the check that refuses it."""
        key = _as_text(pl.col(column))
        return key.is_in(self.idx.implode()) | key.is_null()


def scanned(table: InputTable, storage_options: Mapping[str, str] | None = None) -> pl.LazyFrame:
    """A Parquet table, here or in object storage, with the number of each row in ``_row``."""
    cloud: dict[str, Any] = {"storage_options": dict(storage_options)} if storage_options else {}
    where = table.name if table.is_cloud else table.path
    own: dict[str, Any] = {"glob": table.is_cloud, "hive_partitioning": table.is_cloud, **cloud}
    numbered = pl.scan_parquet(where, row_index_name=ROW, **own)
    try:
        numbered.collect_schema()
    except pl.exceptions.DuplicateError:  # the table has a column of that name, which is not ours
        return pl.scan_parquet(where, **own).drop(ROW).with_row_index(ROW)
    except _POLARS_SCAN_ERRORS:
        return numbered  # whoever reads it says what is wrong with it
    return numbered


def choose_activations(
    tables: Sequence[InputTable],
    *,
    at_most: int | None,
    seed: int,
    storage_options: Mapping[str, str] | None = None,
) -> ActivationSample | None:
    """The activations to read where there are more than ``at_most``; ``None``: read all.

    Without ``at_most`` there are too many where all would take more than half of the free memory.

    Args:
        tables: from :func:`nla_audit.table.sources.find_tables`.
        at_most: how many, at most.
        seed: of the choice.
        storage_options: as of :func:`polars.scan_parquet`.

    Raises:
        UserError: ``at_most`` is asked of a table that is no Parquet file, or one cannot be read.
    """
    if at_most is None and (not all(map(_is_parquet, tables)) or _is_small(tables)):
        return None
    whole = [_scan_of(table, storage_options) for table in tables]
    rows = sum(scan.rows() for scan in whole)
    needed, free = 0.0, free_memory()
    if at_most is None:
        needed = rows * _bytes_of_a_row(whole) * COPIES
        if needed <= free * _SHARE:
            return None
    ids = _all_ids(whole)
    if at_most is None:
        at_most = max(1, int(len(ids) * free * _SHARE / needed))
        why = (
            f"all would take about {_gigabytes(needed)} of memory, of which "
            f"{_gigabytes(free)} are free (choose with --at-most-activations)"
        )
    else:
        why = f"at most {at_most:,} were asked for"
    if len(ids) <= at_most:
        return None
    chosen = ids.gather(np.argpartition(_digests(ids, seed), at_most - 1)[:at_most]).sort()
    note = (
        f"Only {at_most:,} of {count(len(ids), 'activation')} in {count(rows, 'row')} were "
        f"read, drawn with seed {seed}: {why}."
    )
    return ActivationSample(chosen, note)


@dataclass(frozen=True)
class _Scan:
    """A table that is scanned, the columns to read of it, and which of them is ``idx``."""

    lazy: pl.LazyFrame
    columns: list[str]
    idx: str

    def rows(self) -> int:
        return int(self.lazy.select(pl.len()).collect().item())

    def ids(self) -> pl.Series:
        key = _as_text(pl.col(self.idx)).alias("idx")
        frame = self.lazy.select(key).unique().collect(engine="streaming")
        return frame["idx"].drop_nulls()


def _is_parquet(table: InputTable) -> bool:
    return table.is_cloud or (table.path.suffix.lower() == ".parquet" and table.path.is_file())


def _scan_of(table: InputTable, storage_options: Mapping[str, str] | None) -> _Scan:
    if not _is_parquet(table):
        raise UserError(
            f"{table.name}: activations can be chosen in Parquet files only: write it as Parquet, "
            "or leave out --at-most-activations"
        )
    lazy = scanned(table, storage_options)
    try:
        names = lazy.collect_schema().names()
    except _POLARS_SCAN_ERRORS as error:
        raise unreadable(table, error) from None
    found = source_columns([*names, *table.partitions], file=table.name, named_after_file=True)
    if found["idx"] not in names:
        raise UserError(
            f"{table.name}: its folder names the activation, of which none can be chosen then: "
            "leave out --at-most-activations"
        )
    return _Scan(lazy, [name for name in names if is_known(name)], found["idx"])


def unreadable(table: InputTable, error: BaseException) -> UserError:
    """What is wrong with a table that polars cannot scan."""
    hint = (
        "check the address, and the endpoint and credentials in the environment (AWS_ENDPOINT_URL, "
        "AWS_ACCESS_KEY_ID and the like)"
        if table.is_cloud
        else "copy or write it again"
    )
    return UserError(f"{table.name}: cannot be read as Parquet ({first_line(error)}): {hint}")


def _is_small(tables: Sequence[InputTable]) -> bool:
    if any(table.is_cloud for table in tables):
        return False
    return sum(table.path.stat().st_size for table in tables) < free_memory() * _TIGHTEST * _SHARE


def _bytes_of_a_row(scans: Sequence[_Scan]) -> float:
    """What the columns that are read take in memory, judged by the first rows of some tables."""
    step = max(1, len(scans) // _TRIED_TABLES)
    tried = [scan.lazy.select(scan.columns).head(_TRIED_ROWS).collect() for scan in scans[::step]]
    height = sum(frame.height for frame in tried)
    return sum(frame.estimated_size() for frame in tried) / max(height, 1)


def _all_ids(scans: Sequence[_Scan]) -> pl.Series:
    """The distinct ids of all tables as text; these fit into memory, where rows may not."""
    ids = pl.Series("idx", [], dtype=pl.String)
    for scan in scans:
        ids = pl.concat([ids, scan.ids()]).unique()
    return ids


def _as_text(column: pl.Expr) -> pl.Expr:
    """An id as text, equal for numbers and for text that says them, as the door takes them."""
    text = column.cast(pl.String).str.strip_chars()
    # Whole numbers that were written as floats, as pandas writes integers with gaps.
    return text.str.replace(r"^(-?\d+)\.0$", "$1")


def _digests(ids: pl.Series, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A random number for each id, from the id and the seed."""
    found = np.empty(len(ids), dtype=np.uint64)
    salt = seed.to_bytes(16, "big", signed=True)
    for start in range(0, len(ids), _DIGESTED_AT_ONCE):
        part = ids.slice(start, _DIGESTED_AT_ONCE).to_list()
        joined = b"".join(
            hashlib.blake2b(one.encode(), digest_size=_DIGEST, salt=salt).digest() for one in part
        )
        found[start : start + len(part)] = np.frombuffer(joined, dtype=">u8")
    return found


def free_memory() -> float:
    """Bytes that can be had without swapping, as far as the system says."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
