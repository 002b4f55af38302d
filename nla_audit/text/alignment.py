"""Alignment: which claims of a reference explanation another explanation still makes.

Evidence between claims becomes a soft one-to-one matching with slack on both sides: a claim of
the other explanation accounts for at most one claim of the reference (for several where it is
telegraphic and runs claims together), a claim of the reference is kept at most once, and either
may stay alone. The slack is the one free constant. It is not picked but calibrated on the null of
another activation's text: see :func:`calibrate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Words of a claim are not independent draws; evidence summed over them is overconfident.
#: Halving it is the usual correction for pairs of dependent words in such models.
TEMPERATURE = 0.5
_ITERATIONS = 40
#: Null quantiles at which the share of unsupported claims is read (see ``supported_share``).
_NULL_QUANTILES = (0.3, 0.4, 0.5, 0.6, 0.7)
_SLACK_RANGE = (1e-2, 1e4)


@dataclass(frozen=True)
class Matching:
    """Soft matches of a batch of pairs, padded: `[pairs, other claims, reference claims]`."""

    posterior: Floats

    def kept(self) -> Floats:
        """`[pairs, reference claims]`: probability that each is still made."""
        return np.minimum(self.posterior.sum(axis=1), 1.0)

    def supported(self) -> Floats:
        """`[pairs, other claims]`: probability that each states something of the reference."""
        return np.minimum(self.posterior.sum(axis=2), 1.0)


@dataclass(frozen=True)
class Order:
    """How far claims keep their place: the spread of the difference in relative position.

    ``spread`` is ``None`` where matched claims are no nearer to each other's place than chance.
    """

    spread: float | None = None

    def log_prior(self, others: int, references: int) -> Floats:
        """`[others, references]`: evidence from the claims' places, neutral on average."""
        if self.spread is None or others < 2 or references < 2:
            return np.zeros((others, references))
        difference = np.abs(
            np.linspace(0, 1, others)[:, None] - np.linspace(0, 1, references)[None, :]
        )
        log_near = -0.5 * (difference / self.spread) ** 2
        # Each row's prior averages to one over the reference's claims, so a claim gains from
        # lying near only what others lose from lying far.
        return log_near - np.log(np.mean(np.exp(log_near), axis=1, keepdims=True))


@dataclass(frozen=True)
class PairEvidence:
    """Evidence between the claims of two explanations, with the sentence each claim is in."""

    evidence: Floats  #: `[other claims, reference claims]`, nats
    other_sentences: NDArray[np.int64]
    reference_sentences: NDArray[np.int64]
    other_lengths: Floats  #: content words of each claim of the other explanation
    other_parts: Floats  #: claims that each of them may run together
    reference_parts: Floats  #: the same of the reference's claims


#: Weight of a claim pair whose sentences do not match, against one whose sentences do: claims
#: travel with their sentence, but a claim may also move on its own.
_STRAY = 0.05


def _sentence_context(pair: PairEvidence, order: Order) -> Floats:
    """Evidence `[others, references]` from the sentences around two claims, neutral on average."""
    best = np.stack(
        [
            pair.evidence[:, pair.reference_sentences == sentence].max(axis=1)
            for sentence in np.unique(pair.reference_sentences)
        ],
        axis=1,
    )
    sentences = np.stack(
        [
            best[pair.other_sentences == sentence].sum(axis=0)
            for sentence in np.unique(pair.other_sentences)
        ]
    )
    posterior = mutual_posterior(TEMPERATURE * sentences + order.log_prior(*sentences.shape))
    row = np.unique(pair.other_sentences, return_inverse=True)[1]
    column = np.unique(pair.reference_sentences, return_inverse=True)[1]
    context = _STRAY + posterior[np.ix_(row, column)]
    return np.log(context / context.mean(axis=1, keepdims=True))


def mutual_posterior(log_weight: Floats) -> Floats:
    """A quick soft one-to-one matching of log weights `[m, n]`, with even slack."""
    weight = np.exp(np.clip(log_weight, -20, 20))
    rows, columns = np.ones(len(weight)), np.ones(weight.shape[1])
    for _ in range(10):
        rows = 1 / (0.5 + weight @ columns)
        columns = 1 / (1 + weight.T @ rows)
    return np.asarray(rows[:, None] * weight * columns[None])


@dataclass(frozen=True)
class Weights:
    """Weights of a batch of pairs, padded with zeros to `[pairs, M, N]`."""

    pair: Floats  #: `[pairs, M, N]`
    row_capacity: Floats  #: `[pairs, M]` reference claims that each other claim may account for
    column_capacity: Floats  #: `[pairs, N]` other claims that may account for each reference claim


