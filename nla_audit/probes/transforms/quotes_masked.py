"""A placeholder in every quoted span."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import with_quotes

#: The word of the published experiment, where it did worse than deletion (docs/published.md).
MASK = "REDACTED"


@transform(
    name="quotes_masked",
    group="cut",
    summary=f"What stands in quote marks becomes {MASK}.",
    destroys=("quotes",),
)
def quotes_masked(text: str, generator: np.random.Generator) -> str:
    """``text`` with its quoted spans masked, their marks in place."""
    return with_quotes(text, lambda span: f"{span[0]}{MASK}{span[-1]}")
