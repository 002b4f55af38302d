"""Similarity between explanations, behind one small interface.

A similarity says how many times likelier each part of an explanation is beside a claim of the
reference than anywhere (see :class:`~nla_audit.text.segmentation.LikelihoodRatios`); the
segmentation makes probabilities of it. The default is fitted on the table itself and needs no
download.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nla_audit.text.claims import Claim
from nla_audit.text.segmentation import (
    CLAUSE,
    SENTENCE,
    START,
    WORD,
    Counts,
    Habits,
    LikelihoodRatios,
    batches,
    segment_and_count,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
#: References whose words are kept, in numbers.
_MOST_REFERENCES = 1 << 13
#: For each claim, a share for each of its words.
Shares = list[list[float]]
#: Two explanations of one activation: the reference's claims and another's.
ParallelTexts = tuple[Sequence[Claim], Sequence[Claim]]


class Similarity(Protocol):
    """What a reading needs to know of a similarity."""

    name: str

    def fit(self, parallel: Sequence[ParallelTexts]) -> Habits:
        """Learn from explanations of the same activations (may do nothing).

        Returns:
            Habits of all models together, from which each one's own are learnt.
        """

    def evidence(self, pairs: Sequence[ParallelTexts]) -> list[LikelihoodRatios]:
        """Likelihood ratios for each pair of a reference and another explanation."""


class TranslationSimilarity:
    """A dictionary learnt from the table.

    A word of an explanation is accounted for by a claim of the reference as a mixture over the
    claim's words (Berger & Lafferty 1999, "Information retrieval as statistical translation"):
    by the same word, by one of like spelling, or by a word that stands for it in other
    explanations of the same activations. The last are learnt by expectation maximisation (Brown
    et al. 1993), the segmentation of the explanations being the hidden variable.
    """

    name = "dictionary fitted on the table"

    #: Weights of the same (or like-spelled) word and of learnt ones; their sum is one.
    literal_weight = 0.3
    learnt_weight = 0.7
    #: Letter-triple overlap (Jaccard) below which two spellings are unrelated.
    min_spelling_overlap = 0.4
    #: Word pairs that are expected this rarely in the whole table are noise.
    min_expected_count = 0.2
    #: Pseudo-count with which a word's translations are shrunk towards none.
    shrinkage = 0.5
    #: A word that its claim does not account for is still taken to stand for one of its words
    #: with this probability, or no new translation could ever be learnt.
    curiosity = 0.02

    def __init__(self, iterations: int = 8):
        self.iterations = iterations
        self._ids: dict[str, int] = {}
        self._share = np.ones(1)
        self._affinity = sparse.csr_matrix((0, 0))
        self._place = np.zeros(0, dtype=np.int64)
        self._translations: dict[int, dict[int, float]] = {}
        self._references: dict[int, tuple[Sequence[Claim], _Words]] = {}

    # -- fitting ------------------------------------------------------------------------------

    def fit(self, parallel: Sequence[ParallelTexts]) -> Habits:
        """Learn the dictionary from pairs of explanations of the same activation."""
        counts: Counter[str] = Counter()
        for pair in parallel:
            for text in pair:
                for claim in text:
                    counts.update(claim.stems)
        vocabulary = sorted(counts)
        self._references.clear()
        self._ids = {word: number for number, word in enumerate(vocabulary)}
        frequency = np.array([counts[word] + 1.0 for word in vocabulary] or [1.0])
        self._share = frequency / frequency.sum()
        self._place = np.full(len(vocabulary), -1)
        literal = self.literal_weight * self._spelling(vocabulary)
        self._affinity = literal.tocsr()
        usable = [
            (_Words.of(reference, self._ids), _Words.of(other, self._ids))
            for reference, other in parallel
        ]
        usable = [pair for pair in usable if len(pair[0].ids) and len(pair[1].ids)]
        habits = Habits()
        for _ in range(self.iterations):
            learnt, habits = self._expected_translations(usable, len(vocabulary), habits)
            self._affinity = (literal + self.learnt_weight * learnt).tocsr()
        self._translations = self._shares_of_the_best()
        return habits

    def _spelling(self, vocabulary: Sequence[str]) -> sparse.csr_matrix:
        """1 for a word itself, up to ½ for words that begin alike and share letter triples."""
        size = len(vocabulary)
        triples = [_triples(word) for word in vocabulary]
        by_start: dict[str, list[int]] = {}
        for number, word in enumerate(vocabulary):
            if len(word) >= 4 and not word[0].isdigit():
                by_start.setdefault(word[:3], []).append(number)
        rows, columns, values = list(range(size)), list(range(size)), [1.0] * size
        for group in by_start.values():
            for place, a in enumerate(group):
                for b in group[place + 1 :]:
                    overlap = len(triples[a] & triples[b]) / len(triples[a] | triples[b])
                    if overlap >= self.min_spelling_overlap:
                        rows += [a, b]
                        columns += [b, a]
                        values += [0.5 * overlap] * 2
        return sparse.csr_matrix((values, (rows, columns)), shape=(size, size))

    def _expected_translations(
        self, usable: Sequence[tuple[_Words, _Words]], size: int, habits: Habits
    ) -> tuple[sparse.csr_matrix, Habits]:
        """One expectation step over all pairs.

        Returns:
            `[reference word, other word]` probabilities beyond chance, and the habits learnt.
        """
        keys, values = [], []
        counts = Counts()
        for numbers in batches([(len(o.ids), len(r.lengths)) for r, o in usable]):
            pairs = [usable[number] for number in numbers]
            affinities = [self._affinities(reference, other) for reference, other in pairs]
            segmentations, counted = segment_and_count(
                [
                    self._evidence(affinity, reference, other)
                    for affinity, (reference, other) in zip(affinities, pairs, strict=True)
                ],
                habits,
            )
            counts.add(counted)
            for affinity, (reference, other), segmentation in zip(
                affinities, pairs, segmentations, strict=True
            ):
                length = reference.lengths[reference.owners][:, None]
                whole = np.add.reduceat(affinity, reference.starts, axis=0)[reference.owners]
                share = (affinity + self.curiosity / length) / (whole + 2 * self.curiosity)
                expected = share * segmentation.units.T[reference.owners]
                row, column = np.nonzero(expected > 0.01)
                ours, theirs = reference.ids[row], other.ids[column]
                # Either may stand for the other, which doubles what is known of rare words.
                keys += [ours * size + theirs, theirs * size + ours]
                values += [expected[row, column]] * 2
        if not keys:
            return sparse.csr_matrix((size, size)), habits
        return self._beyond_chance(np.concatenate(keys), np.concatenate(values), size), (
            counts.improve(habits)
        )

    def _beyond_chance(self, keys: Integers, values: Floats, size: int) -> sparse.csr_matrix:
        counts = sparse.coo_matrix((values, np.divmod(keys, size)), shape=(size, size)).tocsr()
        by_word = np.asarray(counts.sum(axis=1)).ravel()
        by_translation = np.asarray(counts.sum(axis=0)).ravel()
        pairs = counts.tocoo()
        beyond = (
            pairs.data / (by_word[pairs.row] + self.shrinkage)
            - by_translation[pairs.col] / counts.sum()
        )
        kept = (pairs.data > self.min_expected_count) & (beyond > 0.01)
        return sparse.csr_matrix(
            (beyond[kept], (pairs.row[kept], pairs.col[kept])), shape=(size, size)
        )

    # -- use ----------------------------------------------------------------------------------

    def evidence(self, pairs: Sequence[ParallelTexts]) -> list[LikelihoodRatios]:
        """Each word's probability under each claim of the reference over its share anywhere."""
        found = []
        for reference, other in pairs:
            ours, theirs = self._reference_words(reference), _Words.of(other, self._ids)
            found.append(self._evidence(self._affinities(ours, theirs), ours, theirs))
        return found

    def _reference_words(self, claims: Sequence[Claim]) -> _Words:
        """The words of a reference, which stands beside every model's text and every change."""
        kept = self._references.get(id(claims))
        if kept is None or kept[0] is not claims:
            if len(self._references) >= _MOST_REFERENCES:
                self._references.clear()
            # With the claims themselves: another list may come to have the same id.
            kept = self._references[id(claims)] = (claims, _Words.of(claims, self._ids))
        return kept[1]

    def standing(self, reference: Sequence[Claim], other: Sequence[Claim]) -> tuple[Shares, Shares]:
        """For each word of either text, how far the other has it or a word that stands for it.

        Returns:
            For the words of each claim of ``reference``, and of ``other``: 1 for the same word,
            for another as much as it is the first one's best translation, 0 for none.
        """
        return self._standing(reference, other), self._standing(other, reference)

    def _standing(self, ours: Sequence[Claim], theirs: Sequence[Claim]) -> Shares:
        there = {stem for claim in theirs for stem in claim.stems}
        ids = {self._ids[stem] for stem in there if stem in self._ids}
        return [
            [1.0 if stem in there else self._best_translation(stem, ids) for stem in claim.stems]
            for claim in ours
        ]

    def _best_translation(self, stem: str, ids: Set[int]) -> float:
        known = self._translations.get(self._ids.get(stem, -1), {})
        return max((known[word] for word in known.keys() & ids), default=0.0)

    def _shares_of_the_best(self) -> dict[int, dict[int, float]]:
        """Word → the words that stand for it, each with its affinity over the largest."""
        found: dict[int, dict[int, float]] = {}
        for word, (start, end) in enumerate(pairwise(self._affinity.indptr.tolist())):
            values = self._affinity.data[start:end]
            if len(values):
                shares = values / max(float(values.max()), self.literal_weight)
                found[word] = dict(
                    zip(self._affinity.indices[start:end].tolist(), shares.tolist(), strict=True)
                )
        return found

    def _affinities(self, ours: _Words, theirs: _Words) -> Floats:
        """`[reference words, their words]`; a word that the fit never saw matches only itself."""
        affinity = np.zeros((len(ours.ids), len(theirs.ids)))
        if affinity.size == 0:
            return affinity
        # Gathered from the sparse matrix by hand: slicing one so often would take longer than
        # all else.
        known = np.flatnonzero(ours.ids >= 0)
        start, end = (self._affinity.indptr[ours.ids[known] + shift] for shift in (0, 1))
        lengths = end - start
        rows = np.repeat(known, lengths)
        cells = np.arange(lengths.sum()) + np.repeat(start - np.cumsum(lengths) + lengths, lengths)
        self._place[theirs.unique] = np.arange(len(theirs.unique))
        columns = self._place[self._affinity.indices[cells]]
        self._place[theirs.unique] = -1
        met = columns >= 0
        distinct = np.zeros((len(ours.ids), len(theirs.unique)))
        distinct[rows[met], columns[met]] = self._affinity.data[cells[met]]
        affinity[:, theirs.ids >= 0] = distinct[:, theirs.inverse]
        for row in np.flatnonzero(ours.ids < 0):
            same = [word == ours.stems[row] for word in theirs.stems]
            affinity[row, same] = self.literal_weight
        return affinity

    def _evidence(self, affinity: Floats, ours: _Words, theirs: _Words) -> LikelihoodRatios:
        if affinity.size == 0:
            ratio = np.zeros((len(theirs.ids), len(ours.lengths)))
        else:
            accounted = np.add.reduceat(affinity, ours.starts, axis=0) / ours.lengths[:, None]
            share = np.where(theirs.ids >= 0, self._share[theirs.ids], self._share.min())
            ratio = (accounted / share).T
        return LikelihoodRatios(ratio, theirs.breaks, theirs.owners, ours.sentences)


