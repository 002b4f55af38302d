"""Small letters everywhere outside of quotes."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import outside_quotes


@transform(
    name="letter_case",
    group="kept",
    summary="Small letters outside of quoted spans.",
    destroys=("layout",),
    keeps=("quoted spans", "words in order", "script"),
)
def letter_case(text: str, generator: np.random.Generator) -> str:
    """``text`` in small letters, quoted spans as they are."""
    return outside_quotes(text, str.lower)
