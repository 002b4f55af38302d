"""Pairs of texts: each explanation beside the reference's explanation of the same activation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.table.model_names import RESAMPLING_FLOOR
from nla_audit.text.claims import Claim, split_claims
from nla_audit.text.pieces import Pieces, pieces_of
from nla_audit.text.words import piece_count

#: A text of more claims than this is read more coarsely: what a reading costs grows with their
#: square.
MOST_CLAIMS = 256


@dataclass(frozen=True)
class TextInClaims:
    """An explanation's claims and what they cost."""

    claims: list[Claim]
    tokens: NDArray[np.float64]  #: content tokens of each claim
    content_tokens: float
    fixed_tokens: float

    @cached_property
    def pieces(self) -> Pieces:
        """The text's sentences and their pieces."""
        return pieces_of(self.claims, self.tokens)


@dataclass(frozen=True)
class TextPair:
    """A reference explanation and another explanation of the same activation."""

    model: str
    idx: int
    sample: int
    reference_sample: int
    reference: TextInClaims
    other: TextInClaims


def text_pairs(rows: pl.DataFrame, reference: str) -> Iterator[TextPair]:
    """Pairs of explanations, sample by sample; a failed one has no text and is left out.

    A sample is read beside another number's of the reference, where there are several: two models
    that share the random numbers of a sample agree more than two samples of either do, and the
    floor is of two samples. With the roles exchanged the same texts are paired.
    """
    columns = ["idx", "model", "sample", "explanation", "content_tokens", "fixed_tokens"]
    texts: dict[tuple[str, int], TextInClaims] = {}
    current: int | None = None
    kept = rows.filter(pl.col("explanation").is_not_null()).select(columns)
    for idx, model, sample, explanation, content, fixed in kept.iter_rows():
        if idx != current:
            if current is not None:
                yield from _pairs_of(current, texts, reference)
            texts, current = {}, idx
        texts[model, sample] = text_of(explanation, content, fixed)
    if current is not None:
        yield from _pairs_of(current, texts, reference)


def _pairs_of(
    idx: int, texts: dict[tuple[str, int], TextInClaims], reference: str
) -> Iterator[TextPair]:
    samples = sorted(sample for model, sample in texts if model == reference)
    if not samples:
        return
    for (model, sample), other in texts.items():
        if model != reference:
            step = 1 if model < reference else -1
            place = samples.index(sample) + step if sample in samples else 0
            partner = samples[place % len(samples)]
            yield TextPair(model, idx, sample, partner, texts[reference, partner], other)
        elif len(samples) > 1:
            following = samples[(samples.index(sample) + 1) % len(samples)]
            second = texts[model, following]
            yield TextPair(RESAMPLING_FLOOR, idx, sample, sample, texts[reference, sample], second)


@lru_cache(maxsize=1 << 13)
def text_of(
    explanation: str, content: float | None = None, fixed: float | None = None
) -> TextInClaims:
    """An explanation in claims; ``content`` and ``fixed`` tokens are its own, where known."""
    claims = _fewer(split_claims(explanation), explanation)
    pieces = np.array([piece_count(claim.text) for claim in claims], dtype=np.float64)
    total = float(pieces.sum()) if content is None else float(content)
    # Separators and stray marks between claims belong to them in proportion, so that the claims'
    # tokens sum to the explanation's.
    tokens = pieces * (total / pieces.sum()) if pieces.sum() > 0 else pieces
    return TextInClaims(
        claims, tokens, total if claims else float(content or 0.0), float(fixed or 0.0)
    )


def _fewer(claims: list[Claim], explanation: str) -> list[Claim]:
    """Neighbouring claims of a very long text taken together, so that there are not too many."""
    each = -(-len(claims) // MOST_CLAIMS)
    if each <= 1:
        return claims
    groups = (claims[start : start + each] for start in range(0, len(claims), each))
    return [
        replace(
            group[0],
            end=group[-1].end,
            text=explanation[group[0].start : group[-1].end],
            stems=tuple(stem for claim in group for stem in claim.stems),
            quotes=sum(claim.quotes for claim in group),
            has_parenthesis=any(claim.has_parenthesis for claim in group),
            subjects=frozenset().union(*(claim.subjects for claim in group)),
        )
        for group in groups
    ]
