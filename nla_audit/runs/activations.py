"""Read a table of activations: the vectors, and the keys that completions carry on.

The columns are those of the training Parquets that nanoNLA publishes (docs/formats.md): raw
vectors in ``activation_vector``, ``doc_id``, ``activation_layer``, ``n_raw_tokens`` and
``detokenized_text_truncated``; ``idx``, ``position`` and ``source_text`` go before the latter
two where a table has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.checkpoint.read_transform import Norm, norm_of_table
from nla_audit.errors import UserError
from nla_audit.nla.fve import unusable
from nla_audit.table.readers import POLARS_ERRORS, first_line
from nla_audit.table.schema import ROW, column_key, forbid_doubled, shown, typed, without_blanks
from nla_audit.table.sources import InputTable, find_tables, opened
from nla_audit.unicode_form import composed_column
from nla_audit.wording import count

VECTOR_COLUMN = "activation_vector"
LAYER_COLUMN = "activation_layer"

#: Rows converted at once: lists of float64 take several times the room of the array they become.
_CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Activations:
    """``n`` activations in the order of their file.

    Attributes:
        keys: ``idx`` (Int64 or String; the row's number where the table has none), ``doc_id``
            (String), ``position`` (Int64, 0-based place of the token in its document),
            ``source_text`` (String, ends at that token); the last three null where unknown.
        vectors: ``[n, d_model]`` float32, raw unless ``norm`` says otherwise.
        problems: row → why it cannot be explained or scored (zero vector, not finite).
        layer: the layer K they were taken from, where the table says so.
        norm: the transform they went through, where a sidecar beside the table says so.
        path: the file.
        sha256: of the file's bytes.
    """

    keys: pl.DataFrame
    vectors: npt.NDArray[np.float32]
    problems: dict[int, str]
    layer: int | None
    path: str
    sha256: str
    norm: Norm = field(default_factory=Norm)

    def usable_rows(self) -> list[int]:
        """The rows without a problem, in order."""
        return [row for row in range(len(self.vectors)) if row not in self.problems]

    def describe_problems(self, limit: int = 5) -> str | None:
        """One sentence that names the first unusable rows, ``None`` if there are none."""
        if not self.problems:
            return None
        idx = self.keys["idx"]
        named = [
            f"row {row} (idx {shown(idx[row])}): {reason}"
            for row, reason in list(self.problems.items())[:limit]
        ]
        more = len(self.problems) - len(named)
        return (
            f"{self.path}: {count(len(self.problems), 'activation')} left out: "
            + "; ".join(named)
            + (f"; and {more:,} more" if more else "")
        )


def read_activations(path: str | Path) -> Activations:
    """Read a table of activations: a Parquet file, packed or not, or a folder of such files.

    Names of columns may be in any case. An ``idx`` beyond 64 bits with a sign is kept as text.

    Raises:
        UserError: no such file, not Parquet, no rows, no column of vectors, vectors of different
            widths, a key of another type, repeated ``idx``, or activations of several layers.
    """
    with ExitStack() as stack:
        parts, digests = [], []
        for table in find_tables([path]):
            source = stack.enter_context(opened(table))
            if source.format != "parquet":
                raise UserError(f"{table.name}: not a Parquet file: write the activations as one")
            parts.append((table, source.path))
            digests.append(source.sha256)
        try:
            lazies = [_scanned(table, file) for table, file in parts]
            lazy = lazies[0] if len(lazies) == 1 else pl.concat(lazies, how="diagonal_relaxed")
            schema = lazy.collect_schema()
            _check_vector_column(schema, str(path))
            keys = _keys(lazy, schema, str(path))
            vectors = _vectors(lazy, keys.height, schema[VECTOR_COLUMN], str(path))
            layer = _layer(lazy, schema, str(path))
        except POLARS_ERRORS as error:
            raise UserError(
                f"{path}: not a whole Parquet file ({first_line(error)}): write it again"
            ) from None
    _check_unique(keys, str(path))
    problems = {row: reason for row, reason in enumerate(unusable(vectors)) if reason is not None}
    norm = norm_of_table(Path(path))
    return Activations(keys, vectors, problems, layer, str(path), _digest(digests), norm)


def _digest(digests: Sequence[str]) -> str:
    """That of one file, or of the digests of several."""
    return (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def _scanned(table: InputTable, file: Path) -> pl.LazyFrame:
    """One file with column names in lower case, and what its folders say."""
    lazy = pl.scan_parquet(file, glob=False, hive_partitioning=False)
    names = lazy.collect_schema().names()
    forbid_doubled(names, file=table.name)
    lazy = lazy.rename({name: column_key(name) for name in names})
    own = {column_key(name) for name in names}
    return lazy.with_columns(
        pl.lit(value, dtype=pl.String).alias(column_key(name))
        for name, value in table.partitions.items()
        if column_key(name) not in own
    )


def _check_vector_column(schema: pl.Schema, path: str) -> None:
    if VECTOR_COLUMN not in schema:
        names = schema.names()
        near = get_close_matches(VECTOR_COLUMN, names, n=1, cutoff=0.5)
        hint = (
            f'rename "{near[0]}" to "{VECTOR_COLUMN}"'
            if near
            else f"the columns there are: {', '.join(names[:12]) or 'none'}"
        )
        raise UserError(f'{path}: column "{VECTOR_COLUMN}" is missing: {hint}')
    dtype = schema[VECTOR_COLUMN]
    inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else None
    if inner is None or not inner.is_numeric():
        raise UserError(
            f'{path}: column "{VECTOR_COLUMN}" holds {dtype}: write a list of numbers in each row'
        )


def _keys(lazy: pl.LazyFrame, schema: pl.Schema, path: str) -> pl.DataFrame:
    """The columns that identify a row, under their usual names."""
    position = next((name for name in ("position", "n_raw_tokens") if name in schema), None)
    text = next((n for n in ("source_text", "detokenized_text_truncated") if n in schema), None)
    names = [name for name in ("idx", "doc_id", position, text) if name and name in schema]
    for name in names:
        _forbid_compound(schema[name], name, path)
    frame = lazy.select(pl.int_range(pl.len()).alias(ROW), *names).collect()
    rows = frame.height
    keys = {
        "idx": _idx(_as_text(frame["idx"], path))
        if "idx" in schema
        else pl.int_range(rows, dtype=pl.Int64, eager=True),
        "doc_id": pl.Series([None], dtype=pl.String).new_from_index(0, rows),
        "position": pl.Series([None], dtype=pl.Int64).new_from_index(0, rows),
        "source_text": pl.Series([None], dtype=pl.String).new_from_index(0, rows),
    }
    if "doc_id" in schema:
        named = frame.with_columns(_as_text(frame["doc_id"], path))
        keys["doc_id"] = composed_column(typed(named, "doc_id", pl.String(), file=path))
    if position is not None:
        place = typed(frame, position, pl.Int64(), file=path)
        keys["position"] = place if position == "position" else place - 1
    if text is not None:
        keys["source_text"] = composed_column(_as_text(frame[text], path).cast(pl.String))
    return pl.DataFrame({name: column.alias(name) for name, column in keys.items()})


def _forbid_compound(dtype: pl.DataType, name: str, path: str) -> None:
    """Raise where a key is several values at once, or none that could be written down."""
    if dtype.is_nested() or dtype == pl.Object or isinstance(dtype, pl.Duration):
        raise UserError(f'{path}: column "{name}" holds {dtype}: write text or numbers there')


def _as_text(column: pl.Series, path: str) -> pl.Series:
    """Bytes, dates and times as the text that they are; other columns as they are."""
    if column.dtype == pl.Binary:
        return pl.Series(column.name, _decoded(column, path), dtype=pl.String)
    return column.cast(pl.String) if column.dtype.is_temporal() else column


def _decoded(column: pl.Series, path: str) -> Iterator[str | None]:
    """Text that a writer did not mark as such."""
    for row, value in enumerate(column):
        try:
            yield None if value is None else value.decode()
        except UnicodeDecodeError:
            raise UserError(
                f'{path}: row {row}: column "{column.name}" holds bytes that are no UTF-8 text: '
                "write text there"
            ) from None


def _idx(column: pl.Series) -> pl.Series:
    """Whole numbers where they fit into 64 bits with a sign, else text, as in completions."""
    if column.dtype.is_float() and (column == column.floor()).fill_null(True).all():
        column = column.cast(pl.Int64, strict=False)  # integers with gaps, as pandas writes them
    if column.dtype.is_integer():
        whole = column.cast(pl.Int64, strict=False)
        if whole.null_count() == column.null_count():
            return whole
    return composed_column(without_blanks(column.cast(pl.String)))


def _vectors(
    lazy: pl.LazyFrame, rows: int, dtype: pl.DataType, path: str
) -> npt.NDArray[np.float32]:
    """``[rows, d_model]``; a missing vector becomes NaN, which is reported like any other NaN."""
    if rows == 0:
        raise UserError(f"{path}: the table has no rows: extract activations again")
    as_list = pl.col(VECTOR_COLUMN)
    if isinstance(dtype, pl.Array):
        as_list = as_list.arr.to_list()
    out: npt.NDArray[np.float32] | None = None
    for start in range(0, rows, _CHUNK_ROWS):
        column = (
            lazy.select(as_list.cast(pl.List(pl.Float32), strict=False))
            .slice(start, _CHUNK_ROWS)
            .collect()
            .to_series()
        )
        lengths = column.list.len()
        if out is None:
            first = lengths.is_not_null().arg_max()
            if first is None or lengths[first] is None:
                continue
            if lengths[first] == 0:
                raise UserError(
                    f"{path}: row {start + first} holds no vector: extract activations again"
                )
            out = np.full((rows, lengths[first]), np.nan, dtype=np.float32)
        _check_widths(lengths, out.shape[1], start, path)
        present = column.is_not_null().to_numpy()
        values = column.drop_nulls().explode().to_numpy().astype(np.float32, copy=False)
        out[start : start + len(column)][present] = values.reshape(-1, out.shape[1])
    if out is None:
        raise UserError(f"{path}: no row holds a vector: extract activations again")
    return out


def _check_widths(lengths: pl.Series, width: int, start: int, path: str) -> None:
    wrong = (lengths != width).fill_null(False)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise UserError(
            f"{path}: row {start + row} holds {lengths[row]} numbers where others hold {width}: "
            "extract the activations of one model and layer only"
        )


def _layer(lazy: pl.LazyFrame, schema: pl.Schema, path: str) -> int | None:
    if LAYER_COLUMN not in schema:
        return None
    _forbid_compound(schema[LAYER_COLUMN], LAYER_COLUMN, path)
    frame = lazy.select(pl.int_range(pl.len()).alias(ROW), LAYER_COLUMN).collect()
    layers = typed(frame, LAYER_COLUMN, pl.Int64(), file=path).drop_nulls().unique().sort()
    if len(layers) > 1:
        raise UserError(
            f'{path}: column "{LAYER_COLUMN}" names several layers '
            f"({', '.join(map(str, layers.head(5).to_list()))}): keep the rows of one"
        )
    return int(layers[0]) if len(layers) else None


def _check_unique(keys: pl.DataFrame, path: str) -> None:
    missing = keys["idx"].is_null()
    if missing.any():
        raise UserError(f'{path}: row {missing.arg_max()}: column "idx" is empty: number it')
    repeated = ~keys["idx"].is_first_distinct()
    if repeated.any():
        row = int(repeated.arg_max() or 0)
        raise UserError(
            f'{path}: row {row}: column "idx" repeats {shown(keys["idx"][row])}: '
            "give each activation its own"
        )


def rows_by_idx(activations: Activations, idx: Sequence[object]) -> list[int | None]:
    """The row of each of ``idx`` in ``activations``, ``None`` where it has none.

    Compared as text: one table may hold numbers where another holds the same numbers as text.
    """
    places = {str(value).strip(): row for row, value in enumerate(activations.keys["idx"])}
    return [places.get(str(value).strip()) for value in idx]


def rows_explained(activations: Activations, idx: Sequence[object], texts: str) -> list[int | None]:
    """:func:`rows_by_idx` of explanations, of which at least one must have its activation.

    Args:
        texts: the table of the explanations, for the message.

    Raises:
        UserError: none has.
    """
    places = rows_by_idx(activations, idx)
    if all(place is None for place in places):
        raise UserError(
            f"{activations.path}: none of its idx is among those of {texts}: give the activations "
            "that these texts explain"
        )
    return places
