"""Every digit becomes a zero."""

import re

import numpy as np

from nla_audit.probes.transforming.cards import transform


@transform(
    name="digits_masked",
    group="cut",
    summary="Every digit becomes 0.",
    keeps=("word count", "line count"),
)
def digits_masked(text: str, generator: np.random.Generator) -> str:
    """``text`` with all digits alike."""
    return re.sub(r"\d", "0", text)
