"""Vectors of short texts: what pieces and sentences are compared by.

Two ways: words, English words related to them and spellings, weighed by how rare they are in the
table (built in, needs nothing), and sentence embeddings (``--similarity``). Both give unit vectors,
so that a similarity is a product; what a similarity is worth is measured against the null of other
activations' texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nla_audit.text.related_words import RelatedWords, related_words
from nla_audit.text.sentence_model import sentence_model
from nla_audit.text.words import FUNCTION_WORDS, stem, words_and_mentions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Vectors: TypeAlias = sparse.csr_matrix | np.ndarray

#: Two stems stand for each other only if they met in so many activations, with so large a
#: likelihood ratio, and in so large a share of the texts that hold either.
_LEAST_MEETINGS = 4
_LEAST_SURPRISE = 16.0
_LEAST_SHARE = 0.1
#: Cells multiplied at a time: as many as a processor's cache holds the vectors of.
_BLOCK = 2_000
#: Embeddings that are kept; more and the cache starts again.
_MOST_CACHED = 200_000


class TextVectors(Protocol):
    """What a reading needs to know of a similarity."""

    name: str
    #: Mean and deviation of the null's scores in the tables that were tried: where a table is too
    #: small to show its own.
    typical_null: tuple[float, float]

    def fit(self, texts: Sequence[str]) -> None:
        """Learn from texts of the table (may do nothing)."""

    def learn(self, pairs: Sequence[tuple[str, str]], activations: int) -> None:
        """Learn from whole texts of the same activations (may do nothing).

        Args:
            activations: how many there are among the pairs.
        """

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """`[texts, features]`, each of unit length or zero."""


class WordVectors:
    """Stems of content words and letter sequences, each weighed by its rarity, in equal parts.

    A text holds what is related to its stems, too, as far as it is.
    """

    name = "words, related English words and spellings, weighed on the table"
    typical_null = (0.13, 0.06)

    def __init__(self, related: RelatedWords | None = None) -> None:
        self._related = related_words() if related is None else related
        self._parts = (_Features(_stem), _Features(_letters))
        #: `[stems, stems]`: how far each stands for each other.
        self._others = sparse.csr_matrix((1, 1), dtype=np.float32)

    def fit(self, texts: Sequence[str]) -> None:
        """Weigh words and letter sequences by how few of these texts hold them."""
        split = _InWords.of(texts)
        for part in self._parts:
            part.fit(split)
        self._others = self._parts[0].related(self._related)

    def learn(self, pairs: Sequence[tuple[str, str]], activations: int) -> None:
        """Learn which stems stand for which: those that take each other's place."""
        if not pairs:
            return
        ours, theirs = (
            self._parts[0].held(_InWords.of([pair[side] for pair in pairs])) for side in (0, 1)
        )
        learnt = stand_ins(ours, theirs, max(1.0, len(pairs) / max(activations, 1)))
        self._others = self._others.maximum(learnt)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Sparse unit vectors."""
        split = _InWords.of(texts)
        found = [part.vectors(split) for part in self._parts]
        found[0] = _unit(found[0] + found[0] @ self._others)
        return sparse.hstack(found).tocsr() * np.float32(np.sqrt(1 / len(found)))


@dataclass(frozen=True)
class _InWords:
    """Texts, split into words once for all features.

    Attributes:
        words: the distinct words.
        counts: `[texts, words]`, how often each text holds each.
    """

    words: list[str]
    counts: sparse.csr_matrix

    @classmethod
    def of(cls, texts: Sequence[str]) -> _InWords:
        split = [words_and_mentions(text) for text in texts]
        every = list(chain.from_iterable(split))
        place = {word: number for number, word in enumerate(dict.fromkeys(every))}
        columns = list(map(place.__getitem__, every))
        ends = np.concatenate([[0], np.cumsum([len(words) for words in split], dtype=np.int64)])
        counts = sparse.csr_matrix(
            (np.ones(len(columns), dtype=np.float32), columns, ends),
            shape=(len(texts), max(len(place), 1)),
        )
        return cls(list(place), counts)


class _Features:
    """Features of words, counted over texts: sublinear frequency times rarity, of unit length.

    Texts share their words, so features are found once a word and counted by a matrix product.
    """

    def __init__(self, of_word: Callable[[str], Sequence[str]]):
        self._of_word = of_word
        self._ids: dict[str, int] = {}
        self._known: dict[str, Integers] = {}
        self._rarity = np.zeros(0, dtype=np.float32)

    def fit(self, texts: _InWords) -> None:
        self._ids, self._known = {}, {}
        for word in sorted(texts.words):
            for feature in self._of_word(word):
                self._ids.setdefault(feature, len(self._ids))
        counts = self._counts(texts)
        held = np.bincount(counts.indices, minlength=counts.shape[1])
        self._rarity = (np.log((1 + counts.shape[0]) / (1 + held)) + 1).astype(np.float32)

    def vectors(self, texts: _InWords) -> sparse.csr_matrix:
        counts = self._counts(texts)
        counts.data = (1 + np.log(counts.data)) * self._rarity[counts.indices]
        return _unit(counts)

    def related(self, words: RelatedWords) -> sparse.csr_matrix:
        """`[features, features]`: how far each of these words stands for each."""
        return words.among(self._ids, max(len(self._ids), 1))

    def held(self, texts: _InWords) -> sparse.csr_matrix:
        """`[texts, features]`: 1 for what each text holds."""
        counts = self._counts(texts)
        counts.data[:] = 1
        return counts

    def _counts(self, texts: _InWords) -> sparse.csr_matrix:
        """`[texts, features]`."""
        features = [self._features(word) for word in texts.words] or [np.zeros(0, dtype=np.int64)]
        ends = np.concatenate([[0], np.cumsum([len(found) for found in features])])
        indices = np.concatenate(features)
        of_words = sparse.csr_matrix(
            (np.ones(len(indices), dtype=np.float32), indices, ends),
            shape=(len(features), max(len(self._ids), 1)),
        )
        return (texts.counts @ of_words).tocsr()

    def _features(self, word: str) -> Integers:
        if word not in self._known:
            ids = (self._ids.get(feature) for feature in self._of_word(word))
            self._known[word] = np.array([n for n in ids if n is not None], dtype=np.int64)
        return self._known[word]


def _unit(vectors: sparse.csr_matrix) -> sparse.csr_matrix:
    lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    scale = sparse.diags(1 / np.maximum(lengths, 1e-12), dtype=np.float32)
    return (scale @ vectors).tocsr()


def stand_ins(
    ours: sparse.csr_matrix, theirs: sparse.csr_matrix, models: float
) -> sparse.csr_matrix:
    """Which features of one text take the place of which of the other, either way alike.

    Counted over pairs of texts, among what only one of the two holds: a word that both hold needs
    no other to stand for it. Pairs of features must meet oftener than chance by a likelihood ratio
    (Dunning 1993, "Accurate methods for the statistics of surprise and coincidence").

    Args:
        ours, theirs: `[pairs, features]` of ones.
        models: how many pairs there are for each activation; they are not independent.

    Returns:
        `[features, features]`: how far each stands for each, up to 1.
    """
    shared = ours.multiply(theirs)
    ours, theirs = (ours - shared).tocsr(), (theirs - shared).tocsr()
    ours.eliminate_zeros()
    theirs.eliminate_zeros()
    a, b = (np.asarray(side.sum(axis=0)).ravel() for side in (ours, theirs))
    met = (ours.T @ theirs).tocsr()
    met = (met + met.T).tocoo()
    row, column, count = met.row, met.col, met.data
    enough = (count >= _LEAST_MEETINGS * models) & (row != column)
    row, column, count = row[enough], column[enough], count[enough].astype(np.float64)
    expected = (a[row] * b[column] + a[column] * b[row]) / ours.shape[0]
    surprise = 2 * count * np.log(count / np.maximum(expected, 1e-9)) / models
    held = np.sqrt((a + b)[row] * (a + b)[column])
    share = (count - expected) / np.maximum(held, 1.0)
    chosen = (surprise > _LEAST_SURPRISE) & (share > _LEAST_SHARE)
    return sparse.csr_matrix(
        (share[chosen].astype(np.float32), (row[chosen], column[chosen])), shape=met.shape
    )


def _stem(word: str) -> list[str]:
    return [] if word in FUNCTION_WORDS else [stem(word)]


def _letters(word: str) -> list[str]:
    """Sequences of three and four letters of a word between spaces.

    Longer ones besides tell paraphrases no better, and cost a third of the time.
    """
    framed = f" {word} "
    return [
        framed[start : start + length]
        for length in (3, 4)
        for start in range(len(framed) - length + 1)
    ]


class EmbeddingVectors:
    """Embeddings by any sentence-transformers model, by name or folder."""

    typical_null = (0.3, 0.12)

    def __init__(self, model: str):
        self._model = sentence_model(model)
        self.name = model
        self._cache = _embedded(model)

    def fit(self, texts: Sequence[str]) -> None:
        """Nothing to learn."""

    def learn(self, pairs: Sequence[tuple[str, str]], activations: int) -> None:
        """Nothing to learn."""

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Dense unit vectors."""
        if len(self._cache) > _MOST_CACHED:
            self._cache.clear()
        missing = sorted(set(texts) - self._cache.keys())
        if missing:
            vectors = self._model.encode(
                missing, normalize_embeddings=True, show_progress_bar=False
            )
            self._cache.update(zip(missing, np.asarray(vectors, dtype=np.float32), strict=True))
        if not texts:
            return np.zeros((0, 1))
        return np.stack([self._cache[text] for text in texts]).astype(np.float64)


@lru_cache(maxsize=1)
def _embedded(model: str) -> dict[str, NDArray[np.float32]]:
    """What the model has embedded: an audit reads the same sentences in trial after trial.

    It is the same for the same tables in the same order. Which sentences are embedded together, and
    so their last bits, depends on what was read before.
    """
    return {}


def products(vectors: Vectors, rows: Integers, columns: Integers) -> Floats:
    """`[n]`: the product of ``vectors[rows[k]]`` and ``vectors[columns[k]]`` for each k."""
    found = np.zeros(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        if isinstance(vectors, np.ndarray):
            found[block] = np.einsum("ij,ij->i", vectors[rows[block]], vectors[columns[block]])
        else:
            cells = vectors[rows[block]].multiply(vectors[columns[block]])
            found[block] = np.asarray(cells.sum(axis=1)).ravel()
    return found


def vectors_named(name: str | None) -> TextVectors:
    """The built-in vectors for ``None`` or ``"table"``, else a sentence-transformers model."""
    return WordVectors() if name in (None, "table") else EmbeddingVectors(name)
