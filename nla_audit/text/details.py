"""Details: pieces that no piece of the other text is matched with, and that may still be said.

Pieces are matched one to one, and a terse text has fewer of them: "Mumbai food guide promoting
street food" is one, where "local Mumbai food guide context: the passage promotes its street food"
is two, and both are said; or it puts three sentences of another into one line. So a piece without
a partner is looked for in what is *left* of the other text's sentences: their words that no matched
piece explains. Texts of one activation share their subject, so what a find is worth is not measured
beside other activations' texts but within the same ones: against how well pieces that surely have a
partner resemble what is left of other sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nla_audit.text.alignment import OTHER_SUBJECT, Aligned, PiecesPair, Store, evenly, joined
from nla_audit.text.mixture import TwoGroups, fit_two_groups
from nla_audit.text.pieces import Pieces
from nla_audit.text.vectors import products
from nla_audit.text.words import stem, unheld

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: A match of sentences is one from here on.
_MATCHED = 0.5
#: A piece inside a match at least this likely is of the null elsewhere.
_PARTNERED = 0.9
#: Pieces that look for the same words take turns, so often at most.
_ROUNDS = 4
#: With fewer scores in the null nothing is credited.
_LEAST_NULL = 50
#: Around which place finds that are said lie at the least, on the scale on which the null is
#: standard normal: what is inside a line must be strong evidence.
_LEAST_PLACE = 2.5
#: The match of sentences of a piece whose sentence has none.
UNMATCHED = -1


@dataclass(frozen=True)
class Details:
    """Where pieces without a partner may be said.

    Attributes:
        pair: `[finds]`, the number of the pair of texts.
        side: `[finds]`, which of the two texts the piece is of.
        match: `[finds]`, the match of sentences that the piece stands in, or :data:`UNMATCHED`.
        piece: `[finds]`, and
        partner: `[finds]`, the piece of the other text that stands where it may be said.
        scores: `[finds]`, similarities.
    """

    pair: Integers
    side: Integers
    match: Integers
    piece: Integers
    partner: Integers
    scores: Floats

    @classmethod
    def none(cls) -> Details:
        """No finds."""
        places = np.zeros(0, dtype=np.int64)
        return cls(places, places, places, places, places, np.zeros(0))


@dataclass
class _Text:
    """One text of a pair: what looks for words in the other, and what is left of its own.

    Attributes:
        pair, side: the number of the pair and of the text in it.
        pieces: the text's.
        alone: its pieces without a partner, each with the match of sentences that it stands in.
        partnered: its pieces that surely have one, each with the other text's sentence.
        left: of each matched sentence, the words that no matched piece of the other text explains.
    """

    pair: int
    side: int
    pieces: Pieces
    alone: list[tuple[int, int]] = field(default_factory=list)
    partnered: list[tuple[int, int]] = field(default_factory=list)
    left: dict[int, list[str]] = field(default_factory=dict)


def find_details(
    pairs: Sequence[PiecesPair], aligned: Aligned, sentence_matched: Floats, store: Store
) -> Details:
    """Look for pieces without a partner in what is left of the other text's sentences.

    Args:
        sentence_matched: `[matches of sentences]`, how likely each is.

    Returns:
        At most one find a piece; the same with the two texts of each pair exchanged.
    """
    return _find(list(_seekers(pairs, aligned, sentence_matched)), store)


def fit_details(
    pairs: Sequence[PiecesPair], aligned: Aligned, sentence_matched: Floats, store: Store
) -> tuple[TwoGroups | None, Details]:
    """How likely each of :func:`find_details`'s finds is by its score; the same arguments.

    Returns:
        The finds, too; ``None`` and no finds where too few pieces have a partner to measure what
        is found by chance.
    """
    seekers = list(_seekers(pairs, aligned, sentence_matched))
    asked, partners = [], []
    for own, other in seekers:
        if len(other.left) > 1:
            known = evenly(np.arange(len(own.partnered)), len(own.alone)).tolist()
            asked.append((own, other.left, [own.partnered[place][0] for place in known]))
            partners.append([own.partnered[place][1] for place in known])
    null: list[float] = []
    for (_, left, _), own_partners, table in zip(
        asked, partners, _tables(asked, store), strict=True
    ):
        columns = {sentence: column for column, sentence in enumerate(left)}
        table[np.arange(len(own_partners)), [columns[one] for one in own_partners]] = -np.inf
        null += table.max(axis=1).tolist()
    if len(null) < _LEAST_NULL:
        return None, Details.none()
    found = _find(seekers, store)
    return fit_two_groups(found.scores, np.array(null), _LEAST_PLACE), found


def _seekers(
    pairs: Sequence[PiecesPair], aligned: Aligned, sentence_matched: Floats
) -> Iterator[tuple[_Text, _Text]]:
    """Each text with pieces that have no partner, and the one in which they may be said."""
    by_pair = np.searchsorted(aligned.sentences.pair, np.arange(len(pairs) + 1))
    for number, pair in enumerate(pairs):
        matches = np.arange(by_pair[number], by_pair[number + 1])
        matches = matches[sentence_matched[matches] >= _MATCHED]
        ours, theirs = _both(number, pair, aligned, matches, sentence_matched)
        for own, other in ((ours, theirs), (theirs, ours)):
            if own.alone and other.left:
                yield own, other


def _both(
    number: int,
    pair: PiecesPair,
    aligned: Aligned,
    matches: Integers,
    sentence_matched: Floats,
) -> tuple[_Text, _Text]:
    """The two texts of a pair, whose ``matches`` of sentences are likely."""
    sentences, inside = aligned.sentences, aligned.inside
    both = _Text(number, 0, pair[0]), _Text(number, 1, pair[1])
    held: tuple[set[int], set[int]] = set(), set()
    for match in matches.tolist():
        here = slice(*np.searchsorted(aligned.inside_of, [match, match + 1]))
        places = int(sentences.ours[match]), int(sentences.theirs[match])
        said = []
        for text, known, own, other, partners in (
            (both[0], held[0], *places, inside.ours[here].tolist()),
            (both[1], held[1], *places[::-1], inside.theirs[here].tolist()),
        ):
            every = text.pieces.places[own].tolist()
            text.alone += [(piece, match) for piece in every if piece not in partners]
            known.update(every)
            if sentence_matched[match] >= _PARTNERED:
                text.partnered += [(piece, other) for piece in partners]
            said.append(_words_of(text.pieces, own, partners))
        for text, own, words in zip(both, places, reversed(said), strict=True):
            text.left[own] = unheld(text.pieces.sentence_words[own], words)
    for text, known in zip(both, held, strict=True):
        text.left = dict(sorted(text.left.items()))  # the same whichever text comes first
        unmatched = (piece for piece in range(len(text.pieces.pieces)) if piece not in known)
        text.alone += [(piece, UNMATCHED) for piece in unmatched]
    return both


def _words_of(text: Pieces, sentence: int, pieces: Sequence[int]) -> Sequence[str]:
    """The words of some of a sentence's pieces."""
    if len(pieces) == len(text.places[sentence]):
        return text.sentence_words[sentence]
    return [word for piece in pieces for word in text.piece_words[piece]]


