"""Lines that say what several sentences said, which one-to-one matching cannot see.

A terse text may put three claims of another into one line. The line is matched with one of them;
the other two then look at what is *left* of it: its words that its partner does not explain. Texts
of one activation share their subject, so what such a find is worth is not measured beside other
activations' texts but within the same ones: against how well sentences that have a partner resemble
what is left of the other lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nla_audit.text.alignment import OTHER_SUBJECT, Matches, PiecesPair, Store, assigned, joined
from nla_audit.text.mixture import TwoGroups, fit_two_groups
from nla_audit.text.vectors import products
from nla_audit.text.words import stem, unheld

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: A sentence whose partner is less likely than this looks for another.
_FREE = 0.5
#: One whose partner is at least this likely is of the null elsewhere.
_PARTNERED = 0.9
#: A line is shared by at most so many sentences.
_ROUNDS = 6
#: With fewer scores in the null nothing is credited.
_LEAST_NULL = 50
#: Where matches lie at the least, on the scale on which the null is standard normal, and their
#: largest deviation over that: what is inside a line must be strong evidence.
_LEAST_MEAN, _MOST_SPREAD = 2.5, 0.4


@dataclass
class _Sharing:
    """One pair of texts: either side's sentences, and what is left of each.

    Attributes:
        free: sentences of either side that look for a line.
        held: those that have a partner, and so may be shared.
        partners: the partner of each that surely has one.
        left: the words of each sentence that nothing explains so far.
    """

    number: int
    texts: PiecesPair
    free: tuple[list[int], list[int]]
    held: tuple[list[int], list[int]]
    partners: tuple[dict[int, int], dict[int, int]]
    left: tuple[list[list[str]], list[list[str]]]

    def match(self, ours: int, theirs: int) -> None:
        """Take what either sentence says out of the other."""
        a, b = self.left[0][ours], self.left[1][theirs]
        self.left[0][ours], self.left[1][theirs] = unheld(a, b), unheld(b, a)


def match_rest(
    pairs: Sequence[PiecesPair], sentences: Matches, likely: Floats, store: Store
) -> Matches:
    """Match sentences without a likely partner with what is left of the other text's.

    Args:
        sentences: the one-to-one matches of sentences, and
        likely: `[matches]`, how likely each is.

    Returns:
        One-to-many matches of sentences; the same with the two texts of each pair exchanged.
    """
    return _match_free(list(_sharing(pairs, sentences, likely)), store)


def _match_free(sharing: Sequence[_Sharing], store: Store) -> Matches:
    """:func:`match_rest`, which uses up what is left."""
    found: list[tuple[int, int, int, float]] = []
    for _ in range(_ROUNDS):
        blocks = [
            (one, side)
            for one in sharing
            for side in (0, 1)
            if one.free[side] and any(one.left[1 - side][place] for place in one.held[1 - side])
        ]
        if not blocks:
            break
        asked = [(one, side, one.free[side], one.held[1 - side]) for one, side in blocks]
        for (one, side), table in zip(blocks, _tables(asked, store), strict=True):
            free, held = list(one.free[side]), one.held[1 - side]
            for row, column in zip(*assigned(table), strict=True):
                ends = (free[row], held[column]) if side == 0 else (held[column], free[row])
                found.append((one.number, *ends, float(table[row, column])))
                one.match(*ends)
                one.free[side].remove(free[row])
    found.sort()
    pair, ours, theirs = (np.array([one[n] for one in found], dtype=np.int64) for n in range(3))
    return Matches(pair, ours, theirs, np.array([one[3] for one in found], dtype=np.float64))


def fit_rest(
    pairs: Sequence[PiecesPair], sentences: Matches, likely: Floats, store: Store
) -> tuple[TwoGroups | None, Matches]:
    """How likely each of :func:`match_rest`'s finds is by its score; the same arguments.

    Returns:
        The finds, too; ``None`` and no finds where too few sentences have a partner to measure
        what is found by chance.
    """
    sharing = list(_sharing(pairs, sentences, likely))
    asked = [
        (one, side, sorted(one.partners[side]), one.held[1 - side])
        for one in sharing
        for side in (0, 1)
        if one.partners[side] and len(one.held[1 - side]) > 1
    ]
    null = []
    for (one, side, known, held), table in zip(asked, _tables(asked, store), strict=True):
        columns = {place: column for column, place in enumerate(held)}
        own = [columns[one.partners[side][place]] for place in known]
        table[np.arange(len(known)), own] = -np.inf
        null += table.max(axis=1).tolist()
    if len(null) < _LEAST_NULL:
        return None, Matches.none()
    found = _match_free(sharing, store)
    return fit_two_groups(found.scores, np.array(null), _MOST_SPREAD, _LEAST_MEAN), found


def _sharing(pairs: Sequence[PiecesPair], sentences: Matches, likely: Floats) -> Iterator[_Sharing]:
    ends = np.searchsorted(sentences.pair, np.arange(len(pairs) + 1))
    for number, texts in enumerate(pairs):
        here = slice(ends[number], ends[number + 1])
        ours, theirs = (side.sentences for side in texts)
        partners: tuple[dict[int, int], dict[int, int]] = ({}, {})
        one = _Sharing(
            number=number,
            texts=texts,
            free=(list(range(len(ours))), list(range(len(theirs)))),
            held=([], []),
            partners=partners,
            left=(list(texts[0].sentence_words), list(texts[1].sentence_words)),
        )
        for a, b, share in zip(
            sentences.ours[here].tolist(),
            sentences.theirs[here].tolist(),
            likely[here],
            strict=True,
        ):
            if share >= _FREE:
                one.match(a, b)
                for side, place in ((0, a), (1, b)):
                    one.free[side].remove(place)
                    one.held[side].append(place)
            if share >= _PARTNERED:
                partners[0][a], partners[1][b] = b, a
        yield one


def _tables(
    asked: Sequence[tuple[_Sharing, int, list[int], list[int]]], store: Store
) -> list[Floats]:
    """Whole sentences of one side of a pair against what is left of some of the other's.

    Returns:
        Per question `[sentences of the side, sentences of the other]`.
    """
    if not asked:
        return []
    left = [[" ".join(one.left[1 - side][place]) for place in held] for one, side, _, held in asked]
    place = {text: order for order, text in enumerate(sorted({t for texts in left for t in texts}))}
    every, first = joined(store.vectors, store.text_vectors.vectors(list(place)))
    rows, columns = [], []
    for (one, side, wanted, _), texts in zip(asked, left, strict=True):
        whole = store.rows([one.texts[side].sentences[number] for number in wanted])
        rest = first + np.array([place[text] for text in texts], dtype=np.int64)
        rows.append(whole.repeat(len(rest)))
        columns.append(np.tile(rest, len(whole)))
    cells = products(every, np.concatenate(rows), np.concatenate(columns))
    ends = np.cumsum([len(part) for part in rows])[:-1]
    return [
        part.reshape(len(question[2]), len(question[3])) * _names_what(*question)
        for question, part in zip(asked, np.split(cells, ends), strict=True)
    ]


def _names_what(one: _Sharing, side: int, wanted: list[int], held: list[int]) -> Floats:
    """`[wanted, held]`: 1, or less where a sentence is about names that are not in what is left."""
    left = [{stem(word) for word in one.left[1 - side][place]} for place in held]
    subjects = [one.texts[side].subjects[number] for number in wanted]
    return np.array(
        [
            [OTHER_SUBJECT if names and names.isdisjoint(stems) else 1.0 for stems in left]
            for names in subjects
        ]
    )
