"""How many tokens of a response λ is paid for.

They are counted, some are free (:class:`Charge`), and a response that says nothing may be
charged as if it were as long as the longest of its group. The last is a floor under a sweep's
large λ's: where a token costs more than any word is worth, answering nothing is what earns most,
and a policy that does nothing else has equal rewards and never leaves it. With the floor an answer
that says nothing is at most as cheap as any other of its group, and tells the AR less; so what is
left of a large λ is the shortest text that says something.

Free tokens are another floor, by length: below them λ asks for nothing, and what is said decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from nla_audit.nla.fve import scaled

if TYPE_CHECKING:
    from nla_audit.train.grading import Ends
    from nla_audit.train.responses import Responses

Floats = npt.NDArray[np.float64]
Counts = Literal["generated", "content"]
NothingPays = Literal["own_length", "longest_length"]

#: Activations that are scaled at once.
_CHUNK = 1 << 14


@dataclass(frozen=True)
class Charge:
    """What of a length is charged; see :class:`nla_audit.train.recipe_rl.Rl`."""

    counts: Counts = "generated"
    free_tokens: int = 0

    def of(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Tokens beyond those that are free, of any shape."""
        return np.maximum(tokens - self.free_tokens, 0)


def segment_lengths(
    responses: Responses, ends: Ends, content: npt.NDArray[np.int64], charge: Charge
) -> Floats:
    """``[n, m]`` tokens that λ multiplies, of each segment: from the end reached before.

    Args:
        content: ``[n]`` tokens of the explanations themselves.
    """
    upto = ends.stops.copy()
    if charge.counts == "content":
        for row in range(len(upto)):
            start = responses.start(row) if upto.shape[1] > 1 else None
            upto[row] = np.clip(upto[row] - (start or 0), 0, content[row])
        upto[:, -1] = content
    upto = charge.of(upto)
    out = np.zeros(upto.shape)
    before = np.zeros(len(upto), dtype=np.int64)
    for end in range(upto.shape[1]):
        reached = ends.is_reached[:, end]
        out[:, end] = np.where(reached, upto[:, end] - before, 0)
        before = np.where(reached, upto[:, end], before)
    return out


def with_floor(lengths: Floats, says_nothing: npt.NDArray[np.bool_], group: int) -> Floats:
    """``lengths`` ``[n, m]``, but those that say nothing are as long as the longest of their group.

    What they have less in all is added to their last segment.

    Args:
        says_nothing: ``[n]``.
        group: samples of an activation, which are neighbours.
    """
    totals = lengths.sum(axis=1)
    longest = np.repeat(totals.reshape(-1, group).max(axis=1), group)
    out = lengths.copy()
    out[:, -1] += np.where(says_nothing, longest - totals, 0.0)
    return out


class MeanGuess:
    """The guess that needs no explanation: the mean of the activations that are trained on.

    Args:
        activations: ``[n, d_model]``, raw.
        mse_scale: the norm that they are scaled to; ``None`` leaves them as they are.
    """

    def __init__(self, activations: npt.NDArray[np.float32], mse_scale: float | None) -> None:
        self._mse_scale = mse_scale
        chunks = range(0, len(activations), _CHUNK)
        sums = [scaled(activations[at : at + _CHUNK], mse_scale).sum(axis=0) for at in chunks]
        self._mean = np.sum(sums, axis=0) / len(activations)  # [d_model]

    def mse(self, activations: npt.NDArray[np.float32]) -> Floats:
        """``[n]`` of ``[n, d_model]``: their mean over many is the raw variance."""
        return np.asarray(
            np.mean((scaled(activations, self._mse_scale) - self._mean) ** 2, axis=-1)
        )


def says_nothing(
    explanations: Sequence[str | None], mse: Floats, guessed: Floats
) -> npt.NDArray[np.bool_]:
    """``[n]`` whether an explanation failed, is empty, or brings the AR no closer to its
    activation than the mean of all would be.

    Against the mean and not against what the AR makes of an empty text: that text it may read
    badly, and then any word, the same for every activation, would count as saying something.

    Args:
        mse: ``[n]`` of the reconstructions; NaN where there is none.
        guessed: ``[n]`` of the mean.
    """
    is_empty = np.array([not text for text in explanations])
    return is_empty | ~(mse < guessed)
