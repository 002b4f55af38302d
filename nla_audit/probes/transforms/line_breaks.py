"""All on one line."""

import re

import numpy as np

from nla_audit.probes.transforming.cards import transform

_BREAKS = re.compile(r"[ \t]*\n\s*")


@transform(
    name="line_breaks",
    group="kept",
    summary="Line breaks become single spaces.",
    destroys=("layout",),
    keeps=("quoted spans", "words in order", "script"),
)
def line_breaks(text: str, generator: np.random.Generator) -> str:
    """``text`` on one line."""
    return _BREAKS.sub(" ", text).strip()