def _find(seekers: Sequence[tuple[_Text, _Text]], store: Store) -> Details:
    """Each piece's find; where several want one sentence, the likest takes its words first."""
    found: list[tuple[int, int, int, int, int, float]] = []
    waiting = [
        (own, other, {place: words for place, words in other.left.items() if words}, own.alone)
        for own, other in seekers
    ]
    for _ in range(_ROUNDS):
        waiting = [one for one in waiting if one[2] and one[3]]
        asked = [(own, left, [piece for piece, _ in alone]) for own, _, left, alone in waiting]
        tables = _tables(asked, store)
        following = []
        for (own, other, left, alone), table in zip(waiting, tables, strict=True):
            sentences = list(left)
            best, scores = table.argmax(axis=1), table.max(axis=1)
            taken: set[int] = set()
            again = []
            for row in np.argsort(-scores, kind="stable").tolist():
                sentence, (piece, match) = sentences[best[row]], alone[row]
                if sentence in taken:
                    again.append(alone[row])
                    continue
                taken.add(sentence)
                words = own.pieces.piece_words[piece]
                partner = _likest(words, other.pieces, sentence)
                found.append((own.pair, own.side, match, piece, partner, float(scores[row])))
                left[sentence] = unheld(left[sentence], words)
            rest = {place: words for place, words in left.items() if words}
            following.append((own, other, rest, again))
        waiting = following
    found.sort()
    places = np.array([one[:5] for one in found], dtype=np.int64).reshape(-1, 5)
    return Details(
        pair=places[:, 0],
        side=places[:, 1],
        match=places[:, 2],
        piece=places[:, 3],
        partner=places[:, 4],
        scores=np.array([one[5] for one in found], dtype=np.float64),
    )


def _likest(words: Sequence[str], text: Pieces, sentence: int) -> int:
    """The piece of a sentence that holds most of these words."""
    places = text.places[sentence].tolist()
    if len(places) == 1:
        return places[0]
    missing = [len(unheld(words, text.piece_words[place])) for place in places]
    return places[int(np.argmin(missing))]


def _tables(
    asked: Sequence[tuple[_Text, dict[int, list[str]], Sequence[int]]], store: Store
) -> list[Floats]:
    """`[pieces, sentences]` each: how alike pieces are to what is left of the other's sentences."""
    if not asked:
        return []
    left = [[" ".join(words) for words in rest.values()] for _, rest, _ in asked]
    place = {text: order for order, text in enumerate(sorted({t for texts in left for t in texts}))}
    every, first = joined(store.vectors, store.text_vectors.vectors(list(place)))
    rows, columns = [], []
    for (own, _, pieces), texts in zip(asked, left, strict=True):
        whole = store.rows([own.pieces.pieces[piece] for piece in pieces])
        rest = first + np.array([place[text] for text in texts], dtype=np.int64)
        rows.append(whole.repeat(len(rest)))
        columns.append(np.tile(rest, len(whole)))
    cells = products(every, np.concatenate(rows), np.concatenate(columns))
    ends = np.cumsum([len(part) for part in rows])[:-1]
    return [
        part.reshape(len(question[2]), len(texts)) * _names_what(*question)
        for question, texts, part in zip(asked, left, np.split(cells, ends), strict=True)
    ]


def _names_what(own: _Text, left: dict[int, list[str]], pieces: Sequence[int]) -> Floats:
    """`[pieces, sentences]`: 1, or less where a piece is about names and what is left has none."""
    text = own.pieces
    stems = [{stem(word) for word in words} for words in left.values()]
    weights = np.ones((len(pieces), len(left)))
    for row, piece in enumerate(pieces):
        subjects = text.subjects[text.sentence_of[piece]]
        if subjects:
            names = subjects & {stem(word) for word in text.piece_words[piece]}
            if names:
                weights[row] = [OTHER_SUBJECT if names.isdisjoint(one) else 1.0 for one in stems]
    return weights
