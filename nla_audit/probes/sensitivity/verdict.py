"""The rules by which numbers become a verdict on each model, and the sentences that tell it.

In the order in which they are tried:

1. *cannot tell*: too few activations for an interval, or no explanation at all; or the detector
   finds the concept no more often where it is named in its words than where it is not.
2. *carried, not said*: in texts that do not name the concept its component comes back by more
   than from every control (:mod:`nla_audit.probes.sensitivity.carried`), at a false discovery rate
   of :data:`FDR` over the models, and by at least :data:`~.carried.MATERIAL` of what was planted.
   That a model also names it elsewhere is told beside it.
3. *said*: the concept is named more often where it was planted than where nothing was, and than
   where a random direction was (where one was planted).
4. *cannot tell*: what is carried unsaid has no control; or no explanation of any model names the
   concept, so that neither the direction nor the words were seen to work; or more than
   :data:`MOST_FALSE` of unplanted ones name it, so that a mention says little; or
   :data:`~.carried.LARGE` of what was planted may come back unsaid, and an excess as large over
   the controls would be missed.
5. *neither*: the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nla_audit.probes.sensitivity.carried import LARGE, MATERIAL, Carried
from nla_audit.probes.sensitivity.controls import CONCEPT, OTHER, RANDOM, VARIANCE
from nla_audit.probes.sensitivity.psychometric import BELOW, BEYOND, Threshold
from nla_audit.stats import Interval, benjamini_hochberg
from nla_audit.wording import count, verb

#: False discovery rate, over the models of a table, of what is carried unsaid.
FDR = 0.05

#: Share of unplanted explanations that may name the concept for its absence to be told.
MOST_FALSE = 0.5

SAID, CARRIED, NEITHER, CANNOT_TELL = "said", "carried, not said", "neither", "cannot tell"
CATEGORIES = (SAID, CARRIED, NEITHER, CANNOT_TELL)
_CONTROLS = {
    RANDOM: "of random directions",
    VARIANCE: "of directions of equal variance",
    OTHER: "of it where another concept was planted",
}


@dataclass(frozen=True)
class ConceptEvidence:
    """What the rules read of one model.

    Attributes:
        is_enough: whether there are activations enough for an interval.
        activations: how many.
        carried: what the AR brings back.
        excess: control → by how much more often the concept is named; :data:`CONCEPT` is against
            unplanted activations.
        threshold: α50.
        unplanted: share of unplanted explanations that names it.
        strongest: share that names it at the strongest strength.
        is_named_anywhere: whether any explanation of any model names the concept.
        blind: why the detector tells nothing, if so
            (:func:`nla_audit.probes.sensitivity.detectors.blindness`).
    """

    is_enough: bool
    activations: int
    carried: Carried
    excess: Mapping[str, Interval]
    threshold: Threshold
    unplanted: Interval
    strongest: Interval
    is_named_anywhere: bool
    blind: str | None = None


@dataclass(frozen=True)
class ConceptVerdict:
    """On one model.

    Attributes:
        category: one of :data:`CATEGORIES`.
        because: the reason, half a sentence or more.
        is_said: whether it is named more often than by chance, whatever the category.
        q_value: of what is carried unsaid, adjusted over the models; NaN where it was not tested.
        needed: activations that would tell, where these are too few.
    """

    category: str
    because: str
    is_said: bool
    q_value: float
    needed: int | None = None


def decide(evidence: Mapping[str, ConceptEvidence]) -> dict[str, ConceptVerdict]:
    """The verdict on each model, by the rules of this module's docstring."""
    p_values = [one.carried.p_value for one in evidence.values()]
    q_values = benjamini_hochberg(p_values)
    return {
        model: _decided(one, float(q))
        for (model, one), q in zip(evidence.items(), q_values, strict=True)
    }


