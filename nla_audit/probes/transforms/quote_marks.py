"""One kind of quote mark."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import with_quotes


@transform(
    name="quote_marks",
    group="kept",
    summary="Straight double quote marks in place of all others.",
    destroys=("layout",),
    keeps=("quoted spans", "words in order", "script"),
)
def quote_marks(text: str, generator: np.random.Generator) -> str:
    """``text`` with ``"`` around every quoted span; spans that hold one are left alone."""
    return with_quotes(text, lambda span: span if '"' in span[1:-1] else f'"{span[1:-1]}"')
