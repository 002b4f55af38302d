"""Pieces: the smallest parts of a text that can be there or not, and the sentences they stand in.

A claim (:mod:`nla_audit.text.claims`) may hold several details, set off by punctuation. Whether a
claim was said in fewer words or lost a detail is seen only in its pieces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nla_audit.text.claims import Claim
from nla_audit.text.words import content_count, piece_count, words

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: A piece with fewer content words than this belongs to the piece before it.
MIN_PIECE_WORDS = 2
#: A text of more sentences or pieces is cut more coarsely: what a reading costs grows with the
#: square of these.
MOST_SENTENCES = 128
MOST_PIECES = 512

_SEPARATOR = re.compile(r"(?<=[.;,:])\s+|\s+[—–-]\s+|\s+(?=\()")


@dataclass(frozen=True)
class Pieces:
    """A text's sentences and their pieces.

    Attributes:
        sentences: the words of each sentence.
        pieces: the words of each piece, sentence by sentence.
        sentence_of: `[pieces]`, the sentence that each piece is in.
        claim_of: `[pieces]`, the claim that each piece is in.
        tokens: `[pieces]`, content tokens; those of a claim's pieces sum to the claim's.
        subjects: for each sentence the stems of the names and numbers that its claims are about.
    """

    sentences: list[str]
    pieces: list[str]
    sentence_of: Integers
    claim_of: Integers
    tokens: Floats
    subjects: list[frozenset[str]]

    @cached_property
    def sentence_words(self) -> list[list[str]]:
        """The words of each sentence, split."""
        return [words(text) for text in self.sentences]

    @property
    def words(self) -> str:
        """All that is said."""
        return " ".join(self.sentences)


def pieces_of(claims: Sequence[Claim], tokens: Floats) -> Pieces:
    """The pieces of a text's claims, whose content tokens are ``tokens``: `[claims]`."""
    numbers = sorted({claim.sentence for claim in claims})
    each = -(-len(numbers) // MOST_SENTENCES) if numbers else 1
    place = {number: order // each for order, number in enumerate(numbers)}
    count = max(place.values(), default=-1) + 1
    said: list[list[str]] = [[] for _ in range(count)]
    subjects: list[frozenset[str]] = [frozenset()] * count
    pieces, sentence_of, claim_of, shares = [], [], [], []
    most = max(1, MOST_PIECES // max(len(claims), 1))
    for number, claim in enumerate(claims):
        sentence = place[claim.sentence]
        said[sentence].append(claim.text)
        subjects[sentence] |= claim.subjects
        found = _coarser(_split(claim.text), most) if most > 1 else [claim.text]
        lengths = np.array([max(piece_count(piece), 1) for piece in found], dtype=np.float64)
        pieces += found
        sentence_of += [sentence] * len(found)
        claim_of += [number] * len(found)
        shares += (tokens[number] * lengths / lengths.sum()).tolist()
    return Pieces(
        [" ".join(parts) for parts in said],
        pieces,
        np.array(sentence_of, dtype=np.int64),
        np.array(claim_of, dtype=np.int64),
        np.array(shares, dtype=np.float64),
        subjects,
    )


def _split(text: str) -> list[str]:
    found: list[str] = []
    length = MIN_PIECE_WORDS
    for part in _SEPARATOR.split(text):
        if not part.strip():
            continue
        count = content_count(part)
        if found and (length < MIN_PIECE_WORDS or count < MIN_PIECE_WORDS):
            found[-1] += " " + part
            length += count
        else:
            found.append(part)
            length = count
    return found


def _coarser(parts: list[str], most: int) -> list[str]:
    each = -(-len(parts) // most)
    if each <= 1:
        return parts
    return [" ".join(parts[start : start + each]) for start in range(0, len(parts), each)]