@dataclass(frozen=True)
class _Words:
    """The words of an explanation's claims in one row."""

    stems: list[str]
    ids: Integers  #: in the vocabulary; −1 for words the fit never saw
    unique: Integers  #: the distinct ids, those of unseen words left out
    inverse: Integers  #: where each seen word stands among them
    lengths: Floats  #: words of each claim
    starts: Integers  #: where each claim begins
    owners: Integers  #: the claim of each word
    breaks: Integers  #: what lies before each word
    sentences: Integers  #: the sentence of each claim

    @classmethod
    def of(cls, claims: Sequence[Claim], ids: dict[str, int]) -> _Words:
        """The words of some claims, numbered by a vocabulary."""
        stems = [word for claim in claims for word in claim.stems]
        lengths = np.array([len(claim.stems) for claim in claims], dtype=np.int64)
        numbers = np.array([ids.get(word, -1) for word in stems], dtype=np.int64)
        # A dictionary: numpy's own way takes ten times as long for so few.
        place: dict[int, int] = {}
        inverse = [place.setdefault(n, len(place)) for n in numbers.tolist() if n >= 0]
        return cls(
            stems=stems,
            ids=numbers,
            unique=np.array(list(place), dtype=np.int64),
            inverse=np.array(inverse, dtype=np.int64),
            lengths=lengths.astype(np.float64),
            starts=np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
            owners=np.repeat(np.arange(len(claims)), lengths),
            breaks=breaks_between(claims, lengths),
            sentences=np.array([claim.sentence for claim in claims], dtype=np.int64),
        )


def breaks_between(claims: Sequence[Claim], units: Integers) -> Integers:
    """What lies before each unit of an explanation whose claims have ``units`` units each."""
    breaks = np.full(int(units.sum()), WORD, dtype=np.int64)
    place, sentence = 0, None
    for claim, length in zip(claims, units, strict=True):
        if length:
            breaks[place] = (
                START if sentence is None else CLAUSE if claim.sentence == sentence else SENTENCE
            )
            place, sentence = place + length, claim.sentence
    return breaks


def _triples(word: str) -> frozenset[str]:
    framed = f"^{word}$"
    return frozenset(framed[place : place + 3] for place in range(len(framed) - 2))


def similarity_named(name: str | None) -> Similarity:
    """The built-in similarity for ``None`` or ``"table"``, else a sentence-transformers model."""
    if name in (None, "table"):
        return TranslationSimilarity()
    from nla_audit.text.embeddings import EmbeddingSimilarity  # imports torch

    return EmbeddingSimilarity(name)
