"""No characters without width."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.probes.transforming.preservation import visible


@transform(
    name="zero_width",
    group="kept",
    summary="Zero-width and other format characters are taken out.",
    destroys=("layout",),
    keeps=("words in order", "line count", "script"),
)
def zero_width(text: str, generator: np.random.Generator) -> str:
    """``text`` without format characters (Unicode category Cf)."""
    return visible(text)
