"""Whether what rows say of one activation agrees: its document, and the text before it.

Everything is paired by ``idx``. Where it numbers something else for each model, as a count of rows
that were drawn or ordered anew does, each comparison is between strangers, and no number shows it;
but what stands beside it does.
"""

from __future__ import annotations

import polars as pl

from nla_audit.wording import count

_ADVICE = (
    'if "idx" numbers other activations there, nothing that is paired by it is right; check that '
    "it is the same in all models."
)


def disagreements(rows: pl.DataFrame) -> list[str]:
    """Caveats about activations of which rows name several documents or different texts."""
    return [*_of_documents(rows), *_of_sources(rows)]


def _of_documents(rows: pl.DataFrame) -> list[str]:
    several = _differing(rows, "doc_id").height
    if not several:
        return []
    said = f"{count(several, 'activation')} in more than one document (column doc_id)"
    return [f"Rows place {said}: {_ADVICE}"]


def _of_sources(rows: pl.DataFrame) -> list[str]:
    """Of texts; a shorter one may be the tail of a longer one."""
    differing = _differing(rows, "source_text")
    if differing.is_empty():
        return []
    texts = (
        rows.join(differing, on="idx", how="semi")
        .select("idx", text=pl.col("source_text").str.strip_chars())
        .drop_nulls()
        .with_columns(
            longest=pl.col("text").sort_by(pl.col("text").str.len_chars()).last().over("idx")
        )
    )
    strangers = texts.filter(~pl.col("longest").str.ends_with(pl.col("text")))["idx"].n_unique()
    if not strangers:
        return []
    said = f"{count(strangers, 'activation')} source texts of which none is the other's tail"
    return [f"Rows give {said}: {_ADVICE}"]


def _differing(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """``idx`` of the activations of which ``name`` is not the same in all rows that have it."""
    if rows[name].null_count() == rows.height:
        return pl.DataFrame({"idx": []}, schema={"idx": pl.Int64})
    known = rows.lazy().filter(pl.col(name).is_not_null()).select("idx", key=pl.col(name).hash())
    ends = known.group_by("idx").agg(least=pl.col("key").min(), most=pl.col("key").max())
    return ends.filter(pl.col("least") != pl.col("most")).select("idx").sort("idx").collect()
