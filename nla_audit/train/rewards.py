"""What an explanation earns: small named terms, weighted and summed.

A term is a function from the samples of a step to one number each. It is finite for every
sample: a failed extraction has a value by rule, never a gap, so that failing cannot pay. Terms of
the reconstruction are taken at every graded end, the others of the whole response only. A recipe
gives the weights; a weight of 0 records a term without training on it. To add a term, write a
function here and decorate it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from nla_audit.errors import UserError
from nla_audit.train.grading import Ends
from nla_audit.train.lengths import Charge

Floats = npt.NDArray[np.float64]

#: MSE of a guess orthogonal to the target at norm √d; what a failed extraction counts as
#: (docs/failures.md).
FAILED_MSE = 2.0
#: Keeps −log MSE finite at a perfect reconstruction.
_SMALLEST_MSE = 1e-4


@dataclass(frozen=True)
class Graded:
    """Graded ends of ``n`` samples, ``m`` each, as they were read.

    Attributes:
        ends: where they are, and their texts, weights and λ's.
        mse: ``[n, m]``; NaN where failed or not reached.
        lengths: ``[n, m]`` counted tokens of the segment that ends there.
    """

    ends: Ends
    mse: Floats
    lengths: Floats


@dataclass(frozen=True)
class Samples:
    """The samples of a step, each array ``[n]``.

    Attributes:
        explanations: text between the tags; ``""`` empty, ``None`` failed.
        mse: of the reconstruction; NaN where failed.
        n_tokens: generated tokens up to and including the first end token.
        content_tokens: tokens of the explanation itself.
        cjk: share of CJK characters in the response.
        graded: the ends that are graded; without them only the whole text is.
        says_nothing: whether they are charged as the longest of their group, where that is asked.
        scores: by judge, from 0 to 1; NaN where it gave none.
    """

    explanations: list[str | None]
    mse: Floats
    n_tokens: npt.NDArray[np.int64]
    content_tokens: npt.NDArray[np.int64]
    cjk: Floats
    graded: Graded | None = None
    says_nothing: npt.NDArray[np.bool_] | None = None
    scores: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def has_failed(self) -> npt.NDArray[np.bool_]:
        """``[n]`` whether nothing could be read, or its reconstruction is no number."""
        return np.array([text is None for text in self.explanations]) | ~np.isfinite(self.mse)


Term = Callable[[Samples], Floats]

_TERMS: dict[str, Term] = {}
#: Names of those that are taken at every graded end.
_OF_THE_TEXT: set[str] = set()


def reward_term(function: Term) -> Term:
    """Register a term under its function's name."""
    _TERMS[function.__name__] = function
    return function


def reconstruction_term(function: Term) -> Term:
    """Register a term that every graded end earns for the text up to it."""
    _OF_THE_TEXT.add(function.__name__)
    return reward_term(function)


@reconstruction_term
def negative_mse(samples: Samples) -> Floats:
    """−MSE of the reconstruction, in [−4, 0]; −2 where failed."""
    return -np.where(samples.has_failed, FAILED_MSE, samples.mse)


@reconstruction_term
def negative_log_mse(samples: Samples) -> Floats:
    """−log MSE (natural), which pays as much for halving a small error as a large one."""
    return -np.log(np.maximum(np.where(samples.has_failed, FAILED_MSE, samples.mse), _SMALLEST_MSE))


@reward_term
def failed(samples: Samples) -> Floats:
    """1 where extraction failed; weigh it negatively for a penalty beyond the lost MSE."""
    return samples.has_failed.astype(np.float64)


@reward_term
def cjk(samples: Samples) -> Floats:
    """Share of CJK characters; an AV that describes its marker has many."""
    return samples.cjk.astype(np.float64)


@reward_term
def repeated_words(samples: Samples) -> Floats:
    """Share of an explanation's words that occurred in it before; 0 where empty or failed."""
    out = np.zeros(len(samples.explanations))
    for row, text in enumerate(samples.explanations):
        words = (text or "").split()
        if words:
            out[row] = 1 - len(set(words)) / len(words)
    return out


