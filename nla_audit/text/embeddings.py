"""Similarity by sentence embeddings: any sentence-transformers model, by name or folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nla_audit.text.claims import Claim
from nla_audit.text.segmentation import Habits, LikelihoodRatios
from nla_audit.text.sentence_model import sentence_model
from nla_audit.text.similarity import ParallelTexts, breaks_between

Floats = NDArray[np.float64]
#: Embeddings that are kept; more and the cache starts again.
_MOST_CACHED = 200_000
#: A cosine this many standard deviations above those between other activations' claims is no
#: evidence for or against; each further deviation multiplies the odds by e to the slope. A normal
#: null and claims that match three deviations up give about these.
_NEUTRAL_DEVIATIONS = 1.5
_SLOPE = 2.0


class EmbeddingSimilarity:
    """Cosines of whole claims, on the scale of the null: cosines between different activations."""

    def __init__(self, model: str):
        self._model = sentence_model(model)
        self.name = model
        self._mean, self._deviation = 0.0, 1.0
        self._cache: dict[str, Floats] = {}

    def fit(self, parallel: Sequence[ParallelTexts]) -> Habits:
        """Measure the cosines between claims of different activations."""
        usable = [pair for pair in parallel if pair[0] and pair[1]]
        half = len(usable) // 2
        cosines = [
            (
                self._embed(usable[(place + half) % len(usable)][1]) @ self._embed(reference).T
            ).ravel()
            for place, (reference, _) in enumerate(usable)
            if half
        ]
        if cosines:
            values = np.concatenate(cosines)
            self._mean, self._deviation = float(values.mean()), float(values.std()) or 1.0
        return Habits()

    def evidence(self, pairs: Sequence[ParallelTexts]) -> list[LikelihoodRatios]:
        """Odds from standardised cosines; the units are whole claims."""
        found = []
        for reference, other in pairs:
            if reference and other:
                cosine = self._embed(other) @ self._embed(reference).T
                deviations = (cosine - self._mean) / self._deviation
                ratio = np.exp(_SLOPE * (deviations - _NEUTRAL_DEVIATIONS))
            else:
                ratio = np.zeros((len(other), len(reference)))
            found.append(
                LikelihoodRatios(
                    ratio,
                    breaks_between(other, np.ones(len(other), dtype=np.int64)),
                    np.arange(len(other)),
                    np.array([claim.sentence for claim in reference], dtype=np.int64),
                )
            )
        return found

    def _embed(self, claims: Sequence[Claim]) -> Floats:
        missing = sorted({claim.text for claim in claims} - self._cache.keys())
        if missing:
            if len(self._cache) > _MOST_CACHED:
                self._cache.clear()
                missing = sorted({claim.text for claim in claims})
            vectors = self._model.encode(
                missing, normalize_embeddings=True, show_progress_bar=False
            )
            self._cache.update(zip(missing, np.asarray(vectors, dtype=np.float64), strict=True))
        return np.stack([self._cache[claim.text] for claim in claims])
