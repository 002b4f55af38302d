"""The beginning only."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.words import word_spans

#: Words kept. `nla-audit score --prefix-tokens` cuts by the AR's own tokens, at any length.
FIRST = 16


@transform(
    name="first_tokens",
    group="cut",
    summary=f"The first {FIRST} words, and nothing after them.",
    keeps=("words are a subset",),
)
def first_tokens(text: str, generator: np.random.Generator) -> str:
    """``text`` up to the end of its ``FIRST``-th word."""
    spans = list(word_spans(text))
    return text if len(spans) <= FIRST else text[: spans[FIRST - 1][1]]
