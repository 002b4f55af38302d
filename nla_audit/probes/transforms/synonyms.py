"""Another word of the same meaning, by rule."""

import re

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import outside_quotes
from nla_audit.text.synonyms import GROUP_OF, PATTERN, as_written


@transform(
    name="synonyms",
    group="kept",
    summary="Words of a short table become a random one of those that say the same.",
    destroys=("wording",),
    keeps=("quoted spans", "word count", "line count", "script"),
)
def synonyms(text: str, generator: np.random.Generator) -> str:
    """``text`` with the choice between synonyms drawn anew, so that nothing of it is left."""

    def drawn(match: re.Match[str]) -> str:
        group = GROUP_OF[match.group().lower()]
        return as_written(group[int(generator.integers(len(group)))], match.group())

    return outside_quotes(text, lambda piece: PATTERN.sub(drawn, piece))
