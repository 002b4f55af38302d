"""How well the two sides of a contrast set are told apart by what is not the concept.

A direction taken from the set points along everything in which its sides differ. What a
classifier makes of length alone, or of word counts alone, says how much of that is on the surface.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from nla_audit.concepts.contrast_sets import ContrastSet
from nla_audit.stats import Interval, Resampler
from nla_audit.text.words import words

_FOLDS = 5


@dataclass(frozen=True)
class Confounding:
    """AUC of held-out pairs: 0.5 is chance, 1 is told apart without a fault.

    Attributes:
        length: by the numbers of words and of characters.
        word_counts: by the words, whatever their order.
        length_ratio: mean characters with the concept over mean characters without it.
    """

    length: Interval
    word_counts: Interval
    length_ratio: float


def confounding(contrast_set: ContrastSet, *, seed: int = 0) -> Confounding:
    """Train on four fifths of the pairs, judge the others, in turn; intervals by pair."""
    texts = [*contrast_set.with_concept, *contrast_set.without_concept]
    sizes = np.array([[len(words(text)), len(text)] for text in texts], dtype=np.float64)
    by_length = make_pipeline(StandardScaler(), LogisticRegression())
    by_words = make_pipeline(CountVectorizer(analyzer=words), LogisticRegression(max_iter=1000))
    with_concept, without = np.split(sizes[:, 1], 2)
    return Confounding(
        length=_auc(by_length, np.log1p(sizes), seed),
        word_counts=_auc(by_words, np.array(texts, dtype=object), seed),
        length_ratio=float(with_concept.mean() / without.mean()),
    )


def _auc(classifier: Pipeline, inputs: NDArray[np.generic], seed: int) -> Interval:
    """AUC over texts of held-out pairs; ``inputs`` has those with the concept first."""
    n = len(inputs) // 2
    shows = np.repeat([1, 0], n)
    pairs = np.tile(np.arange(n), 2)
    scores = cross_val_predict(
        classifier, inputs, shows, groups=pairs, cv=GroupKFold(_FOLDS), method="decision_function"
    )
    above = scores[:n, None] > scores[None, n:]
    level = scores[:n, None] == scores[None, n:]
    wins = above + level / 2
    # To first order a pair moves the AUC by what its two texts win beyond the mean: the two
    # samples of DeLong et al. (1988), here resampled together.
    auc = roc_auc_score(shows, scores)
    found = Resampler(np.arange(n), seed=seed).mean(wins.mean(axis=1) + wins.mean(axis=0) - auc)
    return found.reaching(0.0, 0.0, lowest=0.0, highest=1.0)
