"""What is said of the final token, and what merely shows it.

A text that copies the input's last words holds the final token, and is read as saying it. Whether
what was said *about* that token is still said cannot be told by words where a text only copies, and
the reference did not.
"""

from __future__ import annotations

import polars as pl

from nla_audit.table.completions import Completions
from nla_audit.text.tails import Tail, held
from nla_audit.text.words import mentions, stem, words


def shown_by_tails(completions: Completions, claims: pl.DataFrame) -> float:
    """The share of these claims that is read as kept in a text which copies the input's tail.

    Args:
        claims: of one model about final tokens, as
            :attr:`~nla_audit.text.reading.Reading.claims`.

    Returns:
        0 where the table has no source texts, or no text copies.
    """
    model = claims["model"][0]
    rows = completions.rows.filter(
        pl.col("model").is_in([model, completions.reference]),
        pl.col("idx").is_in(claims["idx"].unique().to_list()),
        pl.col("explanation").is_not_null(),
        pl.col("source_text").is_not_null(),
    )
    tails = [Tail(source).words for source in rows["source_text"]]
    texts = rows["explanation"].to_list()
    holds = [held(words(text), tail).holds for text, tail in zip(texts, tails, strict=True)]
    only_shows = [
        is_held and stem(tail[-1]) not in mentions(text)
        for is_held, text, tail in zip(holds, texts, tails, strict=True)
    ]
    of_model = rows["model"] == model
    own = rows.filter(of_model & pl.Series(only_shows, dtype=pl.Boolean))
    by_reference = rows.filter(~of_model & pl.Series(holds, dtype=pl.Boolean))
    own = own.join(by_reference, on="idx", how="anti")
    return float(claims.join(own, on=["idx", "sample"], how="semi")["kept"].sum()) / claims.height
