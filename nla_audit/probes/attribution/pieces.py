"""Texts from which one word or one claim is missing, that end early, or say it in another order.

Reading them tells where in an explanation the reconstruction comes from. Tokens here are words,
numbers and punctuation marks, the same for every AR, so that each has a kind ("a name", "inside
quotes"); an AR's own tokens cut through them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nla_audit.text.items import named_entities, numbers
from nla_audit.text.parts import QUOTE_MARKS, claim_pieces, quote_extents
from nla_audit.text.words import FUNCTION_WORDS, word_spans

INSIDE, MARKS, OUTSIDE = PLACES = ("inside quotes", "quote marks", "outside quotes")

QUOTED, QUOTE_MARK, NAME, NUMBER, CONTENT, FUNCTION, PUNCTUATION = TOKEN_KINDS = (
    "quoted",
    "quote mark",
    "name",
    "number",
    "content word",
    "function word",
    "punctuation",
)

Floats = npt.NDArray[np.float64]
#: ``(texts, number of the search that asks for each) → FVE``, NaN where there is no score.
ScoreOrders = Callable[[list[str], list[int]], Floats]

_VISIBLE = re.compile(r"\S")
#: What closes up to the word before it, and what opens onto the word behind it.
_CLOSES = re.compile(r"[\n,.;:!?)\]}…，。；：！？]")
_OPENS = QUOTE_MARKS + "([{"


@dataclass(frozen=True, slots=True)
class Token:
    """A word, number or punctuation mark of a text: ``text[start:end]``.

    Attributes:
        kind: one of :data:`TOKEN_KINDS`. What stands inside quotes is ``quoted``, whatever else
            it is.
        place: one of :data:`PLACES`.
    """

    start: int
    end: int
    text: str
    kind: str
    place: str


def tokens_of(text: str) -> list[Token]:
    """The tokens of ``text``, in order; together they hold all of it but white space.

    A number is one token, separators included. Punctuation between two words is one token, but
    each mark that opens or closes a quotation is one of its own.
    """
    extents = quote_extents(text)
    edges = {place for start, end in extents for place in (start, end - 1)}
    marks = {place for place in edges if text[place] in QUOTE_MARKS}
    number_spans = [(item.start, item.end) for item in numbers(text)]
    names = [(item.start, item.end) for item in named_entities(text)]
    spans = _merged([*word_spans(text), *number_spans])
    tokens = []
    for start, end in sorted([*spans, *_between(text, spans, marks)]):
        word = text[start:end]
        place = MARKS if start in marks else INSIDE if _within(start, extents) else OUTSIDE
        if place == MARKS:
            kind = QUOTE_MARK
        elif place == INSIDE:
            kind = QUOTED
        elif _within(start, number_spans):
            kind = NUMBER
        elif not any(character.isalnum() for character in word):
            kind = PUNCTUATION
        elif _within(start, names):
            kind = NAME
        else:
            is_function = word.lower().replace("’", "'") in FUNCTION_WORDS
            kind = FUNCTION if is_function else CONTENT
        tokens.append(Token(start, end, word, kind, place))
    return tokens


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """``spans`` in order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _between(text: str, spans: Sequence[tuple[int, int]], marks: set[int]) -> list[tuple[int, int]]:
    """Runs of visible characters outside of ``spans``; each of ``marks`` is a run of its own."""
    found: list[tuple[int, int]] = []
    place = 0
    for start, end in [*spans, (len(text), len(text))]:
        for match in _VISIBLE.finditer(text, place, start):
            at = match.start()
            is_new = at in marks or at - 1 in marks or not found or found[-1][1] != at
            if is_new:
                found.append((at, at + 1))
            else:
                found[-1] = (found[-1][0], at + 1)
        place = end
    return found


def _within(place: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= place < end for start, end in spans)


def without_token(text: str, token: Token) -> str:
    """``text`` without ``token``; of the white space around it one side is left.

    Nothing else changes: a line that loses all of its text goes with it, and marks close up to
    what is left between them.
    """
    left, right = text[: token.start], text[token.end :]
    if not left or left[-1].isspace():
        stripped = right.lstrip(" \t")
        if left.endswith(("\n", "\r")) or not left:
            right = stripped.removeprefix("\n")
        elif not stripped or _CLOSES.match(stripped) or right[0] in QUOTE_MARKS:
            left, right = left.rstrip(" \t"), stripped
        else:
            right = stripped
    elif left[-1] in _OPENS:
        right = right.lstrip(" \t")
    return f"{left}{right}".strip()


def prefixes(text: str, tokens: Sequence[Token]) -> list[str]:
    """``[tokens + 1]`` beginnings of ``text``: after no token, the first, …, all of it."""
    return ["", *(text[: token.end].strip() for token in tokens[:-1]), *([text] if tokens else [])]


@dataclass(frozen=True)
class ClaimPieces:
    """The claims of a text and what separates them: ``gaps[0] + claims[0] + gaps[1] + …``."""

    claims: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> ClaimPieces:
        """The pieces of ``text``; empty text has no claims."""
        claims, gaps = claim_pieces(text)
        return cls(tuple(claims), tuple(gaps))

    def arranged(self, order: Sequence[int], *, rejoined: bool = False) -> str:
        """The text that says the claims ``order``, in that order.

        Args:
            order: numbers of claims, all or the first few.
            rejoined: separate the claims in another way than the text does (a line each, or by a
                space where each already has its line). The same order in other words' places: what
                a reader finds in both is the order's, and not of one text's exact characters.
        """
        said = [self.claims[number] for number in order]
        if rejoined:
            has_lines = all("\n" in gap for gap in self.gaps[1:-1])
            return (" " if has_lines else "\n").join(said).strip()
        pieces = [self.gaps[0]]
        for number, claim in enumerate(said):
            is_last = number == len(said) - 1
            gap = self.gaps[number + 1]
            pieces += [claim, gap if not is_last or len(said) == len(self.claims) else ""]
        return "".join(pieces).strip()


def greedy_orders(
    pieces: Sequence[ClaimPieces], ties: Sequence[Sequence[int]], score: ScoreOrders
) -> list[tuple[int, ...]]:
    """For each text, its claims ordered by what each adds to those before it.

    Begins with the claim that scores best alone and appends, time and again, the one that raises
    the score most. The candidates of all texts in one round are scored in one call. A text of *m*
    claims takes about m²/2 scores.

    Args:
        pieces: one for each search.
        ties: for each search all its claims, those that win over equals first. In random order,
            or claims that are worth nothing would seem to be in the order of the text.
        score: called once a round with candidate texts and the number of the search of each.
    """
    orders: list[list[int]] = [[] for _ in pieces]
    left = [list(order) for order in ties]
    while any(len(remaining) > 1 for remaining in left):
        asked: list[str] = []
        searches: list[int] = []
        for search, remaining in enumerate(left):
            if len(remaining) > 1:
                for claim in remaining:
                    asked.append(pieces[search].arranged([*orders[search], claim]))
                    searches.append(search)
        scores = np.nan_to_num(score(asked, searches), nan=-np.inf)
        of = np.array(searches)
        for search in sorted(set(searches)):
            best = int(np.argmax(scores[of == search]))
            orders[search].append(left[search].pop(best))
    return [(*order, *remaining) for order, remaining in zip(orders, left, strict=True)]
