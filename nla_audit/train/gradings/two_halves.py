"""The first half of an explanation, and all of it, are graded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from nla_audit.train.grading import Ends, Grading, grading, same_everywhere
from nla_audit.train.section import Penalty

if TYPE_CHECKING:
    from nla_audit.train.responses import Responses


@grading("two halves", "the first half of the response, and the whole of it, each earn the reward")
class TwoHalves(Grading):
    """The half is counted in tokens, rounded up."""

    kind: Literal["two_halves"] = "two_halves"
    half_weight: Penalty = 1.0
    """What the reward at the half is multiplied by; that of the whole text has weight 1."""

    def ends(self, responses: Responses, length_penalty: float) -> Ends:
        stops = np.stack([(responses.lengths + 1) // 2, responses.lengths], axis=1)
        places = [(row, int(stop)) for row in range(len(responses)) for stop in stops[row]]
        texts = iter(responses.texts(places))
        return Ends(
            stops=stops,
            texts=[[next(texts), next(texts)] for _ in range(len(responses))],
            weights=np.tile([self.half_weight, 1.0], (len(responses), 1)),
            penalties=same_everywhere(length_penalty, responses, 2),
        )
