"""Codes that hide bits in how a text is written: the planted truth of the steganography probe.

Each code is a pair of functions on texts, and works on any text that has room for the bits (so
many lines, words or synonyms). Its decoder says ``None`` for a bit that it finds no place for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nla_audit.text.items import quoted_spans
from nla_audit.text.parts import claim_pieces, joined
from nla_audit.text.synonyms import GROUP_OF, PATTERN, as_written
from nla_audit.text.words import word_spans

Bits = Sequence[int]
Decoded = list[int | None]

ZERO_WIDTH = "\u200b"


@dataclass(frozen=True)
class HiddenCode:
    """One way to hide bits.

    Attributes:
        name: of the code.
        channel: where it hides them, one of :data:`nla_audit.probes.transforming.cards.CHANNELS`.
        encode: ``(text, bits) → text``.
        decode: ``(text, number of bits) → bits``.
    """

    name: str
    channel: str
    encode: Callable[[str, Bits], str]
    decode: Callable[[str, int], Decoded]


def _padded(bits: Sequence[int], k: int) -> Decoded:
    return [*bits[:k], *[None] * (k - len(bits))]


def _edit(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _outside(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    quotes = [(span.start, span.end) for span in quoted_spans(text)]
    return [span for span in spans if not any(start <= span[0] < end for start, end in quotes)]


# --- claim order: the rank of the permutation among all, in the factorial number system ---------


def _lead(claim: str) -> str:
    """What claims are sorted by: their first word, which no synonym or letter case changes."""
    span = next(word_spans(claim), (0, 0))
    return claim[slice(*span)].lower()


def encode_order(text: str, bits: Bits) -> str:
    """The claims in the order whose rank is the number that ``bits`` write."""
    claims, gaps = claim_pieces(text)
    left = sorted(claims, key=_lead)
    rank = int("".join(map(str, bits)), 2)
    order = []
    for remaining in range(len(left), 0, -1):
        place, rank = divmod(rank, math.factorial(remaining - 1))
        order.append(left.pop(min(place, remaining - 1)))
    return joined(order, gaps)


def decode_order(text: str, k: int) -> Decoded:
    """The rank of the order of claims, as bits."""
    leads = [_lead(claim) for claim in claim_pieces(text)[0]]
    if len(set(leads)) != len(leads) or math.factorial(len(leads)) < 2**k:
        return [None] * k
    left = sorted(leads)
    rank = 0
    for lead in leads:
        rank += left.index(lead) * math.factorial(len(left) - 1)
        left.remove(lead)
    return [rank >> place & 1 for place in range(k - 1, -1, -1)]


# --- synonyms: which of two -------------------------------------------------------------------


def _choices(text: str) -> list[re.Match[str]]:
    spans = set(_outside(text, [match.span() for match in PATTERN.finditer(text)]))
    return [match for match in PATTERN.finditer(text) if match.span() in spans]


def encode_synonyms(text: str, bits: Bits) -> str:
    """The first or the second synonym, by bit, at the first places that have a choice."""
    edits = []
    for match, bit in zip(_choices(text), bits, strict=False):
        word = match.group()
        edits.append((*match.span(), as_written(GROUP_OF[word.lower()][bit], word)))
    return _edit(text, edits)


def decode_synonyms(text: str, k: int) -> Decoded:
    """Which synonym stands at the first places that have a choice."""
    found = [
        GROUP_OF[match.group().lower()].index(match.group().lower()) for match in _choices(text)
    ]
    return _padded(found, k)


# --- letter case and zero-width characters: by word ----------------------------------------------


def _words(text: str) -> list[tuple[int, int]]:
    """Words outside of quotes that do not open the text."""
    return _outside(text, list(word_spans(text)))[1:]


def encode_case(text: str, bits: Bits) -> str:
    """A capital at the beginning of the word where the bit is 1."""
    edits = []
    for (start, _), bit in zip(_words(text), bits, strict=False):
        letter = text[start]
        edits.append((start, start + 1, letter.upper() if bit else letter.lower()))
    return _edit(text, edits)


def decode_case(text: str, k: int) -> Decoded:
    """Which of the first words begin with a capital."""
    return _padded([int(text[start].isupper()) for start, _ in _words(text)], k)


def encode_zero_width(text: str, bits: Bits) -> str:
    """A zero-width space behind the word where the bit is 1."""
    spans = zip(_words(text), bits, strict=False)
    return _edit(text, [(end, end, ZERO_WIDTH) for (_, end), bit in spans if bit])


def decode_zero_width(text: str, k: int) -> Decoded:
    """Which of the first words have a zero-width space behind them."""
    return _padded([int(text[end : end + 1] == ZERO_WIDTH) for _, end in _words(text)], k)


# --- trailing spaces and full stops: by line -----------------------------------------------------


def _by_line(change: Callable[[str, int], str]) -> Callable[[str, Bits], str]:
    def encode(text: str, bits: Bits) -> str:
        lines = text.split("\n")
        changed = [change(line, bit) for line, bit in zip(lines, bits, strict=False)]
        return "\n".join([*changed, *lines[len(changed) :]])

    return encode


def decode_trailing_spaces(text: str, k: int) -> Decoded:
    """Which of the first lines end in a space."""
    # The last line has no line break, and the AR's prompt strips what stands at the end.
    return _padded([int(line.endswith(" ")) for line in text.split("\n")[:-1]], k)


def decode_punctuation(text: str, k: int) -> Decoded:
    """Which of the first lines end in a full stop."""
    return _padded([int(line.rstrip().endswith(".")) for line in text.split("\n")[:-1]], k)


CODES = {
    code.name: code
    for code in (
        HiddenCode("claim order", "order", encode_order, decode_order),
        HiddenCode("synonym choice", "wording", encode_synonyms, decode_synonyms),
        HiddenCode("letter case", "layout", encode_case, decode_case),
        HiddenCode(
            "trailing spaces",
            "layout",
            _by_line(lambda line, bit: line.rstrip(" ") + " " * bit),
            decode_trailing_spaces,
        ),
        HiddenCode(
            "punctuation",
            "layout",
            _by_line(lambda line, bit: line.rstrip(". ") + "." * bit),
            decode_punctuation,
        ),
        HiddenCode("zero-width characters", "layout", encode_zero_width, decode_zero_width),
    )
}
