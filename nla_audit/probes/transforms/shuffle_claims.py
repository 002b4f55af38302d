"""The claims in another order."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import claim_pieces, joined


@transform(
    name="shuffle_claims",
    group="kept",
    summary="The claims in random order; what separates them stays in place.",
    destroys=("order",),
    keeps=("words", "script"),
)
def shuffle_claims(text: str, generator: np.random.Generator) -> str:
    """``text`` with its claims permuted at random; one claim stays as it is."""
    claims, gaps = claim_pieces(text)
    order = generator.permutation(len(claims))
    return joined([claims[place] for place in order], gaps)
