"""The table on which everything hangs: one row is one explanation of one activation by one model.

Tables are read and validated here, once, at the door; behind it every analyzer may rely on the
canonical schema of :attr:`Completions.rows`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from nla_audit.errors import UserError
from nla_audit.table.activation_sample import choose_activations
from nla_audit.table.baseline import Baseline
from nla_audit.table.door import check_model
from nla_audit.table.model_names import default_reference
from nla_audit.table.readers import canonical, find_tables, read_table
from nla_audit.table.schema import REQUIRED
from nla_audit.table.validation import Checked, check

__all__ = ["REQUIRED", "Completions", "SourceFile", "from_frame", "load"]

#: Columns that are worked out where the input lacks them, so that having a value is having them.
_DERIVED = frozenset({"length_penalty", "content_tokens", "fixed_tokens"})
#: Rows per piece of JSON when a frame in memory is hashed.
_HASH_ROWS = 50_000


@dataclass(frozen=True)
class SourceFile:
    """One input file: its path or address, the SHA-256 of its bytes, the number of rows read.

    In object storage the hash is that of the rows read, as JSON lines.
    """

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True, eq=False)
class Completions:
    """A validated table of completions.

    Attributes:
        rows: one explanation a row, sorted by activation, model (in the order of ``models``) and
            sample. All of these columns are always there, null where the input lacks them:
            ``model``, ``length_penalty`` (null: no RL, or unknown), ``idx`` (Int64), ``sample``
            (0 where absent), ``ar``, ``doc_id``, ``position``, ``step``, ``source_text``,
            ``explanation`` (stripped, as the reconstructor reads it; ``""`` is empty, null is
            failed), ``n_tokens``, ``content_tokens``, ``fixed_tokens`` (the overhead; the two sum
            to ``n_tokens``), ``mse``, ``nmse``, ``fve``, ``reward``, ``extracted`` (never null),
            ``cjk``, ``activation_id`` (the id as text where the input's is text, else null).
        models: those without RL first, then by length penalty; unknown length penalties last.
        length_penalties: per model; ``None`` is no RL or unknown.
        reference: the model that differences are taken against.
        ar: name of the ruler, the AR that scored every row, where the table names it.
        sources: the input files.
        notes: caveats found while reading, as sentences.
        overhead_tokens: fixed tokens per explanation (tags, end token); ``None`` if unknown.
        columns: canonical columns for which the input held at least one value.
        baseline: what FVE is measured against, as far as the table says or implies it.
        shared: what the analyzers of one run worked out for each other, by keys that name what it
            is and every option that it depends on.
    """

    rows: pl.DataFrame
    models: tuple[str, ...]
    length_penalties: dict[str, float | None]
    reference: str
    ar: str | None
    sources: tuple[SourceFile, ...]
    notes: tuple[str, ...]
    overhead_tokens: float | None
    columns: frozenset[str]
    baseline: Baseline
    shared: dict[Hashable, Any] = field(init=False, default_factory=dict, repr=False)

    def has(self, column: str) -> bool:
        """Whether the input held values of ``column``, or they could be worked out from it."""
        if column in self.columns:
            return True
        return column in _DERIVED and self.rows[column].null_count() < self.rows.height

    def require(self, *columns: str, for_: str) -> None:
        """Make sure that the table has ``columns``.

        Raises:
            UserError: with the missing columns and the analyzer ``for_`` which they are needed.
        """
        missing = [column for column in columns if not self.has(column)]
        if missing:
            names = ", ".join(f'"{column}"' for column in missing)
            word = "column" if len(missing) == 1 else "columns"
            raise UserError(
                f"{self._origin}: {for_} needs the {word} {names}: add {names} to the table or "
                "choose another analyzer"
            )

    def of(self, model: str) -> pl.DataFrame:
        """The rows of ``model``, sorted by activation and sample.

        Raises:
            UserError: no such model.
        """
        check_model(model, self.models, self._origin)
        return self.rows.filter(pl.col("model") == model)

    def with_reference(self, name: str) -> Completions:
        """The same table with differences taken against ``name``.

        Raises:
            UserError: no such model.
        """
        check_model(name, self.models, self._origin)
        return replace(self, reference=name)

    @property
    def _origin(self) -> str:
        first = self.sources[0].path
        return first if len(self.sources) == 1 else f"{first} and {len(self.sources) - 1} more"


def load(
    paths: Sequence[str | Path] | str | Path,
    *,
    reference: str | None = None,
    ar: str | None = None,
    overhead_tokens: float | None = None,
    models: Sequence[str] = (),
    at_most_activations: int | None = None,
    seed: int = 0,
    storage_options: Mapping[str, str] | None = None,
) -> Completions:
    """Read and validate completions.

    Args:
        paths: Parquet, JSON, CSV or TSV files, packed or not, ``-`` for standard input, folders of
            such files (partitioned ones too), patterns, Hub addresses
            (``hf://datasets/owner/name[@revision]/path``) or addresses of Parquet in object
            storage (``s3://bucket/folder/*.parquet``); all rows are read as one table.
        reference: the model that differences are taken against; by default the RL model with the
            smallest length penalty.
        ar: the ruler to keep, where the table holds scores by several.
        overhead_tokens: fixed tokens per explanation, where known; by default exact from empty
            explanations, else estimated.
        models: keep these models only; all by default.
        at_most_activations: read all rows of so many activations only, of Parquet tables. By
            default as many as half of the free memory holds; ``notes`` say of how many.
        seed: of that choice.
        storage_options: of :func:`polars.scan_parquet`; by default the environment's.

    Raises:
        UserError: the table cannot be read or is not valid; the message names file, row, column.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    tables = find_tables(given)
    sample = choose_activations(
        tables, at_most=at_most_activations, seed=seed, storage_options=storage_options
    )
    tables_read = [
        read_table(table, number, sample=sample, storage_options=storage_options)
        for number, table in enumerate(tables)
    ]
    sources = [
        SourceFile(table.name, read.sha256, read.frame.height)
        for table, read in zip(tables, tables_read, strict=True)
    ]
    columns = frozenset[str]().union(*(read.columns for read in tables_read))
    checked = check(
        [read.frame for read in tables_read],
        [source.path for source in sources],
        columns,
        ar=ar,
        overhead_tokens=overhead_tokens,
        models=models,
    )
    notes = [] if sample is None else [sample.note]
    notes += [note for read in tables_read for note in read.notes]
    return _completions(checked, sources, reference, notes)


def from_frame(
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    reference: str | None = None,
    ar: str | None = None,
    overhead_tokens: float | None = None,
    name: str = "<frame>",
) -> Completions:
    """Validate completions that are in memory; arguments and errors as for :func:`load`.

    ``name`` stands for the file in messages. The recorded hash is that of the validated rows as
    JSON lines, and so does not depend on the order of rows.
    """
    raw = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    converted, columns, notes = canonical(raw, file=name, number=0)
    checked = check([converted], [name], columns, ar=ar, overhead_tokens=overhead_tokens, models=())
    digest = hashlib.sha256()
    for piece in checked.rows.iter_slices(_HASH_ROWS):
        digest.update(piece.write_ndjson().encode())
    source = SourceFile(name, digest.hexdigest(), raw.height)
    return _completions(checked, [source], reference, notes)


def _completions(
    checked: Checked, sources: Sequence[SourceFile], reference: str | None, notes: Sequence[str]
) -> Completions:
    if reference is not None:
        check_model(reference, checked.models, sources[0].path)
    return Completions(
        rows=checked.rows,
        models=checked.models,
        length_penalties=checked.length_penalties,
        reference=reference or default_reference(checked.models, checked.length_penalties),
        ar=checked.ar,
        sources=tuple(sources),
        notes=(*notes, *checked.notes),
        overhead_tokens=checked.overhead_tokens,
        columns=checked.columns,
        baseline=checked.baseline,
    )
