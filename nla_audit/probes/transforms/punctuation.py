"""One kind of comma, one kind of full stop."""

import re

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import outside_quotes

# A mark between digits belongs to a number (1,000; 3.5; 10:30), a dot inside a word to the word.
_LINKS = re.compile(r"\s*(?:(?<!\d)[,;:]+|[,;:]+(?!\d)|[—–]+|(?<=\s)-+(?=\s))(?=\s|$)")
_ENDS = re.compile(r"(?:\.{2,}|[!?…]+)(?=\s|$)")
_UNENDED = re.compile(r"(?<=[\w)\]\"”’'])[ \t]*(?=\n|\Z)")


@transform(
    name="punctuation",
    group="kept",
    summary="Commas for all links between clauses, a full stop at the end of every line.",
    destroys=("layout",),
    keeps=("quoted spans", "words in order", "script"),
)
def punctuation(text: str, generator: np.random.Generator) -> str:
    """``text`` with its punctuation outside of quoted spans normalised."""
    linked = outside_quotes(text, lambda piece: _ENDS.sub(".", _LINKS.sub(",", piece)))
    ended = re.sub(r",[ \t]*(?=\n|\Z)", ".", linked)
    return _UNENDED.sub(".", ended) if ended.strip() else ended
