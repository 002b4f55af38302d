"""Pieces: the smallest parts of a text that can be there or not, and the sentences they stand in.

A claim (:mod:`nla_audit.text.claims`) may hold several details, set off by punctuation. Whether a
claim was said in fewer words or lost a detail is seen only in its pieces.

Models differ in how they punctuate: what one says in three sentences another runs together in one
line without a mark. So that texts are compared in parts of like size whatever their marks, a
stretch without any is cut into equal pieces, and a long sentence into several.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nla_audit.text.claims import Claim
from nla_audit.text.kinds import FINAL_TOKEN
from nla_audit.text.numerals import all_digits
from nla_audit.text.peoples import each_folded
from nla_audit.text.words import (
    content_size,
    mentions,
    piece_count,
    stem,
    word_spans,
    words_and_mentions,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: A piece with fewer content words than this belongs to the piece before it.
MIN_PIECE_WORDS = 2
#: Content words of a piece and of a sentence: longer ones are cut into parts of about as many.
#: Measured on real texts with and without their punctuation (``benchmarks/reading_form.md``).
PIECE_WORDS, SENTENCE_WORDS = 6, 10
#: A text of more sentences or pieces is cut more coarsely, into about as many: what a reading costs
#: grows with the square of these.
MOST_SENTENCES = 128
MOST_PIECES = 512

#: What introduces examples is no detail, but goes with the first of them.
_INTRODUCES = re.compile(r"\W*(?:e\.\s?g|i\.\s?e|etc|viz|cf)\W*", re.IGNORECASE)
_SEPARATOR = re.compile(r"(?<=[.;,:])\s+|\s+[—–-]\s+|\s+(?=\()")


@dataclass(frozen=True)
class Pieces:
    """A text's sentences and their pieces.

    Attributes:
        sentences: the words of each sentence, or of each part of a long one.
        pieces: the words of each piece, sentence by sentence.
        sentence_of: `[pieces]`, the sentence that each piece is in.
        claim_of: `[pieces]`, the claim that each piece is in.
        tokens: `[pieces]`, content tokens; those of a claim's pieces sum to the claim's.
        lengths: `[pieces]`, content words.
        subjects: for each sentence the stems of the names and numbers that its claims are about.
        mentions: for each piece the stems of the words that it quotes alone.
        of_final_token: `[pieces]`, whether the claim of each is about the final token.
    """

    sentences: list[str]
    pieces: list[str]
    sentence_of: Integers
    claim_of: Integers
    tokens: Floats
    lengths: Integers
    subjects: list[frozenset[str]]
    mentions: list[frozenset[str]]
    of_final_token: NDArray[np.bool_]

    @cached_property
    def sentence_words(self) -> list[Sequence[str]]:
        """The words of each sentence, split."""
        return [words_and_mentions(text) for text in self.sentences]

    @cached_property
    def piece_words(self) -> list[Sequence[str]]:
        """The words of each piece, split."""
        return [words_and_mentions(text) for text in self.pieces]

    @cached_property
    def named(self) -> list[frozenset[str]]:
        """What each sentence that is about names or numbers says of any, as subjects are told.

        A number by its digits, too, where it is spelt, and a country by its people.
        """
        return [
            all_digits(text, said).union(map(stem, each_folded(said))) if about else frozenset()
            for text, said, about in zip(
                self.sentences, self.sentence_words, self.subjects, strict=True
            )
        ]

    @cached_property
    def places(self) -> list[Integers]:
        """Which pieces each sentence has."""
        return [np.flatnonzero(self.sentence_of == place) for place in range(len(self.sentences))]

    @cached_property
    def quotes_a_word(self) -> NDArray[np.bool_]:
        """`[pieces]`, whether each quotes a word alone."""
        return np.array([bool(found) for found in self.mentions], dtype=np.bool_)

    @property
    def words(self) -> str:
        """All that is said."""
        return " ".join(self.sentences)


@dataclass(frozen=True)
class _Piece:
    text: str
    claim: int
    tokens: float
    length: int


def pieces_of(claims: Sequence[Claim], tokens: Floats) -> Pieces:
    """The pieces of a text's claims, whose content tokens are ``tokens``: `[claims]`."""
    said: list[str] = []
    subjects: list[frozenset[str]] = []
    sentence_of: list[int] = []
    pieces: list[_Piece] = []
    sentences = _sentences(claims, tokens)
    every = sum(piece.length for sentence in sentences for piece in sentence)
    size = max(SENTENCE_WORDS, every / MOST_SENTENCES)
    for sentence in sentences:
        for part in _parts(sentence, size):
            text = " ".join(piece.text for piece in part)
            about = frozenset().union(*(claims[piece.claim].subjects for piece in part))
            if about and len(part) < len(sentence):
                about &= {stem(word) for word in words_and_mentions(text)}
            said.append(text)
            subjects.append(about)
            sentence_of += [len(said) - 1] * len(part)
            pieces += part
    return Pieces(
        sentences=said,
        pieces=[piece.text for piece in pieces],
        sentence_of=np.array(sentence_of, dtype=np.int64),
        claim_of=np.array([piece.claim for piece in pieces], dtype=np.int64),
        tokens=np.array([piece.tokens for piece in pieces], dtype=np.float64),
        lengths=np.array([piece.length for piece in pieces], dtype=np.int64),
        subjects=subjects,
        mentions=[mentions(piece.text) for piece in pieces],
        of_final_token=np.array(
            [claims[piece.claim].kind == FINAL_TOKEN for piece in pieces], dtype=np.bool_
        ),
    )


