"""Fits: how likely each match of two texts' parts is, for one model, by nulls of its own table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nla_audit.text.alignment import (
    Aligned,
    PiecesPair,
    Store,
    align,
    left_over_by_chance,
)
from nla_audit.text.credit import repunctuated, segmentations
from nla_audit.text.details import Details, find_details, fit_details
from nla_audit.text.expected import Expected
from nla_audit.text.mixture import MIN_SCORES, TwoGroups, fit_two_groups, typical_two_groups
from nla_audit.text.pairs import TextPair
from nla_audit.text.segmentation import Segmentation
from nla_audit.text.vectors import TextVectors, products

Floats = NDArray[np.float64]
_NONE = np.zeros(0, dtype=np.int64)

#: Explanations read against other activations' for the null, of each model; a small table's
#: explanations are read against several others each.
_NULL_PAIRS = 600
_MOST_PARTNERS = 8
#: A similarity from here on is that of the same words.
_COPY = 0.999
#: So far below the null (in its standard deviations) a sentence without a partner is taken to lie
#: where all others have theirs and match beyond doubt, which leaves it few to choose from. Of lines
#: exchanged for other activations' (a tenth to six tenths of them) the mean lay 1.5 to 0.9 lower,
#: times the share that matched. Where matches lie close to the null it cannot be told from how many
#: match, and less is taken.
_CROWDING = 1.1
#: Pairs of unrelated sentences, and the share of them that is less alike than the most they are.
_UNRELATED, _MOST = 5_000, 0.995


@dataclass(frozen=True)
class Fit:
    """How likely a match is by its score, for one model.

    Attributes:
        sentences: of whole sentences.
        expected: how alike sentences without a common claim are; ``None`` where too few are known,
            and similarity itself is judged.
        pieces: of pieces that no match of sentences holds; ``None`` where there are too few.
        said_alone: see :func:`~nla_audit.text.credit.repunctuated`.
        measured: whether the null of ``sentences`` is this table's own.
        details: of pieces that no piece of the other text is matched with; ``None`` where too few
            are matched to tell (:mod:`nla_audit.text.details`).
    """

    sentences: TwoGroups
    expected: Expected | None = None
    pieces: TwoGroups | None = None
    said_alone: tuple[float, float] = (0.0, 0.0)
    measured: bool = False
    details: TwoGroups | None = None

    def segmented(self, pairs: Sequence[TextPair], store: Store) -> list[Segmentation]:
        """Which claims of the reference each explanation still makes."""
        aligned = align(beside(pairs), store, self.expected)
        details = Details.none()
        if self.details is not None:
            details = find_details(beside(pairs), aligned, self.matched(aligned), store)
        return self.segmentations(pairs, aligned, details)

    def segmentations(
        self, pairs: Sequence[TextPair], aligned: Aligned, details: Details
    ) -> list[Segmentation]:
        """The same of texts that are aligned."""
        over = aligned.left_over
        return segmentations(
            beside(pairs),
            [(len(pair.reference.claims), len(pair.other.claims)) for pair in pairs],
            aligned,
            self.matched(aligned),
            _or_copied(_posterior(self.pieces, over.scores), over.similarity),
            details=details,
            detailed=_posterior(self.details, details.scores),
            said_alone=self.said_alone,
        )

    def matched(self, aligned: Aligned) -> Floats:
        """How likely each match of sentences is."""
        found = aligned.sentences
        scores = found.scores if self.measured else found.similarity
        return _or_copied(self.sentences.posterior(scores), found.similarity)


def beside(pairs: Sequence[TextPair]) -> list[PiecesPair]:
    """The pieces of either text of each pair."""
    return [(pair.reference.pieces, pair.other.pieces) for pair in pairs]


def _posterior(fit: TwoGroups | None, scores: Floats) -> Floats:
    """Where nothing could be fitted, nothing is a match."""
    return np.zeros(len(scores)) if fit is None else fit.posterior(scores)


def _or_copied(matched: Floats, similarity: Floats) -> Floats:
    """What stands there word for word is said, however often other activations say it too."""
    return np.where(similarity >= _COPY, 1.0, matched)


def untaught(vectors: TextVectors) -> Fit:
    """What is taken for a model that is too small to show its own null."""
    return Fit(typical_two_groups(vectors.typical_null))


def fit_matches(
    pairs: Sequence[TextPair],
    own: Aligned,
    null: Sequence[Aligned],
    vectors: TextVectors,
    store: Store,
) -> tuple[Fit, Details]:
    """How likely matches are, and the pieces without one that are found all the same.

    Args:
        own: the pairs, aligned.
        null: the same with texts of other activations.
    """
    sentences = fit_two_groups(
        own.sentences.scores,
        np.concatenate([one.sentences.scores for one in null] or [np.zeros(0)]),
        crowding=_CROWDING,
    )
    if sentences is None:
        return untaught(vectors), Details.none()
    fit = Fit(sentences, own.expected, measured=True)
    texts, matched = beside(pairs), fit.matched(own)
    by_chance = left_over_by_chance(texts, own, matched, store)
    if len(by_chance) < MIN_SCORES:
        by_chance = np.concatenate([one.left_over.scores for one in null] or [np.zeros(0)])
    details, found = fit_details(texts, own, matched, store)
    said_alone = repunctuated(own, matched, found, _posterior(details, found.scores))
    pieces = fit_two_groups(own.left_over.scores, by_chance)
    return replace(fit, pieces=pieces, said_alone=said_alone, details=details), found


def crossed(pairs: Sequence[TextPair], seed: int) -> list[list[TextPair]]:
    """The same references beside explanations of other activations, several times: the null.

    Partners stand at equal distances before and behind in one random order of the activations, so
    that with reference and model exchanged the same pairs of texts are compared.
    """
    by_activation: dict[int, list[TextPair]] = {}
    for pair in pairs:
        by_activation.setdefault(pair.idx, []).append(pair)
    order = np.random.default_rng([seed, 2]).permutation(sorted(by_activation)).tolist()
    count = len(order)
    wanted = min(_MOST_PARTNERS, 2 * max(1, round(_NULL_PAIRS / max(1, 2 * len(pairs)))))
    steps = [step for near in range(1, wanted // 2 + 1) for step in (near, -near)]
    several, used = [], set()
    for step in steps:
        if step % count in used or step % count == 0:
            continue
        used.add(step % count)
        exchanged = []
        for place, idx in enumerate(order):
            partners = by_activation[order[(place + step) % count]]
            for number, pair in enumerate(by_activation[idx]):
                exchanged.append(replace(pair, other=partners[number % len(partners)].other))
        several.append(exchanged)
    return several


def most_by_chance(pairs: Sequence[TextPair], store: Store, seed: int) -> float:
    """The most that sentences of different activations are alike, but for a few."""
    sides = [
        (
            np.repeat([pair.idx for pair in pairs], [len(text.sentences) for text in texts]),
            np.concatenate([store.rows(text.sentences) for text in texts] or [_NONE]),
        )
        for texts in zip(*beside(pairs), strict=True)
    ]
    (idx, rows), (other_idx, other_rows) = sides
    if not len(rows) or not len(other_rows):
        return np.inf
    generator = np.random.default_rng([seed, 3])
    first, second = (generator.integers(len(side), size=_UNRELATED) for side in (rows, other_rows))
    apart = idx[first] != other_idx[second]
    if not apart.any():
        return np.inf
    found = products(store.vectors, rows[first[apart]], other_rows[second[apart]])
    return float(np.quantile(found, _MOST))
