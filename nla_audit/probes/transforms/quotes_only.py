"""Nothing but the quoted spans."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.items import quoted_spans


@transform(
    name="quotes_only",
    group="cut",
    summary="The quoted spans, each in quote marks on a line of its own, and nothing else.",
    keeps=("quoted spans",),
)
def quotes_only(text: str, generator: np.random.Generator) -> str:
    """The quoted spans of ``text``; the empty text where there are none."""
    return "\n".join(
        f"«{span.text}»" if '"' in span.text else f'"{span.text}"' for span in quoted_spans(text)
    )
