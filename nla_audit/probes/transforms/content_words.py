"""Content words only."""

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.words import FUNCTION_WORDS, word_spans


@transform(
    name="content_words",
    group="cut",
    summary="The content words in order, without function words and punctuation.",
    keeps=("words are a subset",),
)
def content_words(text: str, generator: np.random.Generator) -> str:
    """The words of ``text`` that are no function words."""
    found = [text[start:end] for start, end in word_spans(text)]
    return " ".join(word for word in found if word.lower().replace("’", "'") not in FUNCTION_WORDS)