def _sentences(claims: Sequence[Claim], tokens: Floats) -> list[list[_Piece]]:
    """The pieces of each sentence; of a very long text, of several sentences at a time."""
    numbers = sorted({claim.sentence for claim in claims})
    each = -(-len(numbers) // MOST_SENTENCES) if numbers else 1
    place = {number: order // each for order, number in enumerate(numbers)}
    found: list[list[_Piece]] = [[] for _ in range(max(place.values(), default=-1) + 1)]
    most = max(1, MOST_PIECES // max(len(claims), 1))
    for number, claim in enumerate(claims):
        function_words = claim.language.function_words
        parts = _split(claim.text, function_words)
        texts = _coarser([cut for part in parts for cut in _cut(part, function_words)], most)
        costs = np.array([max(piece_count(text), 1) for text in texts], dtype=np.float64)
        shares = (tokens[number] * costs / costs.sum()).tolist()
        found[place[claim.sentence]] += [
            _Piece(text, number, share, content_size(text, function_words))
            for text, share in zip(texts, shares, strict=True)
        ]
    return found


def _parts(sentence: Sequence[_Piece], size: float) -> list[list[_Piece]]:
    """A sentence in parts of about ``size`` content words."""
    whole = sum(piece.length for piece in sentence)
    count = min(max(1, round(whole / size)), len(sentence))
    parts: list[list[_Piece]] = [[] for _ in range(count)]
    before = 0
    for piece in sentence:
        middle = (before + piece.length / 2) / max(whole, 1)
        parts[min(int(middle * count), count - 1)].append(piece)
        before += piece.length
    return [part for part in parts if part]


def _cut(text: str, function_words: frozenset[str]) -> list[str]:
    """A stretch without marks in equal parts of about :data:`PIECE_WORDS` content words."""
    count = round(content_size(text, function_words) / PIECE_WORDS)
    if count < 2:
        return [text]
    starts = [start for start, _ in word_spans(text)]
    count = min(count, len(starts))  # a single character may stand for several words
    if count < 2:
        return [text]
    edges = [0, *(starts[round(part * len(starts) / count)] for part in range(1, count)), len(text)]
    return [text[start:end].strip() for start, end in pairwise(edges)]


def _split(text: str, function_words: frozenset[str]) -> list[str]:
    found: list[str] = []
    length = MIN_PIECE_WORDS
    introduced = ""
    for part in _SEPARATOR.split(text):
        if not part.strip():
            continue
        if _INTRODUCES.fullmatch(part):
            introduced += part + " "
            continue
        count = content_size(part, function_words)
        if found and (length < MIN_PIECE_WORDS or count < MIN_PIECE_WORDS):
            found[-1] += " " + introduced + part
            length += count
        else:
            found.append(introduced + part)
            length = count
        introduced = ""
    if introduced:
        found.append(introduced.strip())
    return found


def _coarser(parts: list[str], most: int) -> list[str]:
    each = -(-len(parts) // most)
    if each <= 1:
        return parts
    return [" ".join(parts[start : start + each]) for start in range(0, len(parts), each)]
