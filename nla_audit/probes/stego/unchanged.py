"""Which changed texts are as they were: these lose nothing, and dilute what the others lose.

A table may say it (column ``changed``), or hold the texts. One that does neither has the scores:
the same text has the same score, under every AR.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.table.schema import shown

UNCHANGED, ANOTHER = "unchanged", "another"
#: Whose texts: the pair's own explanations, or reference texts (gold, or by the warm start).
OWN, REFERENCE = "own", "reference"
#: Texts with the original's score, for each whose score is the next one above or below, from which
#: they are taken for the original. By chance there would be half as many.
CLEARLY = 5
#: Share of equal scores from which it is said that they may be unchanged, where that is not clear.
ALIKE = 0.05
#: Decimals beyond which scores are not looked at.
_DECIMALS = 6
_KEYS = ("model", "texts", "ar", "idx")


def by_texts(rows: pl.DataFrame) -> pl.DataFrame:
    """``changed`` in place of ``text``: whether it is another than the unchanged one."""
    before = _unchanged(rows, "text")
    differs = (pl.col("text") != pl.col("before")).cast(pl.Float64)
    return (
        rows.join(before, on=_KEYS, how="left", maintain_order="left")
        .with_columns(changed=differs)
        .drop("text", "before")
    )


def by_scores(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """``changed`` by the scores, where these say it; and what is to be said of that."""
    unit = 10.0 ** -_decimals(rows["fve"])
    compared = (
        rows.join(_unchanged(rows, "fve"), on=_KEYS, how="left", maintain_order="left")
        .with_columns(apart=(pl.col("fve") - pl.col("before")).abs() / unit)
        .with_columns(is_change=~pl.col("variant").is_in([UNCHANGED, ANOTHER]))
    )
    counts = (
        compared.filter(pl.col("is_change") & (pl.col("texts") == OWN))
        .group_by("variant")
        .agg(
            share=(pl.col("apart") == 0).mean(),
            equal=(pl.col("apart") == 0).sum(),
            beside=pl.col("apart").is_between(0.5, 1.5).sum(),
        )
        .filter(pl.col("equal") > 0)
        .sort("variant")
    )
    is_clear = pl.col("equal") > CLEARLY * pl.col("beside")
    clear = counts.filter(is_clear)
    doubtful = counts.filter(~is_clear & (pl.col("share") >= ALIKE))
    notes = []
    if clear.height:
        notes.append(
            "No column says which texts a change left as they were (changed, or text); those with "
            f"exactly the original's score under every AR are taken for it: {_named(clear)}."
        )
    if doubtful.height:
        notes.append(
            "Scores equal to the original's, too coarse to say whether the texts are: "
            f"{_named(doubtful)}. If these were not changed they dilute the loss: add a column "
            "changed (or text), and they are left out."
        )
    if clear.height == 0:
        return rows, notes
    is_same = (pl.col("apart") == 0) & pl.col("variant").is_in(clear["variant"].implode())
    same = pl.when("is_change").then(is_same).otherwise(pl.col("variant") == UNCHANGED)
    found = compared.with_columns(changed=(~same).cast(pl.Float64)).with_columns(
        pl.col("changed").max().over("model", "texts", "variant", "idx")
    )
    return found.drop("before", "apart", "is_change"), notes


def _unchanged(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    return rows.filter(pl.col("variant") == UNCHANGED).select(*_KEYS, before=column)


def _decimals(scores: pl.Series) -> int:
    """Decimals that nearly all scores have, at most :data:`_DECIMALS`."""
    known = scores.drop_nulls().to_numpy()
    for decimals in range(_DECIMALS):
        is_whole = np.abs(np.round(known, decimals) - known) < 10.0**-_DECIMALS / 10
        if len(known) and is_whole.mean() > 0.99:
            return decimals
    return _DECIMALS


def _named(counts: pl.DataFrame) -> str:
    rows = counts.select("variant", "share").iter_rows()
    return ", ".join(f"{shown(name)} ({share:.1%})" for name, share in rows)
