"""Activations with their sources and gold explanations: one table, split by document."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.checkpoint.read_transform import RAW, norm_of_table
from nla_audit.errors import UserError
from nla_audit.files import write_parquet
from nla_audit.table.readers import read_frame
from nla_audit.unicode_form import composed_column
from nla_audit.wording import count, verb

#: Our column → the name published training tables give it (docs/formats.md).
_PUBLISHED = {
    "explanation": "response",
    "source_text": "detokenized_text_truncated",
    "position": "n_raw_tokens",
}
#: A text that stands between explanation tags, be they the warm start's or a model's.
_TAGGED = re.compile(
    r"\s*(?:<think>.*?</think>)?\s*<explanation>(.*?)(?:</explanation>.*)?",
    re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True)
class Dataset:
    """``n`` activations.

    Attributes:
        idx: ``[n]`` the key that rows are joined by.
        activations: ``[n, d_model]`` float32, raw.
        doc_ids: ``[n]``.
        positions: ``[n]`` token of the document, ``None`` where unknown.
        source_texts: ``[n]`` text up to and including that token, ``None`` where unknown.
        explanations: ``[n]`` gold, ``None`` where there is none.
        is_held_out: ``[n]`` whether the row's document is kept from all training.
    """

    idx: npt.NDArray[np.int64]
    activations: npt.NDArray[np.float32]
    doc_ids: list[str]
    positions: list[int | None]
    source_texts: list[str | None]
    explanations: list[str | None]
    is_held_out: npt.NDArray[np.bool_]

    @property
    def training_rows(self) -> npt.NDArray[np.int64]:
        """Places of the rows to train on."""
        return np.flatnonzero(~self.is_held_out)

    def held_out_rows(self, limit: int | None = None) -> npt.NDArray[np.int64]:
        """Places of held-out rows, at most ``limit``: spread over documents, always the same."""
        rows = np.flatnonzero(self.is_held_out)
        if limit is None or limit >= len(rows):
            return rows
        return rows[np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)]

    def gold(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[str]:
        """Gold explanations of ``rows``.

        Raises:
            UserError: some row has none, or an empty one.
        """
        found = [self.explanations[row] for row in rows]
        empty = [row for row, text in zip(rows, found, strict=True) if not (text or "").strip()]
        if empty:
            raise UserError(
                f"{len(empty)} of {count(len(found), 'row')} "
                f"{verb(len(empty), 'has', 'have')} no gold explanation (the first is idx "
                f"{self.idx[empty[0]]}); leave them out, or give data.labeler"
            )
        return [text for text in found if text is not None]


def split_by_document(doc_ids: Sequence[str], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows are held out: all of a document or none of it.

    The choice depends on the document's name and the seed alone, so rows can be added without
    moving others. Row splits read 18 points too much (docs/failures.md).

    Raises:
        UserError: fewer than two documents.
    """
    names = sorted(set(doc_ids))
    if len(names) < 2:
        raise UserError(
            f"{len(names)} document(s): a split by document needs at least two; give more texts "
            "or a doc_id column that tells them apart"
        )
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    kept_out = set(ranked[: min(max(1, round(share * len(names))), len(names) - 1)])
    return np.array([name in kept_out for name in doc_ids])


def make_dataset(
    activations: npt.NDArray[np.float32],
    *,
    doc_ids: Sequence[str],
    positions: Sequence[int | None],
    source_texts: Sequence[str | None],
    explanations: Sequence[str | None],
    held_out_share: float,
    seed: int,
) -> Dataset:
    """Check and split.

    Raises:
        UserError: no rows, an activation that is zero or not finite, or fewer than two documents.
    """
    if len(activations) == 0:
        raise UserError("no activations: the data is empty, or every document is too short")
    bad = ~np.isfinite(activations).all(axis=1) | ~(activations != 0).any(axis=1)
    if bad.any():
        raise UserError(
            f"{int(bad.sum())} activations are zero or not finite (the first is row "
            f"{int(bad.argmax())}); leave them out"
        )
    return Dataset(
        idx=np.arange(len(activations), dtype=np.int64),
        activations=activations,
        doc_ids=list(doc_ids),
        positions=list(positions),
        source_texts=list(source_texts),
        explanations=list(explanations),
        is_held_out=split_by_document(doc_ids, held_out_share, seed),
    )


