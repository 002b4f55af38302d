"""The words of each claim in another order."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import claim_pieces, joined
from nla_audit.text.words import word_spans


@transform(
    name="words_shuffled",
    group="cut",
    summary="The words of each claim in random order; punctuation and claims stay in place.",
    keeps=("words", "line count", "script"),
)
def words_shuffled(text: str, generator: np.random.Generator) -> str:
    """``text`` with words permuted within claims."""
    claims, gaps = claim_pieces(text)
    return joined([_shuffled(claim, generator) for claim in claims], gaps)


def _shuffled(claim: str, generator: np.random.Generator) -> str:
    spans = list(word_spans(claim))
    order = generator.permutation(len(spans))
    pieces, place = [], 0
    for (start, end), other in zip(spans, order, strict=True):
        pieces += [claim[place:start], claim[slice(*spans[other])]]
        place = end
    return "".join([*pieces, claim[place:]])