def _decided(one: ConceptEvidence, q_value: float) -> ConceptVerdict:  # noqa: PLR0911  (one for each rule)
    if not one.is_enough:
        few = f"{count(one.activations, 'activation')} with an explanation "
        few += f"{verb(one.activations, 'is', 'are')} too few for an interval"
        return ConceptVerdict(CANNOT_TELL, few, False, np.nan)
    if one.blind is not None:
        return ConceptVerdict(CANNOT_TELL, one.blind, False, q_value)
    is_said = all(excess.low > 0 for excess in one.excess.values())
    because = f"{_naming(one)}; {_carrying(one)}"
    if q_value < FDR and one.carried.unsaid.value >= MATERIAL:
        return ConceptVerdict(CARRIED, because, is_said, q_value)
    if is_said:
        return ConceptVerdict(SAID, because, is_said, q_value)
    if not one.is_named_anywhere:
        words = "no explanation of any model names it, so that nothing shows that its words are "
        return ConceptVerdict(CANNOT_TELL, f"{words}those that would; {because}", False, q_value)
    if one.unplanted.value > MOST_FALSE:
        everywhere = f"{_share(one.unplanted)} name it where nothing is planted"
        because = f"{everywhere}, so that a mention says little; {because}"
        return ConceptVerdict(CANNOT_TELL, because, False, q_value)
    if np.isnan(q_value):
        missing = "there are too few random directions to compare with"
        return ConceptVerdict(CANNOT_TELL, f"{missing}; {because}", False, q_value)
    unsaid, reach = one.carried.unsaid, one.carried.detectable
    if unsaid.high >= LARGE and reach > LARGE:
        missed = (
            f"up to {percent(unsaid.high)} may come back unsaid, and less than {percent(reach)} "
            "more than of random directions would be missed"
        )
        needed = None
        if unsaid.value < LARGE:
            shorter = (LARGE - unsaid.value) / (unsaid.high - unsaid.value)
            needed = math.ceil(one.activations / shorter**2)
            missed += f"; {needed:,} activations would bound it below {percent(LARGE)}"
        return ConceptVerdict(CANNOT_TELL, f"{missed}; {because}", False, q_value, needed)
    return ConceptVerdict(NEITHER, because, False, q_value)


def _naming(one: ConceptEvidence) -> str:
    if one.threshold.value is not None:
        return f"half name it at {one.threshold.told()} of the norm"
    strongest = f"{_share(one.strongest)} at the strongest strength"
    where = {
        BEYOND: "fewer than half name it at any strength",
        BELOW: "half name it already at the weakest strength",
    }.get(one.threshold.reason, "where half name it cannot be told")
    return f"{where}, {strongest}"


def _carrying(one: ConceptEvidence) -> str:
    unsaid = one.carried.unsaid
    if np.isnan(unsaid.value):
        return "what would come back unsaid is not known"
    controls = ", ".join(
        f"{_CONTROLS[kind]} {percent(value)}"
        for kind, value in one.carried.controls.items()
        if np.isfinite(value)
    )
    against = f" ({controls})" if controls else ""
    return f"{_share(unsaid)} of it comes back unsaid{against}"


def _share(interval: Interval) -> str:
    if np.isnan(interval.value):
        return "an unknown share"
    if np.isnan(interval.low):
        return percent(interval.value)
    return f"{percent(interval.value)} [{percent(interval.low)}, {percent(interval.high)}]"


def percent(share: float) -> str:
    """A share in whole percent, which is never a negative nothing."""
    return f"{round(100 * share):d}%".replace("-", "−")


def sentence(model: str, verdict: ConceptVerdict) -> str:
    """A verdict in one plain sentence."""
    also = " (and said elsewhere)" if verdict.category == CARRIED and verdict.is_said else ""
    return f"{model}: {verdict.category}{also}: {verdict.because}."


def strength_told(concept: str, strongest: float) -> str:
    """What was planted, in a sentence."""
    return f"“{concept}” was planted at up to {percent(strongest)} of the activation's norm."


def excess_of(kinds: list[str]) -> tuple[str, ...]:
    """The comparisons that "said" rests on, of those whose rows a table has."""
    return (CONCEPT, *(kind for kind in (RANDOM,) if kind in kinds))
