"""Similarity between claims, behind one small interface.

A similarity answers in *evidence*: how much better a claim of one explanation is accounted for by
a claim of another than by chance, in nats, up to a scale that the alignment calibrates against
the null. Zero is "no evidence". The default is fitted on the table itself and needs no download.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nla_audit.errors import UserError
from nla_audit.text.alignment import (
    TEMPERATURE,
    Order,
    measure_order,
    mutual_posterior,
)
from nla_audit.text.claims import Claim

Floats = NDArray[np.float64]
#: Two explanations of one activation: the reference's claims and another's.
ParallelTexts = tuple[Sequence[Claim], Sequence[Claim]]


class Similarity(Protocol):
    """What an alignment needs to know of a similarity."""

    name: str

    def fit(self, parallel: Sequence[ParallelTexts]) -> None:
        """Learn from explanations of the same activations (may do nothing)."""

    def evidence(
        self, reference: Sequence[Claim], others: Sequence[Sequence[Claim]]
    ) -> list[Floats]:
        """For each other explanation, evidence `[its claims, reference claims]`."""


class TranslationSimilarity:
    """A translation language model whose dictionary is learnt from the table.

    How well claim *r* accounts for the words of claim *c* is a mixture over the words of *r*
    (Berger & Lafferty 1999, "Information retrieval as statistical translation"): a word is
    accounted for by itself, by a word of like spelling (same beginning, shared letter triples),
    or by a word that stands for it in other explanations of the same activations. The last are
    learnt by expectation maximisation as in IBM model 1 (Brown et al. 1993), with the claims'
    alignment as a second hidden variable.
    """

    name = "table-fitted translation model"

    #: Mixture weight of the background distribution: half, so that a single unaccounted word
    #: costs no more than log 2 and telegraphic claims are not ruined by one new word.
    background = 0.5
    #: Weights of literal (same or like-spelled) and learnt translation. Their sum is near one.
    literal_weight = 0.6
    learnt_weight = 0.35
    #: Letter-triple overlap (Jaccard) below which two spellings are unrelated.
    min_spelling_overlap = 0.3
    #: Words that translate to only one word in expectation this often or less are noise.
    min_expected_count = 1.0
    #: Pseudo-count with which a word's translations are shrunk towards none.
    shrinkage = 3.0

    def __init__(self, iterations: int = 4):
        self.iterations = iterations
        self._ids: dict[str, int] = {}
        self._log_share = np.zeros(0)
        self._affinity = sparse.csr_matrix((0, 0))

    # -- fitting ------------------------------------------------------------------------------

    def fit(self, parallel: Sequence[ParallelTexts]) -> None:
        """Learn the dictionary from pairs of explanations of the same activation."""
        counts: Counter[str] = Counter()
        for reference, other in parallel:
            for claim in (*reference, *other):
                counts.update(claim.stems)
        vocabulary = sorted(counts)
        self._ids = {word: number for number, word in enumerate(vocabulary)}
        frequency = np.array([counts[word] + 1.0 for word in vocabulary] or [1.0])
        self._share = frequency / frequency.sum()
        literal = self._spelling(vocabulary)
        self._affinity = (self.literal_weight * literal).tocsr()
        order = Order(None)
        for _ in range(self.iterations):
            learnt, order = self._expected_translations(parallel, len(vocabulary), order)
            self._affinity = (self.literal_weight * literal + self.learnt_weight * learnt).tocsr()

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
        self, parallel: Sequence[ParallelTexts], size: int, order: Order
    ) -> tuple[sparse.csr_matrix, Order]:
        """One expectation step over all pairs.

        Returns:
            `[reference word, other word]` probabilities beyond chance, and how far claims kept
            their order under the dictionary so far.
        """
        rows, columns, values, blocks = [], [], [], []
        smoothing = 0.02
        for reference, other in parallel:
            if not reference or not other:
                continue
            words = _Concatenated(reference, self._ids)
            theirs = _Concatenated(other, self._ids)
            affinity = self._affinity[words.ids][:, theirs.ids].toarray()
            evidence = self._evidence_from(affinity, words, theirs)
            blocks.append(evidence)
            near = order.log_prior(*evidence.shape)
            claims = mutual_posterior(TEMPERATURE * evidence + near)
            per_claim = np.add.reduceat(affinity, words.starts, axis=0)
            length_of_claim = words.lengths[words.claim][:, None]
            share = (affinity + smoothing / length_of_claim) / (
                per_claim[words.claim] + 2 * smoothing
            )
            expected = share * claims[np.ix_(theirs.claim, words.claim)].T
            kept = expected > 0.01
            where_row, where_column = np.nonzero(kept)
            rows.append(words.ids[where_row])
            columns.append(theirs.ids[where_column])
            values.append(expected[kept])
        if not rows:
            return sparse.csr_matrix((size, size)), order
        counts = sparse.coo_matrix(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(size, size),
        ).tocsr()
        total = counts.sum()
        by_word = np.asarray(counts.sum(axis=1)).ravel()
        by_translation = np.asarray(counts.sum(axis=0)).ravel()
        pairs = counts.tocoo()
        beyond_chance = (
            pairs.data / (by_word[pairs.row] + self.shrinkage) - by_translation[pairs.col] / total
        )
        kept = (pairs.data > self.min_expected_count) & (beyond_chance > 0.01)
        learnt = sparse.csr_matrix(
            (beyond_chance[kept], (pairs.row[kept], pairs.col[kept])), shape=(size, size)
        )
        return learnt, measure_order(blocks)

    # -- use ----------------------------------------------------------------------------------

    def evidence(
        self, reference: Sequence[Claim], others: Sequence[Sequence[Claim]]
    ) -> list[Floats]:
        """Log-likelihood ratio against the background, `[claims of the other, of reference]`."""
        every = [claim for other in others for claim in other]
        if not reference or not every:
            return [np.zeros((len(other), len(reference))) for other in others]
        words = _Concatenated(reference, self._ids)
        theirs = _Concatenated(every, self._ids)
        whole = self._evidence_from(self._affinities(words, theirs), words, theirs)
        ends = np.cumsum([len(other) for other in others])
        return [whole[end - len(other) : end] for other, end in zip(others, ends, strict=True)]

    def _affinities(self, words: _Concatenated, theirs: _Concatenated) -> Floats:
        """`[reference words, their words]`; a word that the fit never saw matches only itself."""
        known_rows, known_columns = words.ids >= 0, theirs.ids >= 0
        affinity = np.zeros((len(words.ids), len(theirs.ids)))
        if known_rows.any() and known_columns.any():
            unique, inverse = np.unique(theirs.ids[known_columns], return_inverse=True)
            block = self._affinity[words.ids[known_rows]][:, unique].toarray()
            affinity[np.ix_(known_rows, known_columns)] = block[:, inverse]
        if not known_rows.all() and not known_columns.all():
            for row in np.flatnonzero(~known_rows):
                same = np.array([word == words.stems[row] for word in theirs.stems])
                affinity[row, same] = self.literal_weight
        return affinity

    def _evidence_from(
        self, affinity: Floats, words: _Concatenated, theirs: _Concatenated
    ) -> Floats:
        part_length = words.lengths / words.parts
        accounted = np.add.reduceat(affinity, words.starts, axis=0) / part_length[:, None]
        rarest = self._share.min()
        share = np.where(theirs.ids >= 0, self._share[theirs.ids], rarest)
        ratio = np.log((1 - self.background) * accounted / share + self.background)
        favourable = np.add.reduceat(np.maximum(ratio, 0.0), theirs.starts, axis=1)
        against = np.add.reduceat(np.minimum(ratio, 0.0), theirs.starts, axis=1)
        number_against = np.add.reduceat((ratio < 0).astype(np.float64), theirs.starts, axis=1)
        # Words of a claim's other parts speak neither for nor against this reference claim.
        excused = theirs.lengths * (1 - 1 / theirs.parts)
        counted = np.maximum(number_against - excused, 0.0) / np.maximum(number_against, 1.0)
        return np.asarray(favourable + counted * against).T


class EmbeddingSimilarity:
    """Cosine similarity of any sentence-transformers model, by name or folder.

    Cosines are put on a common scale by the null: the evidence is the number of standard
    deviations by which a cosine exceeds those between explanations of different activations.
    """

    def __init__(self, model: str):
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        except ImportError as error:
            raise UserError(
                "--similarity needs sentence-transformers: pip install 'nla-audit[embeddings]', "
                "or leave the option out to use the built-in similarity"
            ) from error
        try:
            self._model = SentenceTransformer(model, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot load the similarity model '{model}': {error}") from error
        self.name = model
        self._mean, self._deviation = 0.0, 1.0
        self._cache: dict[str, Floats] = {}

    def fit(self, parallel: Sequence[ParallelTexts]) -> None:
        """Measure the cosines between claims of different activations."""
        references = [reference for reference, _ in parallel if reference]
        others = [other for _, other in parallel if other]
        cosines = [
            (self._embed(other) @ self._embed(reference).T).ravel()
            for reference, other in zip(references, [*others[1:], *others[:1]], strict=False)
        ]
        if cosines:
            values = np.concatenate(cosines)
            self._mean, self._deviation = float(values.mean()), float(values.std()) or 1.0

    def evidence(
        self, reference: Sequence[Claim], others: Sequence[Sequence[Claim]]
    ) -> list[Floats]:
        """Standardised cosines, `[claims of the other, claims of the reference]`."""
        ours = self._embed(reference) if reference else None
        found = []
        for other in others:
            if ours is None or not other:
                found.append(np.zeros((len(other), len(reference))))
            else:
                found.append((self._embed(other) @ ours.T - self._mean) / self._deviation)
        return found

    def _embed(self, claims: Sequence[Claim]) -> Floats:
        missing = sorted({claim.text for claim in claims} - self._cache.keys())
        if missing:
            if len(self._cache) > 200_000:
                self._cache.clear()
                missing = sorted({claim.text for claim in claims})
            vectors = self._model.encode(
                missing, normalize_embeddings=True, show_progress_bar=False
            )
            self._cache.update(zip(missing, np.asarray(vectors, dtype=np.float64), strict=True))
        return np.stack([self._cache[claim.text] for claim in claims])


def similarity_named(name: str | None) -> Similarity:
    """The built-in similarity for ``None`` or ``"table"``, else a sentence-transformers model."""
    if name in (None, "table"):
        return TranslationSimilarity()
    return EmbeddingSimilarity(name)


class _Concatenated:
    """The words of several claims in one row, with where each claim begins."""

    def __init__(self, claims: Sequence[Claim], ids: dict[str, int]):
        self.stems = [word for claim in claims for word in claim.stems]
        self.ids = np.array([ids.get(word, -1) for word in self.stems], dtype=np.int64)
        self.lengths = np.array([len(claim.stems) for claim in claims], dtype=np.float64)
        self.parts = np.array([claim.parts for claim in claims], dtype=np.float64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths[:-1])]).astype(np.int64)
        self.claim = np.repeat(np.arange(len(claims)), self.lengths.astype(np.int64))


def _triples(word: str) -> frozenset[str]:
    framed = f"^{word}$"
    return frozenset(framed[place : place + 3] for place in range(len(framed) - 2))