def write_dataset(dataset: Dataset, path: Path, *, layer_index: int | None = None) -> None:
    """Write as Parquet, under a temporary name first.

    Args:
        layer_index: of the block whose output the activations are, where it is known: commands
            that read the table with a model ask for it.

    Raises:
        UserError: it cannot be written.
    """
    width = dataset.activations.shape[1]
    frame = pl.DataFrame(
        {
            "idx": dataset.idx,
            "doc_id": pl.Series(dataset.doc_ids, dtype=pl.String),
            "position": pl.Series(dataset.positions, dtype=pl.Int64),
            "source_text": pl.Series(dataset.source_texts, dtype=pl.String),
            "explanation": pl.Series(dataset.explanations, dtype=pl.String),
            "held_out": dataset.is_held_out,
            "activation_vector": pl.Series(
                dataset.activations, dtype=pl.Array(pl.Float32, width)
            ).cast(pl.List(pl.Float32)),
        }
    )
    if layer_index is not None:
        from nla_audit.runs.activations import LAYER_COLUMN  # torch

        frame = frame.with_columns(pl.lit(layer_index, pl.Int64).alias(LAYER_COLUMN))
    write_parquet(frame, path)


def read_dataset(path: Path) -> Dataset:
    """Read what :func:`write_dataset` wrote."""
    frame = pl.read_parquet(path)
    return Dataset(
        idx=frame["idx"].to_numpy().astype(np.int64),
        activations=_vectors(frame, path),
        doc_ids=frame["doc_id"].to_list(),
        positions=frame["position"].to_list(),
        source_texts=frame["source_text"].to_list(),
        explanations=frame["explanation"].to_list(),
        is_held_out=frame["held_out"].to_numpy().astype(np.bool_),
    )


def read_training_table(path: Path, *, held_out_share: float, seed: int) -> Dataset:
    """Read a ready-made table, ours or as published (docs/formats.md), and split it.

    Any form that :func:`nla_audit.table.readers.read_frame` knows; names of columns in any case.

    Raises:
        UserError: no such file, no table, no ``activation_vector`` or ``doc_id``, or texts that
            are none.
    """
    frame = read_frame(path, lower_case=True)
    if (norm := norm_of_table(path)).name != RAW:
        raise UserError(
            f"{path}: its sidecar says that the activations are {norm.name}; the trainer would "
            "pass them on as raw ones: give raw activations"
        )
    for needed in ("activation_vector", "doc_id"):
        if needed not in frame.columns:
            raise UserError(f"{path}: no column {needed}; it has {', '.join(frame.columns)}")

    def column(name: str) -> pl.Series | None:
        found = next((one for one in (name, _PUBLISHED[name]) if one in frame.columns), None)
        return frame[found] if found else None

    return make_dataset(
        _vectors(frame, path),
        doc_ids=[str(name) for name in frame["doc_id"].to_list()],
        positions=_positions(column("position"), frame.height, path),
        source_texts=texts_of(column("source_text"), frame.height, path),
        explanations=[
            None if text is None else without_tags(text)
            for text in texts_of(column("explanation"), frame.height, path)
        ],
        held_out_share=held_out_share,
        seed=seed,
    )


def texts_of(column: pl.Series | None, rows: int, path: Path) -> list[str | None]:
    """The texts of a column in NFC, ``None`` in each of ``rows`` where there is no column.

    Raises:
        UserError: it does not hold text.
    """
    if column is None or column.dtype == pl.Null:
        return [None] * rows
    if column.dtype != pl.String:
        raise UserError(
            f'{path}: column "{column.name}" holds {column.dtype}, not text: check that it is the '
            "right column"
        )
    return composed_column(column).to_list()


def without_tags(text: str) -> str:
    """What stands between the tags of a gold explanation that still has them, stripped."""
    match = _TAGGED.fullmatch(text)
    return match[1].strip() if match else text


def _positions(column: pl.Series | None, rows: int, path: Path) -> list[int | None]:
    if column is None:
        return [None] * rows
    whole = column.cast(pl.Int64, strict=False)
    if whole.null_count() != column.null_count():
        raise UserError(f'{path}: column "{column.name}" holds what is no whole number')
    return whole.to_list()


def _vectors(frame: pl.DataFrame, path: Path) -> npt.NDArray[np.float32]:
    """``[n, d_model]`` of a column of lists, of a fixed size or not."""
    column = frame["activation_vector"]
    if not frame.height:
        return np.zeros((0, 0), dtype=np.float32)
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    dtype = column.dtype
    if not isinstance(dtype, pl.List) or not dtype.inner.is_numeric():
        raise UserError(
            f"{path}: activation_vector holds {dtype}: write a list of numbers in each row"
        )
    widths = column.list.len().unique().to_list()
    if len(widths) > 1 or None in widths:
        raise UserError(f"{path}: activation_vector has rows of different widths: {widths[:5]}")
    flat = column.explode().cast(pl.Float32).to_numpy()
    return np.ascontiguousarray(flat.reshape(frame.height, widths[0]), dtype=np.float32)
