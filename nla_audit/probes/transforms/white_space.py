"""Single spaces, none at the ends of lines."""

import re

import numpy as np

from nla_audit.probes.transforming.cards import transform

_RUNS = re.compile(r"[^\S\n]+")
_LINE_ENDS = re.compile(r" *\n *")


@transform(
    name="white_space",
    group="kept",
    summary="Runs of white space become one space; none around line breaks.",
    destroys=("layout",),
    keeps=("words in order", "line count", "script"),
)
def white_space(text: str, generator: np.random.Generator) -> str:
    """``text`` with white space normalised; line breaks stay."""
    leading = len(text) - len(text.lstrip("\n"))
    trailing = len(text) - len(text.rstrip("\n"))
    inner = _LINE_ENDS.sub("\n", _RUNS.sub(" ", text)).strip(" ")
    return inner if inner.strip() else "\n" * max(leading, trailing)
