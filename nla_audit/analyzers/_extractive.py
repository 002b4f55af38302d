"""Is a short explanation a cut-down copy of the reference's?"""

from __future__ import annotations

import polars as pl
from rapidfuzz.distance import LCSseq

from nla_audit.stats import derangement
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler, rows_of_some
from nla_audit.text.words import content_stems

#: Activations of a larger table that are looked at; intervals are narrow long before that.
_MOST_ACTIVATIONS = 1000


def extractiveness(completions: Completions, seed: int) -> dict[str, dict[str, float | None]]:
    """Measures of each model but the reference, for the headline.

    ``novel_word_share``: content words that the reference's explanation of the activation lacks.
    ``subsequence_share``: longest common subsequence with it, over the explanation's length.
    ``order_kept``: that subsequence over the number of shared words. ``chance_novel_word_share``
    is the first against another activation's reference explanation.
    """
    rows = completions.rows.filter(pl.col("explanation").is_not_null())
    rows = rows_of_some(rows, _MOST_ACTIVATIONS, [seed, 3])
    first = rows.filter(pl.col("model") == completions.reference).sort("idx", "sample")
    reference = {
        idx: content_stems(text)
        for idx, text in first.unique("idx", keep="first", maintain_order=True)
        .select("idx", "explanation")
        .iter_rows()
    }
    keys = sorted(reference)
    partner_of = {}
    if len(keys) > 1:
        partners = derangement(keys, seed)
        partner_of = {key: keys[place] for key, place in zip(keys, partners, strict=True)}
    measured: dict[str, dict[str, float | None]] = {}
    for model in completions.models:
        if model == completions.reference:
            continue
        own = rows.filter((pl.col("model") == model) & pl.col("idx").is_in(keys))
        measures = pl.DataFrame(
            [
                {
                    "idx": idx,
                    **_copying(
                        content_stems(text),
                        reference[idx],
                        reference[partner_of[idx]] if idx in partner_of else None,
                    ),
                }
                for idx, text in own.select("idx", "explanation").iter_rows()
            ],
            infer_schema_length=None,
        )
        if measures.height == 0:
            continue
        draw = resampler(measures, seed)
        measured[model] = {}
        for top, bottom, name in (
            ("novel", "words", "novel_word_share"),
            ("novel_by_chance", "words", "chance_novel_word_share"),
            ("subsequence", "words", "subsequence_share"),
            ("subsequence", "shared", "order_kept"),
        ):
            share = draw.ratio(column(measures, top), column(measures, bottom))
            measured[model] |= share.entries(name)
    return measured


def _copying(
    words: list[str], reference: list[str], other: list[str] | None
) -> dict[str, float | None]:
    novel = _novel(words, reference)
    return {
        "words": float(len(words)),
        "novel": float(novel),
        "shared": float(len(words) - novel),
        "subsequence": float(LCSseq.similarity(words, reference)),
        "novel_by_chance": None if other is None else float(_novel(words, other)),
    }


def _novel(words: list[str], known: list[str]) -> int:
    there = set(known)
    return sum(word not in there for word in words)
