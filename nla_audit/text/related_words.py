"""English words that say nearly the same, for those who compare texts by their words.

What a table's own texts cannot show when they are few: that an attorney is a lawyer. From WordNet
and from word embeddings, see ``benchmarks/related_words.py``; related words are no synonyms, and
what a match by them is worth is measured against other activations' texts like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nla_audit.text.words import stem

FILE = Path(__file__).with_name("related_words.npz")
#: Weights are kept in steps of one over this.
_STEPS = 255
_MOST_WORDS = 1 << 16


@dataclass(frozen=True)
class RelatedWords:
    """Pairs of words.

    Attributes:
        place: the number of each word's stem.
        weights: `[words, words]`, symmetric: how far each stands for each, up to 1.
    """

    place: Mapping[str, int]
    weights: sparse.csr_matrix

    @classmethod
    def of(cls, words: Sequence[str], pairs: Mapping[tuple[int, int], float]) -> RelatedWords:
        """From words, one for each stem, and weights of two of their numbers, the smaller first."""
        first, second = np.array(list(pairs), dtype=np.int64).reshape(-1, 2).T
        steps = np.rint(np.array(list(pairs.values())) * _STEPS).astype(np.uint8)
        return cls._of(words, first, second, steps)

    @classmethod
    def _of(
        cls,
        words: Sequence[str],
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        steps: NDArray[np.uint8],
    ) -> RelatedWords:
        weights = steps.astype(np.float32) / _STEPS
        half = sparse.coo_matrix((weights, (first, second)), shape=(len(words), len(words)))
        place = {stem(word): number for number, word in enumerate(words)}
        return cls(place, (half + half.T).tocsr())

    @classmethod
    def load(cls, file: Path = FILE) -> RelatedWords:
        """Read what :meth:`save` wrote."""
        with np.load(file, allow_pickle=False) as stored:
            words = bytes(stored["words"]).decode().split()
            second = stored["second"].astype(np.int64)
            first = np.repeat(np.arange(len(words)), stored["counts"])
            return cls._of(words, first, second, stored["steps"])

    def among(self, ids: Mapping[str, int], size: int) -> sparse.csr_matrix:
        """`[size, size]`: how far each stem stands for each, by other numbers of the stems."""
        known = [(number, self.place[word]) for word, number in ids.items() if word in self.place]
        if not known:
            return sparse.csr_matrix((size, size), dtype=np.float32)
        own, stored = np.array(known, dtype=np.int64).T
        here = self.weights[stored][:, stored].tocoo()
        return sparse.csr_matrix((here.data, (own[here.row], own[here.col])), shape=(size, size))


def save(file: Path, words: Sequence[str], related: RelatedWords) -> None:
    """Keep pairs, each once; ``words`` as they were given.

    Raises:
        ValueError: more words than can be numbered in a file.
    """
    if len(words) > _MOST_WORDS:
        raise ValueError(f"{len(words)} words; a file numbers {_MOST_WORDS} at most")
    half = sparse.triu(related.weights).tocsr()
    half.sort_indices()
    np.savez_compressed(
        file,
        words=np.frombuffer(" ".join(words).encode(), dtype=np.uint8),
        counts=np.diff(half.indptr).astype(np.uint16),
        second=half.indices.astype(np.uint16),
        steps=np.rint(half.data * _STEPS).astype(np.uint8),
    )


@lru_cache(maxsize=1)
def related_words() -> RelatedWords:
    """Those that come with this package."""
    return RelatedWords.load()
