"""Fates: what became of each claim, as character spans for a reader to look at.

The analyzers work with probabilities; here the likelier side of one half is shown, so that a
person can check the reading against the texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl

from nla_audit.table.completions import Completions
from nla_audit.text.claims import Claim
from nla_audit.text.items import quoted_spans
from nla_audit.text.pairs import RESAMPLING_FLOOR, TextPair, text_pairs
from nla_audit.text.reading import Reading
from nla_audit.text.segmentation import Segmentation

#: A claim that is still made counts as kept in its wording when at least this share of its content
#: words stands in the other explanation, else as reworded.
MIN_SHARED_WORDS = 0.5

_SCHEMA = {
    "idx": pl.Int64,
    "model": pl.String,
    "sample": pl.Int64,
    "start": pl.Int64,
    "end": pl.Int64,
    "fate": pl.String,
    "against": pl.String,
}
_Row = tuple[int, str, int, int, int, str, str | None]


def fate_spans(
    completions: Completions, activations: Sequence[int], reading: Reading
) -> pl.DataFrame:
    """Spans of claims, coloured by what became of them, for some activations.

    Args:
        completions: the table.
        activations: ``idx`` of those to show.
        reading: of the whole table, from which the activations are shown.

    Returns:
        ``idx, model, sample, start, end, fate, against``; ``start:end`` are characters of that
        row's explanation. On a model's explanation ``fate`` is ``kept``, ``reworded`` or
        ``added`` (the reference says nothing of it); on the reference's it is ``kept``,
        ``reworded`` or ``omitted`` by the model that ``against`` names. Quoted spans have the
        fate ``quote``.
    """
    rows = completions.rows.filter(pl.col("idx").is_in(list(activations)))
    pairs = [
        pair for pair in text_pairs(rows, completions.reference) if pair.model != RESAMPLING_FLOOR
    ]
    found: list[_Row] = []
    for model in completions.models:
        own = [pair for pair in pairs if pair.model == model]
        for pair, segmentation in zip(own, reading.segmented(model, own), strict=True):
            found += _of_model(pair, segmentation)
            found += _of_reference(pair, segmentation, completions.reference)
    found += _quotes(rows)
    return pl.DataFrame(found, schema=_SCHEMA, orient="row")


def _of_model(pair: TextPair, segmentation: Segmentation) -> Iterator[_Row]:
    there = _words(pair.reference.claims)
    supported = segmentation.supported(len(pair.other.claims))
    for claim, share in zip(pair.other.claims, supported, strict=True):
        fate = "added" if share < 0.5 else _wording(claim, there)
        yield pair.idx, pair.model, pair.sample, claim.start, claim.end, fate, None


def _of_reference(pair: TextPair, segmentation: Segmentation, reference: str) -> Iterator[_Row]:
    there = _words(pair.other.claims)
    for claim, kept in zip(pair.reference.claims, segmentation.kept, strict=True):
        fate = "omitted" if kept < 0.5 else _wording(claim, there)
        yield pair.idx, reference, pair.reference_sample, claim.start, claim.end, fate, pair.model


def _quotes(rows: pl.DataFrame) -> Iterator[_Row]:
    with_text = rows.filter(pl.col("explanation").is_not_null())
    for idx, model, sample, text in with_text.select(
        "idx", "model", "sample", "explanation"
    ).iter_rows():
        for quote in quoted_spans(text):
            yield idx, model, sample, quote.start, quote.end, "quote", None


def _words(claims: Sequence[Claim]) -> set[str]:
    return {word for claim in claims for word in claim.stems}


def _wording(claim: Claim, there: set[str]) -> str:
    shared = sum(word in there for word in claim.stems) / len(claim.stems)
    return "kept" if shared >= MIN_SHARED_WORDS else "reworded"
