"""Prefixes of lengths fixed in advance, and the whole explanation, are graded (Matryoshka)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from nla_audit.train.grading import Ends, Grading, grading, same_everywhere
from nla_audit.train.section import Penalty, Positive

if TYPE_CHECKING:
    from nla_audit.train.responses import Responses


@grading(
    "fixed prefixes",
    "the first tokens of an explanation, at lengths fixed in advance, and the whole of it each "
    "earn the reward",
)
class FixedPrefixes(Grading):
    """An explanation shorter than a length is graded there as a whole."""

    kind: Literal["fixed_prefixes"] = "fixed_prefixes"
    lengths: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Tokens of the explanation up to each end, rising."""
    weights: tuple[Penalty, ...] | None = None
    """What the reward at each of them is multiplied by; by default 1."""
    final_weight: Penalty = 1.0
    """What the reward for the whole text is multiplied by."""

    @model_validator(mode="after")
    def _fit(self) -> FixedPrefixes:
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError(f"rl.grading: lengths must rise, found {list(self.lengths)}")
        if self.weights is not None and len(self.weights) != len(self.lengths):
            raise ValueError(
                f"rl.grading: {len(self.weights)} weights for {len(self.lengths)} lengths"
            )
        return self

    def ends(self, responses: Responses, length_penalty: float) -> Ends:
        count = len(responses)
        starts = [responses.start(row) for row in range(count)]
        stops = np.repeat(responses.lengths[:, None], len(self.lengths) + 1, axis=1)
        for row, start in enumerate(starts):
            if start is not None:
                stops[row, :-1] = np.minimum(stops[row, :-1], start + np.array(self.lengths))
        places = [(row, int(stop)) for row in range(count) for stop in stops[row]]
        texts = iter(responses.texts(places))
        weights = [*(self.weights or [1.0] * len(self.lengths)), self.final_weight]
        return Ends(
            stops=stops,
            texts=[[next(texts) for _ in weights] for _ in range(count)],
            weights=np.tile(np.array(weights, dtype=np.float64), (count, 1)),
            penalties=same_everywhere(length_penalty, responses, len(weights)),
        )
