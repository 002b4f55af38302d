"""What was read, as the rows of tables: of the reference's claims, and of explanations."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from nla_audit.text.pairs import TextPair
from nla_audit.text.segmentation import Segmentation

_CLAIMS = {
    "model": pl.Categorical,
    "idx": pl.Int64,
    "sample": pl.Int32,
    "reference_sample": pl.Int32,
    "claim": pl.Int16,
    "start": pl.Int32,
    "end": pl.Int32,
    "kind": pl.Categorical,
    "tokens": pl.Float32,
    "kept": pl.Float32,
}


def rows_of_claims(pairs: Sequence[TextPair], found: Sequence[Segmentation]) -> pl.DataFrame:
    """A row for each claim of a reference, with the share of it that is kept."""
    columns: dict[str, list] = {name: [] for name in _CLAIMS}
    for pair, segmentation in zip(pairs, found, strict=True):
        claims = pair.reference.claims
        columns["model"] += [pair.model] * len(claims)
        columns["idx"] += [pair.idx] * len(claims)
        columns["sample"] += [pair.sample] * len(claims)
        columns["reference_sample"] += [pair.reference_sample] * len(claims)
        columns["claim"] += range(len(claims))
        columns["start"] += [claim.start for claim in claims]
        columns["end"] += [claim.end for claim in claims]
        columns["kind"] += [claim.kind for claim in claims]
        columns["tokens"] += pair.reference.tokens.tolist()
        columns["kept"] += segmentation.kept.tolist()
    return pl.DataFrame(columns, schema=_CLAIMS)


def rows_of_explanations(pairs: Sequence[TextPair], found: Sequence[Segmentation]) -> pl.DataFrame:
    """A row for each explanation: what it keeps of its reference, and what it adds."""
    kept_tokens, supported_tokens, lost, new = [], [], [], []
    other_words, words = [], []
    for pair, segmentation in zip(pairs, found, strict=True):
        supported = segmentation.supported(len(pair.other.claims))
        kept_tokens.append(float(pair.reference.tokens @ segmentation.kept))
        supported_tokens.append(float(pair.other.tokens @ supported))
        lost.append(float((1 - segmentation.kept).sum()))
        new.append(float((1 - supported).sum()))
        other_words.append(segmentation.other_words)
        words.append(float(pair.other.pieces.lengths.sum()))
    return pl.DataFrame(
        {
            "model": [pair.model for pair in pairs],
            "idx": [pair.idx for pair in pairs],
            "sample": [pair.sample for pair in pairs],
            "tokens_reference": [pair.reference.content_tokens for pair in pairs],
            "tokens_model": [pair.other.content_tokens for pair in pairs],
            "kept_tokens": kept_tokens,
            "supported_tokens": supported_tokens,
            "overhead_saving": [
                pair.reference.fixed_tokens - pair.other.fixed_tokens for pair in pairs
            ],
            "claims_reference": [len(pair.reference.claims) for pair in pairs],
            "claims_model": [len(pair.other.claims) for pair in pairs],
            "lost_claims": lost,
            "new_claims": new,
            "other_words": other_words,
            "content_words": words,
        },
        schema={
            "model": pl.String,
            "idx": pl.Int64,
            "sample": pl.Int32,
            "tokens_reference": pl.Float64,
            "tokens_model": pl.Float64,
            "kept_tokens": pl.Float64,
            "supported_tokens": pl.Float64,
            "overhead_saving": pl.Float64,
            "claims_reference": pl.Float64,
            "claims_model": pl.Float64,
            "lost_claims": pl.Float64,
            "new_claims": pl.Float64,
            "other_words": pl.Float64,
            "content_words": pl.Float64,
        },
    )