def weights(pairs: Sequence[PairEvidence], order: Order) -> Weights:
    """Turn the evidence of many pairs into padded weights of one batch."""
    rows = max((pair.evidence.shape[0] for pair in pairs), default=0)
    columns = max((pair.evidence.shape[1] for pair in pairs), default=0)
    padded = np.zeros((len(pairs), rows, columns))
    row_capacity = np.zeros((len(pairs), rows))
    column_capacity = np.zeros((len(pairs), columns))
    for number, pair in enumerate(pairs):
        m, n = pair.evidence.shape
        if m == 0 or n == 0:
            continue
        log_weight = (
            TEMPERATURE * pair.evidence + order.log_prior(m, n) + _sentence_context(pair, order)
        )
        padded[number, :m, :n] = np.exp(np.clip(log_weight, -20, 20))
        row_capacity[number, :m] = pair.other_parts
        column_capacity[number, :n] = pair.reference_parts
    return Weights(padded, row_capacity, column_capacity)


def match(batch: Weights, slack: float) -> Matching:
    """Soft matching with slack, by alternately scaling rows and columns (Sinkhorn 1967).

    Args:
        slack: weight of a claim of the other explanation having no counterpart.
    """
    columns = np.ones_like(batch.column_capacity)
    rows = np.zeros_like(batch.row_capacity)
    for _ in range(_ITERATIONS):
        rows = batch.row_capacity / (slack + np.einsum("pmn,pn->pm", batch.pair, columns))
        columns = batch.column_capacity / (1.0 + np.einsum("pmn,pm->pn", batch.pair, rows))
    return Matching(rows[:, :, None] * batch.pair * columns[:, None, :])


def supported_share(own: Floats, own_weight: Floats, null: Floats, null_weight: Floats) -> float:
    """Share of claims that say something of their own activation's reference.

    ``own`` is each claim's best evidence against its own reference, ``null`` the same against
    other activations' references. Unsupported claims follow the null; supported ones lie above
    its lower part. So the share of claims below a low null quantile, over that quantile, is the
    share of unsupported ones (Storey 2002), with no threshold to pick. Weights let claims that
    can carry evidence count for more: one of two common words follows the null whatever it says.
    """
    if own_weight.sum() == 0 or null_weight.sum() == 0:
        return float("nan")
    ordered = np.argsort(null, kind="stable")
    below = np.cumsum(null_weight[ordered]) / null_weight.sum()
    ratios = []
    for quantile in _NULL_QUANTILES:
        threshold = null[ordered][np.searchsorted(below, quantile)]
        ratios.append(float(own_weight[own <= threshold].sum() / own_weight.sum() / quantile))
    return float(np.clip(1 - np.median(ratios), 0.0, 1.0))


def calibrate(batch: Weights, weight: Floats, share: float) -> float:
    """The largest slack at which the matching supports ``share`` of the other's claims.

    Args:
        weight: `[pairs, M]` how much each claim of the other explanation counts (its length).
    """
    if weight.sum() == 0 or np.isnan(share):
        return 1.0
    low, high = np.log(_SLACK_RANGE[0]), np.log(_SLACK_RANGE[1])
    for _ in range(14):
        middle = (low + high) / 2
        supported = match(batch, float(np.exp(middle))).supported()
        if np.average(supported, weights=weight) >= share:
            low = middle
        else:
            high = middle
    return float(np.exp(low))


def measure_order(evidence: Sequence[Floats]) -> Order:
    """How far the best-matched claims keep their relative place (see :class:`Order`)."""
    differences, uniform = [], []
    for block in evidence:
        m, n = block.shape
        if m < 3 or n < 3:
            continue
        best_reference = block.argmax(axis=1)
        mutual = block.argmax(axis=0)[best_reference] == np.arange(m)
        strong = block.max(axis=1) > 4.0  # nats: clearly the same words
        for row in np.flatnonzero(mutual & strong):
            differences.append(row / (m - 1) - best_reference[row] / (n - 1))
        uniform.append(np.subtract.outer(np.linspace(0, 1, m), np.linspace(0, 1, n)).ravel())
    if len(differences) < 30:
        return Order(None)
    spread = float(np.sqrt(np.mean(np.square(differences))))
    chance = float(np.sqrt(np.mean(np.square(np.concatenate(uniform)))))
    return Order(max(spread, 0.15)) if spread < 0.9 * chance else Order(None)
