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

#: The kind of claim that this is about.
FINAL_TOKEN = "final_token"


def shown_by_tails(completions: Completions, claims: pl.DataFrame) -> float:
    """The share of these claims that is read as kept in a text which copies the input's tail.

    Args:
        claims: of one model about final tokens, as
            :attr:`~nla_audit.text.reading.Reading.claims`.

    Returns:
        0 where the table has no source texts, or no text copies.
    """
    model = claims["model"][0]
    wanted = claims.select("idx").unique()
    rows = completions.rows.join(wanted, on="idx", how="semi").filter(
        pl.col("explanation").is_not_null() & pl.col("source_text").is_not_null()
    )
    found = [
        _shown(text, source)
        for text, source in zip(rows["explanation"], rows["source_text"], strict=True)
    ]
    shown = rows.select("model", "idx", "sample").with_columns(
        holds=pl.Series([holds for holds, _ in found], dtype=pl.Boolean),
        says=pl.Series([says for _, says in found], dtype=pl.Boolean),
    )
    by_reference = shown.filter((pl.col("model") == completions.reference) & pl.col("holds"))
    own = shown.filter((pl.col("model") == model) & pl.col("holds") & ~pl.col("says"))
    own = own.join(by_reference, on="idx", how="anti")
    return float(claims.join(own, on=["idx", "sample"], how="semi")["kept"].sum()) / claims.height


def _shown(text: str, source: str) -> tuple[bool, bool]:
    """Whether ``text`` holds the source's last words, and whether it quotes the very last alone."""
    tail = Tail(source).words
    is_held = held(words(text), tail).holds
    return is_held, is_held and stem(tail[-1]) in mentions(text)
