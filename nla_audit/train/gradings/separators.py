"""The AV itself ends its prefixes, by a token that only it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from nla_audit.nla.segments import SEPARATOR
from nla_audit.train.grading import Ends, Grading, grading
from nla_audit.train.section import Penalty

if TYPE_CHECKING:
    from nla_audit.train.responses import Responses


@grading(
    "separators",
    "the text up to each separator that the AV writes, and the whole text, earn the reward, and "
    "each segment pays its own λ",
)
class Separators(Grading):
    """A response that writes fewer separators than others is not graded where they are.

    A separator before the explanation has begun is graded as a failed extraction; one at its very
    beginning as an empty explanation. Those behind the last that counts are tokens like others.
    """

    kind: Literal["separators"] = "separators"
    token: Annotated[str, Field(min_length=1)] = SEPARATOR
    """Added to the AV's vocabulary as a special token; the AR never sees it."""
    at_most: Annotated[int, Field(gt=0, le=1000)] = 4
    """Separators that count."""
    weight: Penalty = 1.0
    """What the reward at each of them is multiplied by; that of the whole text has weight 1."""
    length_penalties: tuple[Penalty, ...] | None = None
    """λ of the first, second, … segment, of which there is one more than separators that count; by
    default the run's λ for all."""

    @model_validator(mode="after")
    def _fit(self) -> Separators:
        given = self.length_penalties
        if given is not None and len(given) != self.at_most + 1:
            raise ValueError(
                f"rl.grading: {len(given)} λ's for the {self.at_most + 1} segments that "
                f"{self.at_most} separators make"
            )
        return self

    def separator(self) -> str | None:
        return self.token

    def most_separators(self) -> int:
        return self.at_most

    def ends(self, responses: Responses, length_penalty: float) -> Ends:
        count, most = len(responses), self.at_most
        token = responses.token_id(self.token)
        stops = np.zeros((count, most + 1), dtype=np.int64)
        per_segment = np.array(self.length_penalties or [length_penalty] * (most + 1))
        penalties = np.tile(per_segment.astype(np.float64), (count, 1))
        for row in range(count):
            found = [place for place, one in enumerate(responses.ids(row), 1) if one == token]
            found = found[:most]
            stops[row, : len(found)] = found
            stops[row, most] = responses.lengths[row]
            penalties[row, most] = per_segment[len(found)]
        places = [(row, int(end)) for row, ends in enumerate(stops) for end in ends if end]
        texts = dict(zip(places, responses.texts(places), strict=True))
        return Ends(
            stops=stops,
            texts=[[texts.get((row, int(end))) for end in ends] for row, ends in enumerate(stops)],
            weights=np.tile(np.array([self.weight] * most + [1.0]), (count, 1)),
            penalties=penalties,
        )
