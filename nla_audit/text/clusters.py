"""Kinds found without a taxonomy: claims clustered by their own words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nla_audit.text.words import content_stems, stem, words

#: Fewer claims than this make no clusters worth naming.
MIN_CLAIMS = 60
_CLUSTER_COUNTS = (4, 6, 8, 10, 12)
_DIMENSIONS = 40
_NAMING_WORDS = 4
_EXAMPLES = 3


@dataclass(frozen=True)
class Clusters:
    """Clusters of claims, largest first."""

    labels: NDArray[np.int64]  #: `[claims]`
    names: list[str]  #: characteristic words of each cluster
    examples: list[list[int]]  #: most central claims of each cluster


def cluster_claims(texts: Sequence[str], *, seed: int) -> Clusters | None:
    """Cluster claims by tf-idf, latent semantic analysis and k-means.

    The number of clusters is the one with the best silhouette. A cluster's name is made of the
    words that are most characteristic of it: highest in frequency times log-odds against the
    rest. ``None`` when there are too few claims.
    """
    if len(texts) < MIN_CLAIMS:
        return None
    from sklearn.cluster import KMeans  # slow to import
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    vectorizer = TfidfVectorizer(analyzer=content_stems, sublinear_tf=True, min_df=3)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no word occurs three times: nothing to cluster by
        return None
    if features.shape[1] < 4:
        return None
    dimensions = min(_DIMENSIONS, features.shape[1] - 1)
    space = normalize(TruncatedSVD(dimensions, random_state=seed).fit_transform(features))
    distinct = len(np.unique(space.round(6), axis=0))
    best: tuple[float, NDArray[np.int64], NDArray[np.float64]] | None = None
    for count in _CLUSTER_COUNTS:
        if count * 5 > len(texts) or count > distinct:
            break
        with threadpool_limits(limits=1):
            model = KMeans(count, n_init=3, random_state=seed).fit(space)
        if len(np.unique(model.labels_)) < 2:
            continue
        quality = float(
            silhouette_score(
                space, model.labels_, sample_size=min(1500, len(texts)), random_state=seed
            )
        )
        if best is None or quality > best[0]:
            best = (quality, model.labels_, model.cluster_centers_)
    if best is None:
        return None
    _, raw_labels, centres = best
    order = np.argsort(-np.bincount(raw_labels, minlength=len(centres)), kind="stable")
    rank = np.argsort(order)
    labels = rank[raw_labels]
    names, examples = [], []
    stems = vectorizer.get_feature_names_out()
    counts = (features > 0).astype(np.float64)
    for cluster, centre in enumerate(order):
        inside = labels == cluster
        members = [text for text, is_inside in zip(texts, inside, strict=True) if is_inside]
        names.append(_name(counts, inside, stems, members))
        nearness = np.where(inside, space @ centres[centre], -np.inf)
        central = np.argsort(-nearness, kind="stable")[: min(_EXAMPLES, int(inside.sum()))]
        examples.append([int(place) for place in central])
    return Clusters(labels.astype(np.int64), names, examples)


def _name(
    counts: sparse.csr_matrix, inside: NDArray[np.bool_], stems: NDArray, members: Sequence[str]
) -> str:
    """The characteristic words of a cluster, each in the form that its ``members`` use most."""
    within = np.asarray(counts[inside].mean(axis=0)).ravel()
    outside = np.asarray(counts[~inside].mean(axis=0)).ravel()
    lift = within * np.log((within + 0.01) / (outside + 0.01))
    best = [str(stems[place]) for place in np.argsort(-lift, kind="stable") if lift[place] > 0]
    # What "e.g." and "i.e." leave of themselves tells nobody what a cluster is about.
    named = [one for one in best if len(one) > 1 or not one.isascii()][:_NAMING_WORDS]
    forms = _forms(members, frozenset(named))
    return ", ".join(forms[one] for one in named) or "no common word"


def _forms(texts: Sequence[str], stems: frozenset[str]) -> dict[str, str]:
    """Stem → the whole word that ``texts`` most often use for it (the shorter one of a tie)."""
    used = Counter(word.removesuffix("'s") for text in texts for word in words(text))
    forms: dict[str, str] = {}
    for word, _ in sorted(used.items(), key=lambda item: (-item[1], len(item[0]), item[0])):
        forms.setdefault(stem(word), word)
    return {one: forms[one] for one in stems}
