"""FVE by prefix as curves: one for each model and unit, on lengths that its texts share."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.stats import Resampler
from nla_audit.table.prefix_table import PrefixTable

Floats = NDArray[np.float64]

#: A length belongs to the curve if it was read, or is beyond the end, of this share of the texts.
_READ_OF = 0.9
#: With fewer such lengths than this, every length that was read anywhere is taken.
_FEWEST = 3


@dataclass(frozen=True)
class Curve:
    """FVE by prefix of one model, in one unit.

    Attributes:
        lengths: ``[g]``, ascending; the last is that of the longest text.
        values: ``[a, g]`` FVE of the first ``lengths`` of an activation's text, of the whole text
            where that is shorter, the mean of its samples; NaN is not known. Means are one row.
        full: ``[a]`` FVE of the whole text.
        whole: ``[a]`` length of the whole text; of means, the mean length where the table has it.
        idx: ``[a]``, sorted; empty for means.
        clusters: ``[a]`` what is resampled: the document where it is known, else the activation.
        texts: explanations that were read.
        interpolated: values between two lengths at which the text was read.
        left_out: lengths that too few texts were read at.
    """

    model: str
    unit: str
    lengths: NDArray[np.int64]
    values: Floats
    full: Floats
    whole: Floats
    idx: tuple[str, ...]
    clusters: NDArray[np.object_]
    texts: int
    interpolated: int = 0
    left_out: int = 0

    @property
    def is_means(self) -> bool:
        """Whether only means over activations are known."""
        return not self.idx

    @property
    def knows_length(self) -> bool:
        """Whether the mean length of a whole text is known."""
        return bool(np.isfinite(self.whole).any())

    def mean(self) -> Floats:
        """``[g]`` mean over activations."""
        return mean_known(self.values)

    def mean_length(self) -> float:
        """Mean length of a whole text; that of the longest where means do not say."""
        return float(np.nanmean(self.whole) if self.knows_length else self.lengths[-1])

    def only(self, idx: Set[str]) -> Curve:
        """The curve on some of its activations, in order."""
        rows = [place for place, one in enumerate(self.idx) if one in idx]
        return replace(
            self,
            values=self.values[rows],
            full=self.full[rows],
            whole=self.whole[rows],
            idx=tuple(self.idx[row] for row in rows),
            clusters=self.clusters[rows],
        )

    def resampler(self, seed: int) -> Resampler:
        """The bootstrap over its activations."""
        return Resampler(self.clusters, seed=seed)


def curves_of(table: PrefixTable, unit: str) -> dict[str, Curve]:
    """The curve of each model that has lengths in ``unit``, in the order of the models."""
    curves = {}
    for model in table.models:
        rows = table.rows.filter((pl.col("model") == model) & (pl.col("unit") == unit))
        if rows["fve"].null_count() == rows.height:
            continue
        curves[model] = (
            _of_means(rows, model, unit)
            if model in table.means
            else _of_activations(rows, model, unit)
        )
    return curves


def _of_means(rows: pl.DataFrame, model: str, unit: str) -> Curve:
    rows = rows.drop_nulls("fve").sort("length")
    lengths = rows["length"].to_numpy()
    at_full = rows["n_at_full"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    mean_length = np.nan
    if not np.isnan(at_full).any() and at_full[-1] > 0 and (np.diff(at_full) >= 0).all():
        mean_length = float((np.diff(at_full, prepend=0.0) * lengths).sum() / at_full[-1])
    values = rows["fve"].to_numpy()[None, :]
    texts = 0 if np.isnan(at_full[-1]) else int(at_full[-1])
    return Curve(
        model,
        unit,
        lengths,
        values,
        values[:, -1],
        np.array([mean_length]),
        (),
        np.array(["means"], dtype=object),
        texts,
    )


@dataclass(frozen=True)
class TextCurve:
    """One explanation: where it was read, FVE there, and whether the last is all of it."""

    idx: str
    sample: int
    cluster: str
    lengths: NDArray[np.int64]
    fve: Floats
    is_whole: bool


def _of_activations(rows: pl.DataFrame, model: str, unit: str) -> Curve:
    texts = text_curves(rows)
    lengths, left_out = _grid(texts)
    by_idx: dict[str, list[Floats]] = {}
    clusters: dict[str, str] = {}
    interpolated = 0
    for text in texts:
        values, between = _read_at(text, lengths)
        interpolated += between
        full = text.fve[-1] if text.is_whole else np.nan
        by_idx.setdefault(text.idx, []).append(np.append(values, (full, text.lengths[-1])))
        clusters[text.idx] = text.cluster
    idx = tuple(sorted(by_idx))
    each = np.stack([mean_known(np.stack(by_idx[one])) for one in idx])
    return Curve(
        model,
        unit,
        lengths,
        each[:, :-2],
        each[:, -2],
        each[:, -1],
        idx,
        np.array([clusters[one] for one in idx], dtype=object),
        len(texts),
        interpolated,
        left_out,
    )


def text_curves(rows: pl.DataFrame) -> list[TextCurve]:
    """The explanations of rows of one model and unit; those of which no FVE is known are not."""
    by_document = rows["doc_id"].null_count() == 0
    grouped = rows.group_by("idx", "sample", maintain_order=True).agg(
        pl.col("doc_id").first(), "length", "fve", pl.col("text_tokens").max()
    )
    texts = []
    for idx, sample, document, lengths, fve, text_tokens in grouped.iter_rows():
        places = np.array(lengths, dtype=np.int64)
        values = np.array([np.nan if value is None else value for value in fve])
        known = ~np.isnan(values)
        if not known.any():
            continue
        ends = rows["unit"][0] != "tokens" or text_tokens is None or places[-1] >= text_tokens
        texts.append(
            TextCurve(
                idx,
                sample,
                document if by_document else idx,
                places[known],
                values[known],
                bool(ends and known[-1]),
            )
        )
    return texts


def _grid(texts: Sequence[TextCurve]) -> tuple[NDArray[np.int64], int]:
    """The lengths at which nearly every text was read or had ended, and how many others."""
    every = np.unique(np.concatenate([text.lengths for text in texts]))
    known = np.zeros(len(every))
    for text in texts:
        known[np.searchsorted(every, text.lengths)] += 1
        if text.is_whole:
            known[np.searchsorted(every, text.lengths[-1]) + 1 :] += 1
    grid = every[known >= _READ_OF * len(texts)]
    if len(grid) < min(_FEWEST, len(every)):
        grid = every
    return grid, len(every) - len(grid)


def _read_at(text: TextCurve, lengths: NDArray[np.int64]) -> tuple[Floats, int]:
    """FVE of a text at ``lengths``, and how many of them lie between two that were read."""
    values = np.interp(lengths, text.lengths, text.fve)
    values[lengths < text.lengths[0]] = np.nan
    if not text.is_whole:
        values[lengths > text.lengths[-1]] = np.nan
    inside = lengths[(lengths > text.lengths[0]) & (lengths < text.lengths[-1])]
    places = np.searchsorted(text.lengths, inside)
    return values, int((text.lengths[places] != inside).sum())


def mean_known(values: Floats) -> Floats:
    """Means of columns ``[n, k]``, each over what is known of it, ``[k]``; NaN where nothing is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0))
