"""A prefix of random length is all that is said, and graded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import model_validator

from nla_audit.train.grading import Ends, Floats, Grading, Integers, Stopping, grading
from nla_audit.train.gradings.final import Final
from nla_audit.train.section import Positive

if TYPE_CHECKING:
    from nla_audit.train.responses import Responses

#: Share of draws that should let a text go on to the cap.
_TO_THE_END = 0.3


@grading(
    "random prefix",
    "sampling stops at a length drawn anew for each group, and what was said by then earns the "
    "reward",
)
class RandomPrefix(Grading):
    """The same length for a whole group; running into it is no failure, the general cap is."""

    kind: Literal["random_prefix"] = "random_prefix"
    unit: Literal["tokens", "claims"] = "tokens"
    """What is counted, in the explanation. Claims are sampled to the end and cut afterwards."""
    shortest: Positive = 1
    """The least that may be drawn."""
    longest: Positive = 120
    """The most that may be drawn. Of tokens, about twice rl.max_new_tokens: an AV whose texts are
    nearly always cut before they could end forgets to end them. Of a tiny AV's texts 3 % ended
    after 100 steps where this was 0.6 of the cap, 66 % at 1.2 and 90 % at 2."""
    draw: Literal["uniform", "log_uniform", "tapered"] = "uniform"
    """Every length alike; every factor of length alike; or less often the longer, falling linearly
    to zero just beyond the longest."""

    @model_validator(mode="after")
    def _fit(self) -> RandomPrefix:
        if self.shortest > self.longest:
            raise ValueError(
                f"rl.grading: shortest {self.shortest} is above longest {self.longest}"
            )
        return self

    def stopping(self, groups: int, rng: np.random.Generator) -> Stopping:
        lengths, shares = self._shares()
        drawn = rng.choice(lengths, size=groups, p=shares).tolist()
        return Stopping(tokens=drawn) if self.unit == "tokens" else Stopping(claims=drawn)

    def caution(self, max_new_tokens: int) -> str | None:
        lengths, shares = self._shares()
        to_the_end = float(shares[lengths >= max_new_tokens].sum())
        if self.unit != "tokens" or to_the_end >= _TO_THE_END:
            return None
        return (
            f"{to_the_end:.0%} of the draws let a text go on to the cap of {max_new_tokens} "
            "tokens, so that the AV may forget to end its texts; raise rl.grading.longest"
        )

    def _shares(self) -> tuple[Integers, Floats]:
        """Lengths that may be drawn, and how often each is."""
        lengths = np.arange(self.shortest, self.longest + 1)
        weights = {
            "uniform": np.ones(len(lengths)),
            "log_uniform": np.log((lengths + 1) / lengths),
            "tapered": (self.longest + 1 - lengths).astype(np.float64),
        }[self.draw]
        return lengths, weights / weights.sum()

    def ends(self, responses: Responses, length_penalty: float) -> Ends:
        return Final().ends(responses, length_penalty)
