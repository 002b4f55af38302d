"""Pairing by activation: every difference is taken within one activation, never across."""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.completions import Completions
from nla_audit.stats import Resampler


def clusters(frame: pl.DataFrame) -> np.ndarray:
    """Labels to resample by, `[n_rows]`: the document where it is known, else the activation."""
    if "doc_id" in frame.columns and frame["doc_id"].null_count() == 0 and frame.height:
        return frame["doc_id"].to_numpy()
    return frame["idx"].to_numpy()


def resampler(frame: pl.DataFrame, seed: int) -> Resampler:
    """The bootstrap for the rows of ``frame`` (needs ``idx``, uses ``doc_id``)."""
    return Resampler(clusters(frame), seed=seed)


def per_activation(completions: Completions, columns: list[str]) -> pl.DataFrame:
    """Means over samples, one row per (model, idx), with ``doc_id``; nulls do not count."""
    return (
        completions.rows.group_by("model", "idx")
        .agg(pl.col("doc_id").first(), *(pl.col(column).mean() for column in columns))
        .sort("model", "idx")
    )


def paired(completions: Completions, model: str, columns: list[str]) -> pl.DataFrame:
    """One row per activation: ``column`` of ``model`` beside ``column_reference``."""
    means = per_activation(completions, columns)
    own = means.filter(pl.col("model") == model)
    other = means.filter(pl.col("model") == completions.reference).select(
        "idx", *(pl.col(column).alias(f"{column}_reference") for column in columns)
    )
    return own.join(other, on="idx", how="inner").sort("idx")


def column(frame: pl.DataFrame, name: str) -> np.ndarray:
    """A numeric or Boolean column as floats; null becomes NaN."""
    return frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
