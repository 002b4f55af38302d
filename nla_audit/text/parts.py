"""Pieces that several transforms work on: quoted spans, what stands between them, claims."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from nla_audit.text.claims import split_claims
from nla_audit.text.items import quoted_spans

#: Marks that open or close a quotation, in the pairs that ``quoted_spans`` knows.
QUOTE_MARKS = "\"“”«»「」`‘’'"


def outside_quotes(text: str, change: Callable[[str], str]) -> str:
    """``text`` with ``change`` applied to what stands between the quoted spans."""
    pieces, place = [], 0
    for span in quoted_spans(text):
        pieces += [change(text[place : span.start]), text[span.start : span.end]]
        place = span.end
    return "".join([*pieces, change(text[place:])])


def quote_extents(text: str) -> list[tuple[int, int]]:
    """Spans of the quotations of ``text`` with their marks, in order."""
    extents, place = [], 0
    for span in quoted_spans(text):
        start, end = span.start, span.end
        # The span leaves out punctuation inside of the marks ("word,"): go out to the marks.
        while start > place and text[start - 1] not in QUOTE_MARKS:
            start -= 1
        while end < len(text) and text[end] not in QUOTE_MARKS:
            end += 1
        extents.append((max(place, start - 1), min(len(text), end + 1)))
        place = extents[-1][1]
    return extents


def with_quotes(text: str, change: Callable[[str], str]) -> str:
    """``text`` with each quoted span, its marks included, replaced by ``change(span)``."""
    pieces, place = [], 0
    for start, end in quote_extents(text):
        pieces += [text[place:start], change(text[start:end])]
        place = end
    return "".join([*pieces, text[place:]])


def claim_pieces(text: str) -> tuple[list[str], list[str]]:
    """``(claims, gaps)``: the text is ``gaps[0] + claims[0] + gaps[1] + … + gaps[-1]``."""
    claims, gaps = _pieces(text)
    return list(claims), list(gaps)


@lru_cache(maxsize=1 << 13)  # several transforms cut the same texts
def _pieces(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    claims, gaps, place = [], [], 0
    for claim in split_claims(text):
        gaps.append(text[place : claim.start])
        claims.append(claim.text)
        place = claim.end
    return tuple(claims), (*gaps, text[place:])


def joined(claims: list[str], gaps: list[str]) -> str:
    """The inverse of :func:`claim_pieces`."""
    pieces = [gaps[0]]
    for claim, gap in zip(claims, gaps[1:], strict=True):
        pieces += [claim, gap]
    return "".join(pieces)