def counted_length(samples: Samples, charge: Charge) -> Floats:
    """The length λ multiplies: true tokens, never the padded length of the batch.

    Without the floor under responses that say nothing, which only a group has.
    """
    chosen = samples.n_tokens if charge.counts == "generated" else samples.content_tokens
    return charge.of(chosen).astype(np.float64)


def judged_scores(
    samples: Samples, judge: str, weight: float, group: int | None = None
) -> npt.NDArray[np.float64]:
    """``[n]`` weighted scores of a judge.

    An explanation that failed or is empty has the worse end of the scale, whichever the weight
    makes that: neither may pay. A missing score counts as the mean of those in its group, by which
    it neither gains nor loses (of all, where its group has none); without groups it stays NaN.

    Args:
        group: samples of an activation, which are neighbours.
    """
    scores = np.array(samples.scores[judge], dtype=np.float64)
    is_silent = np.array([not text for text in samples.explanations], dtype=bool)
    is_missing = np.isnan(scores) & ~is_silent
    scores[is_silent] = 0.0 if weight >= 0 else 1.0
    if group is not None and is_missing.any():
        known = ~is_silent & ~is_missing
        overall = scores[known].mean() if known.any() else 0.0
        counts = known.reshape(-1, group).sum(axis=1)
        sums = np.where(known, scores, 0.0).reshape(-1, group).sum(axis=1)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), overall)
        scores = np.where(is_missing, np.repeat(means, group), scores)
    return weight * scores


def _weighted(samples: Samples, name: str, weight: float, group: int | None = None) -> Floats:
    """A term of the whole response."""
    if name in _TERMS:
        return weight * _TERMS[name](samples)
    return judged_scores(samples, name, weight, group)


def rewards_of(
    samples: Samples,
    weights: Mapping[str, float],
    *,
    length_penalty: float,
    charge: Charge,
) -> tuple[Floats, dict[str, Floats]]:
    """Total reward ``[n]`` and each weighted term ``[n]``, λ's as ``length``; NaN where a judge's
    score is missing."""
    terms = {name: _weighted(samples, name, weight) for name, weight in weights.items()}
    terms["length"] = -length_penalty * counted_length(samples, charge)
    return np.sum(list(terms.values()), axis=0), terms


def end_rewards(
    samples: Samples, weights: Mapping[str, float], group: int | None = None
) -> tuple[Floats, dict[str, Floats]]:
    """What each graded end is worth ``[n, m]``, and each term's sum over the ends ``[n]``.

    An end earns its weight times the terms of the reconstruction and pays λ for each token of its
    segment; the last end also earns the other terms, those of the whole response.

    Args:
        group: samples of an activation, for scores that are missing.
    """
    graded = samples.graded
    assert graded is not None
    ends, reached = graded.ends, graded.ends.is_reached
    columns: list[Floats] = []
    sums: dict[str, Floats] = {}
    for end in range(graded.mse.shape[1]):
        is_last = end == graded.mse.shape[1] - 1
        there = replace(
            samples, explanations=[texts[end] for texts in ends.texts], mse=graded.mse[:, end]
        )
        terms: dict[str, Floats] = {}
        for name, weight in weights.items():
            if name in _OF_THE_TEXT:
                terms[name] = ends.weights[:, end] * (weight * _TERMS[name](there))
            elif is_last:
                terms[name] = _weighted(there, name, weight, group)
        terms["length"] = -ends.penalties[:, end] * graded.lengths[:, end]
        columns.append(np.where(reached[:, end], np.sum(list(terms.values()), axis=0), 0.0))
        for name, values in terms.items():
            here = np.where(reached[:, end], values, 0.0)
            sums[name] = sums[name] + here if name in sums else here
    return np.stack(columns, axis=1), sums


def check_terms(weights: Mapping[str, float], judges: Collection[str] = ()) -> None:
    """Check that every term exists, once.

    Args:
        judges: names that the recipe gives its judges.

    Raises:
        UserError: one does not (the nearest is suggested), or a judge has the name of one.
    """
    for name in judges:
        if name in _TERMS:
            raise UserError(f"rl.judges.{name}: there is a reward term of this name; take another")
    known = [*_TERMS, *judges]
    for name in weights:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise UserError(f"rl.rewards: no reward term {name}; {hint}")
