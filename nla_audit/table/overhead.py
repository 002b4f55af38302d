"""The fixed part of ``n_tokens``: tags and end token, which even an empty explanation costs.

In the published Qwen3-8B length-penalty sweep it is 11 tokens (every one of its empty
explanations has ``n_tokens`` 11), so that 14 tokens are 3 tokens of content.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.wording import count

#: A word piece is about what a byte-pair vocabulary gives one token: up to seven letters of a
#: word, a run of punctuation, a run of blanks or line breaks.
_WORD_PIECE = r"\w{1,7}|[^\w\s]+|\s{2,}"
#: The shortest explanations decide: the longer a text, the more its tokens differ from our count.
_SHORTEST_ROWS = 300


def overhead_tokens(rows: pl.DataFrame) -> tuple[float | None, str | None]:
    """Fixed tokens per explanation, and a caveat that says where the number comes from.

    Exact where the table has empty explanations (their lower median: a whole number); else an
    estimate. ``None`` where no row has both text and ``n_tokens``.
    """
    known = rows.filter(pl.col("explanation").is_not_null() & pl.col("n_tokens").is_not_null())
    empty = known.filter(pl.col("explanation") == "")["n_tokens"]
    if len(empty):
        median = empty.quantile(0.5, interpolation="lower")
        assert median is not None
        return median, (
            f"Overhead of {median:g} tokens per explanation (tags and end token): what the "
            f"{count(len(empty), 'empty explanation')} of this table cost."
        )
    if known.is_empty():
        return None, None
    return _estimate(known)


def _estimate(known: pl.DataFrame) -> tuple[float, str]:
    """Median of tokens minus word pieces over the shortest explanations.

    A slope is not fitted: over the shortest texts the counts vary too little to support one.
    """
    text = pl.col("explanation")
    shortest = (
        known.lazy()
        .select(text, "n_tokens", pieces=text.str.len_chars())
        .bottom_k(10 * _SHORTEST_ROWS, by="pieces")
        .select("n_tokens", pieces=text.str.count_matches(_WORD_PIECE))
        .bottom_k(_SHORTEST_ROWS, by=["pieces", "n_tokens"])
        .collect()
    )
    pieces = shortest["pieces"].to_numpy()
    difference = np.median(shortest["n_tokens"].to_numpy() - pieces)
    smallest = known["n_tokens"].to_numpy().min()
    estimate = float(np.clip(np.round(difference), 0, smallest))
    return estimate, (
        f"Overhead estimated at {estimate:g} tokens per explanation from the "
        f"{count(shortest.height, 'shortest explanation')} (median "
        f"{np.median(pieces):g} word pieces), as no explanation is empty; content and "
        "overhead tokens shift with it. Pass --overhead-tokens if you know it."
    )
