"""Reading a text as a walk over another's claims: what ``stego`` compares meanings by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nla_audit.text.pairs import TextPair
from nla_audit.text.segmentation import Habits, LikelihoodRatios, Segmentation, segment
from nla_audit.text.similarity import Similarity


@dataclass(frozen=True)
class ClaimReader:
    """A fitted similarity, and how each model walks over the reference's claims."""

    similarity: Similarity
    habits: dict[str, Habits]

    def segment(self, model: str, pairs: Sequence[TextPair]) -> list[Segmentation]:
        """Segment a model's explanations; one never met is read with the initial habits."""
        found = segment(_evidence(pairs, self.similarity), self.habits.get(model, Habits()))
        return _about_the_same(pairs, found)


def _evidence(pairs: Sequence[TextPair], similarity: Similarity) -> list[LikelihoodRatios]:
    return similarity.evidence([(pair.reference.claims, pair.other.claims) for pair in pairs])


def _about_the_same(pairs: Sequence[TextPair], found: Sequence[Segmentation]) -> list[Segmentation]:
    """Segmentations in which a claim about a name or number is kept only where that still stands.

    Names and numbers are not paraphrased: "The name Juarez is mentioned" does not keep "The name
    Whitlock is mentioned", however alike the two are said.
    """
    checked = []
    for pair, segmentation in zip(pairs, found, strict=True):
        there = {stem for claim in pair.other.claims for stem in claim.stems}
        stands = [
            not claim.subjects or not claim.subjects.isdisjoint(there)
            for claim in pair.reference.claims
        ]
        checked.append(replace(segmentation, kept=segmentation.kept * stands))
    return checked
