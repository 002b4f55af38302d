"""Function words only."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.words import FUNCTION_WORDS, word_spans


@transform(
    name="function_words",
    group="cut",
    summary="The function words in order, without any content word.",
    keeps=("words are a subset",),
)
def function_words(text: str, generator: np.random.Generator) -> str:
    """The function words of ``text``."""
    found = [text[start:end] for start, end in word_spans(text)]
    return " ".join(word for word in found if word.lower().replace("’", "'") in FUNCTION_WORDS)
