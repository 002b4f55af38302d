"""Control: the text as it is."""

import numpy as np

from nla_audit.probes.transforming.cards import transform


@transform(
    name="unchanged",
    group="control",
    summary="The explanation as the AV wrote it: retention 1.",
    keeps=("text",),
)
def unchanged(text: str, generator: np.random.Generator) -> str:
    """``text``."""
    return text
