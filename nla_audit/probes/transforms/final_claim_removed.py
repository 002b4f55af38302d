"""All but the last claim."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.claims import split_claims


@transform(
    name="final_claim_removed",
    group="cut",
    summary="The last claim, which mostly describes the end of the input, is deleted.",
    keeps=("words are a subset",),
)
def final_claim_removed(text: str, generator: np.random.Generator) -> str:
    """``text`` up to the end of its last claim but one."""
    claims = split_claims(text)
    return text[: claims[-2].end] if len(claims) > 1 else ""
