"""Which texts are shown as examples of a change: chosen by rule, not by eye."""

from __future__ import annotations

import polars as pl

_COLUMNS = (
    "variant",
    "shown",
    "model",
    "idx",
    "fve_before",
    "fve_after",
    "similarity",
    "before",
    "after",
)


def chosen_examples(scored: pl.DataFrame, *, ar: str) -> pl.DataFrame:
    """Of each variant the text whose loss of FVE is the median, and that with the largest.

    Only texts that the variant changed are candidates, of all models together; a variant with
    one such text has one example.

    Args:
        scored: rows of :func:`nla_audit.probes.stego.reading.probe`.
        ar: the pair's own AR in column ``ar``.

    Returns:
        ``variant, shown`` (``median loss`` or ``largest loss``), ``model, idx, fve_before,
        fve_after, similarity, before, after``.
    """
    own = scored.filter((pl.col("texts") == "own") & (pl.col("ar") == ar)).drop_nulls("fve")
    before = own.filter(pl.col("variant") == "unchanged").select(
        "model", "idx", pl.col("text").alias("before"), pl.col("fve").alias("fve_before")
    )
    changed = (
        own.filter(pl.col("changed"))
        .join(before, on=["model", "idx"])
        .with_columns(loss=pl.col("fve_before") - pl.col("fve"))
        .sort("variant", "loss", "model", "idx")
    )
    picked = []
    for _, texts in changed.group_by("variant", maintain_order=True):
        places = {texts.height - 1: "largest loss", (texts.height - 1) // 2: "median loss"}
        for place, shown in sorted(places.items()):
            picked.append(texts[place].with_columns(shown=pl.lit(shown)))
    empty = changed.clear().with_columns(shown=pl.lit(None, dtype=pl.String))
    return pl.concat([empty, *picked]).select(
        *(
            {
                "after": pl.col("text").alias("after"),
                "fve_after": pl.col("fve").alias("fve_after"),
            }.get(name, pl.col(name))
            for name in _COLUMNS
        )
    )
