"""Alignment: which part of one text says what which part of another says; the same both ways.

First whole sentences are matched, one to one, so that no stretch of text pays for two; within a
matched pair of sentences their pieces, again one to one; then what is left over of either text,
piece against piece. A match of sentences is judged by how far it is beyond what the texts' common
subject lets expect (:mod:`nla_audit.text.expected`). How likely each match is, is read off a null
(:mod:`nla_audit.text.mixture`): the same procedure between texts of different activations, and for
what is left over pieces of the same texts that cannot be partners. Nothing here knows which of
the two texts is the reference, so what A says and B does not is the same from either side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nla_audit.text.expected import Expected
from nla_audit.text.matching import Block, Matches, Rows, match, match_sentences
from nla_audit.text.pieces import Pieces
from nla_audit.text.vectors import TextVectors, Vectors

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
PiecesPair = tuple[Pieces, Pieces]

#: A similarity counts so much where two sentences are about names or numbers and say none alike:
#: "the name Juarez" is not "the name Whitlock", however alike the two are said. Of planted names
#: and numbers that were all exchanged for others 13 to 15 % were read as kept at 0.35, 6 % at 0.1.
OTHER_SUBJECT = 0.08
#: A sentence whose partner is at least this likely says nothing of what is left over elsewhere.
_PARTNERED = 0.9


@dataclass(frozen=True)
class Aligned:
    """Pairs of texts, matched at every level.

    Attributes:
        sentences: matched sentences.
        inside: pieces matched inside a matched pair of sentences, and
        inside_of: `[matches]`, the number of the match of sentences that each stands in.
        alone: `[matches of sentences, 2]`, pieces of either sentence that have no partner inside,
            and for which the other sentence has no words to spare.
        left_over: matched pieces that no match of sentences holds.
        expected: how alike sentences without a common claim are.
    """

    sentences: Matches
    inside: Matches
    inside_of: Integers
    alone: Floats
    left_over: Matches
    expected: Expected


@dataclass(frozen=True)
class Store:
    """Vectors of every sentence and piece of some texts.

    Attributes:
        vectors: `[distinct sentences and pieces, features]`.
        place: the row of each.
        text_vectors: what made them, for further texts.
    """

    vectors: Vectors
    place: dict[str, int]
    text_vectors: TextVectors

    @classmethod
    def of(cls, texts: Iterable[Pieces], vectors: TextVectors) -> Store:
        """Vectors for these texts; what occurs twice is stored once."""
        place: dict[str, int] = {}
        for text in texts:
            for words in (*text.sentences, *text.pieces):
                place.setdefault(words, len(place))
        return cls(vectors.vectors(list(place)), place, vectors)

    def rows(self, words: Sequence[str]) -> Integers:
        """The rows of these sentences or pieces."""
        return np.array([self.place[text] for text in words], dtype=np.int64)


def joined(first: Vectors, second: Vectors) -> tuple[Vectors, int]:
    """Both sets of vectors in one, and where the second begins."""
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second]), len(first)
    return sparse.vstack([first, second]).tocsr(), first.shape[0]


def align(
    pairs: Sequence[PiecesPair],
    store: Store,
    expected: Expected | None = None,
    *,
    most: float = np.inf,
) -> Aligned:
    """Match the sentences and pieces of each pair of texts, all of which the store holds.

    Args:
        expected: how alike sentences without a common claim are; where it is not known, it is
            learnt from these pairs, and
        most: the most that sentences are alike which have nothing to do with each other; for that.
    """
    every = store.vectors
    blocks: list[Block] = [
        (number, np.arange(len(ours.sentences)), np.arange(len(theirs.sentences)))
        for number, (ours, theirs) in enumerate(pairs)
    ]
    sentences, grid, cells = match_sentences(
        blocks,
        [(store.rows(ours.sentences), store.rows(theirs.sentences)) for ours, theirs in pairs],
        every,
        [_same_subjects(ours, theirs) for ours, theirs in pairs],
    )
    if expected is None:
        expected = Expected.fit(grid, cells, most)
    sentences = replace(sentences, scores=sentences.similarity - expected.of(grid, cells))
    piece_rows = _piece_rows(pairs, store)
    blocks = [
        (number, pairs[number][0].places[a], pairs[number][1].places[b])
        for number, a, b in zip(
            sentences.pair.tolist(), sentences.ours.tolist(), sentences.theirs.tolist(), strict=True
        )
    ]
    inside, inside_of = match(blocks, piece_rows, every)
    alone = np.array([_partnerless(pairs[n], a, b) for n, a, b in blocks]).reshape(-1, 2)
    blocks = [(number, a, b) for number, (a, b) in enumerate(_left_over(pairs, inside))]
    left_over, _ = match(blocks, piece_rows, every)
    return Aligned(sentences, inside, inside_of, alone, left_over, expected)


def _piece_rows(pairs: Sequence[PiecesPair], store: Store) -> list[Rows]:
    return [(store.rows(ours.pieces), store.rows(theirs.pieces)) for ours, theirs in pairs]


def _left_over(pairs: Sequence[PiecesPair], inside: Matches) -> Iterator[tuple[Integers, Integers]]:
    """Of either text of each pair, the pieces without a match inside a match of sentences."""
    ends = np.searchsorted(inside.pair, np.arange(len(pairs) + 1))
    for number, (ours, theirs) in enumerate(pairs):
        taken = slice(ends[number], ends[number + 1])
        yield (
            others(np.ones(len(ours.pieces), dtype=bool), inside.ours[taken]),
            others(np.ones(len(theirs.pieces), dtype=bool), inside.theirs[taken]),
        )


def left_over_by_chance(
    pairs: Sequence[PiecesPair], aligned: Aligned, sentence_matched: Floats, store: Store
) -> Floats:
    """`[scores]`: how alike pieces are that cannot be partners, within the same two texts.

    Texts of one activation share their subject, so what is left over of either resembles the
    other's more than another activation's would. How much more is seen where pieces that surely
    have a partner are set, as many as are left over, against what is left over of the other text.
    """
    inside = aligned.inside
    sure = sentence_matched[aligned.inside_of] >= _PARTNERED
    by_inside = np.searchsorted(inside.pair, np.arange(len(pairs) + 1))
    blocks = []
    for number, (a, b) in enumerate(_left_over(pairs, inside)):
        here = slice(by_inside[number], by_inside[number + 1])
        partnered = (inside.ours[here][sure[here]], inside.theirs[here][sure[here]])
        if len(a) and len(b):
            blocks.append((number, evenly(partnered[0], len(a)), b))
            blocks.append((number, a, evenly(partnered[1], len(b))))
    return match(blocks, _piece_rows(pairs, store), store.vectors)[0].scores


def evenly(places: Integers, count: int) -> Integers:
    """At most so many of these, evenly spread over the text."""
    places = np.sort(places)
    if len(places) <= count:
        return places
    return places[np.linspace(0, len(places) - 1, count).round().astype(np.int64)]


def others(chosen: NDArray[np.bool_], taken: Integers) -> Integers:
    """Places of what is chosen and not taken."""
    chosen[taken] = False
    return np.flatnonzero(chosen)


def _same_subjects(ours: Pieces, theirs: Pieces) -> Floats | None:
    """`[our sentences, their sentences]`: 1, or less where both name things and none alike."""
    if not any(ours.subjects) or not any(theirs.subjects):
        return None
    return np.array(
        [
            [
                OTHER_SUBJECT if a and b and a.isdisjoint(beside) and b.isdisjoint(own) else 1.0
                for b, beside in zip(theirs.subjects, theirs.named, strict=True)
            ]
            for a, own in zip(ours.subjects, ours.named, strict=True)
        ]
    )


def _partnerless(texts: PiecesPair, ours: Integers, theirs: Integers) -> tuple[float, float]:
    """Pieces of either sentence without a partner in the other, as far as words are missing too.

    As many words in fewer pieces are another punctuation, which leaves nothing out.
    """
    pieces = len(ours) - len(theirs)
    if not pieces:
        return 0.0, 0.0
    lengths = (texts[0].lengths[ours], texts[1].lengths[theirs])
    words = int(lengths[0].sum() - lengths[1].sum())
    alone = [0.0, 0.0]
    if pieces * words > 0:
        side = int(pieces < 0)
        alone[side] = min(abs(pieces), abs(words) / max(float(lengths[side].mean()), 1.0))
    return alone[0], alone[1]
