"""What explanations say first, and whether their beginnings read like language."""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler, thinned
from nla_audit.table.prefix_table import PrefixTable
from nla_audit.text.claims import split_claims
from nla_audit.text.kinds import KIND_NAMES
from nla_audit.text.words import FUNCTION_WORDS, WordBreaks, words

#: Claims of a kind below which its place is not given.
_FEWEST_CLAIMS = 20
#: Explanations of each model whose texts are taken apart.
_MOST_TEXTS = 500
#: Lengths in words at which beginnings are looked at.
_WORDS = (4, 8, 16, 32)

_FIRST_SCHEMA = {
    "model": pl.String,
    "kind": pl.String,
    "claims": pl.Int64,
    "place": pl.Float64,
    "place_low": pl.Float64,
    "place_high": pl.Float64,
    "first": pl.Float64,
    "first_low": pl.Float64,
    "first_high": pl.Float64,
}
_NATURAL_SCHEMA = {
    "model": pl.String,
    "words": pl.Int64,
    "texts": pl.Int64,
    "function_words": pl.Float64,
    "function_words_low": pl.Float64,
    "function_words_high": pl.Float64,
    "whole": pl.Float64,
}
_BROKEN_SCHEMA = {
    "model": pl.String,
    "unit": pl.String,
    "length": pl.Int64,
    "prefixes": pl.Int64,
    "broken": pl.Float64,
    "broken_low": pl.Float64,
    "broken_high": pl.Float64,
}
_BROKEN_KEYS = ("model", "unit", "length")
#: One beginning a row.
_BEGINNINGS = {
    "model": pl.String,
    "unit": pl.String,
    "length": pl.Int64,
    "idx": pl.String,
    "doc_id": pl.String,
    "broken_word": pl.Boolean,
}


def chosen_texts(completions: Completions, model: str) -> pl.DataFrame:
    """At most :data:`_MOST_TEXTS` explanations of a model that say something, by activation."""
    rows = completions.of(model).filter(pl.col("explanation").fill_null("") != "")
    return thinned(rows, _MOST_TEXTS)


def kinds_first(completions: Completions, seed: int) -> pl.DataFrame:
    """Where in explanations each kind of claim stands, and how often it is what is said first.

    ``place`` is 0 for the first claim and 1 for the last, the mean over claims of the kind in
    explanations with several; 0.5 is anywhere. ``first`` is the share of explanations that open
    with the kind.
    """
    rows = []
    for model in completions.models:
        found: list[tuple[int, str | None, str, float, int]] = []
        for idx, document, text in (
            chosen_texts(completions, model).select("idx", "doc_id", "explanation").iter_rows()
        ):
            claims = split_claims(text)
            last = len(claims) - 1
            found += [
                (idx, document, claim.kind, number / last if last else np.nan, number)
                for number, claim in enumerate(claims)
            ]
        frame = pl.DataFrame(
            found,
            schema={
                "idx": pl.Int64,
                "doc_id": pl.String,
                "kind": pl.String,
                "place": pl.Float64,
                "number": pl.Int64,
            },
            orient="row",
        )
        openings = frame.filter(pl.col("number") == 0)
        for kind in KIND_NAMES:
            of_kind = frame.filter(pl.col("kind") == kind)
            if of_kind.height < _FEWEST_CLAIMS:
                continue
            place = resampler(of_kind, seed).mean(column(of_kind, "place"))
            opens = (openings["kind"] == kind).cast(pl.Float64).to_numpy()
            rows.append(
                {
                    "model": model,
                    "kind": kind,
                    "claims": of_kind.height,
                    **place.entries("place"),
                    **resampler(openings, seed).share(opens).entries("first"),
                }
            )
    return pl.DataFrame(rows, schema=_FIRST_SCHEMA)


def natural_prefixes(completions: Completions, seed: int) -> pl.DataFrame:
    """Share of function words in the first words of explanations that are longer, and in all.

    English prose has about 0.4 to 0.5; a telegraphic or coded beginning has fewer. ``whole`` is
    the share in the whole of the same texts.
    """
    rows = []
    for model in completions.models:
        texts = chosen_texts(completions, model)
        said = [words(text) for text in texts["explanation"]]
        for length in _WORDS:
            long = np.array([len(text) > length for text in said], dtype=bool)
            if not long.any():
                continue
            part = texts.filter(pl.Series(long))
            of_part = [text for text in said if len(text) > length]
            share = [_function_share(text[:length]) for text in of_part]
            rows.append(
                {
                    "model": model,
                    "words": length,
                    "texts": part.height,
                    **resampler(part, seed).mean(share).entries("function_words"),
                    "whole": float(np.mean([_function_share(text) for text in of_part])),
                }
            )
    return pl.DataFrame(rows, schema=_NATURAL_SCHEMA)


def _function_share(text: list[str]) -> float:
    return sum(word in FUNCTION_WORDS for word in text) / len(text)


def broken_words(
    completions: Completions | None, curves: PrefixTable | None, seed: int
) -> pl.DataFrame:
    """Share of beginnings that end within a word, by unit and length; whole texts do not count.

    Ends of segments are taken from the completions, where they have any; other units, and segments
    without completions, from what was read.
    """
    frames = [] if completions is None else [_segments_broken(completions)]
    segmented = bool(frames and frames[0].height)
    if curves is not None:
        known = curves.rows.filter(
            pl.col("broken_word").is_not_null() & pl.col("idx").is_not_null()
        )
        if segmented:
            known = known.filter(pl.col("unit") != "segments")
        text = ["model", "unit", "idx", "sample"]
        known = known.filter(pl.col("length") < pl.col("length").max().over(text))
        frames.append(known.select(*_BROKEN_KEYS, "idx", "doc_id", "broken_word"))
    rows = []
    every = pl.concat(frames) if frames else pl.DataFrame(schema=_BEGINNINGS)
    for key, part in every.group_by(*_BROKEN_KEYS, maintain_order=True):
        share = resampler(part, seed).share(column(part, "broken_word"))
        rows.append(
            dict(zip(_BROKEN_KEYS, key, strict=True))
            | {"prefixes": part.height, **share.entries("broken")}
        )
    return pl.DataFrame(rows, schema=_BROKEN_SCHEMA).sort("model", "unit", "length")


def _segments_broken(completions: Completions) -> pl.DataFrame:
    """Every end of a segment at which the explanation goes on, and whether it breaks a word."""
    rows = completions.rows.filter(pl.col("segment_ends").is_not_null())
    found = []
    for model, idx, document, text, ends in rows.select(
        "model", "idx", "doc_id", "explanation", "segment_ends"
    ).iter_rows():
        breaks = WordBreaks(text or "")
        found += [
            (model, "segments", number, str(idx), document, breaks.at(end))
            for number, end in enumerate(ends, 1)
            if end < len(text or "")
        ]
    return pl.DataFrame(found, schema=_BEGINNINGS, orient="row")
