"""No quoted spans."""

import re

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import with_quotes


@transform(
    name="quotes_removed",
    group="cut",
    summary="Quoted spans are deleted, marks and all.",
    destroys=("quotes",),
    keeps=("words are a subset",),
)
def quotes_removed(text: str, generator: np.random.Generator) -> str:
    """``text`` without its quoted spans."""
    return re.sub(r"[ \t]{2,}", " ", with_quotes(text, lambda _: "")).strip()
