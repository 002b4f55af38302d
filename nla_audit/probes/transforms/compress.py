"""The same in fewer words, by rule."""

import re

import numpy as np

from nla_audit.probes.transforming.cards import transform
from nla_audit.text.parts import outside_quotes

#: Longer phrase → what says the same; the empty string where it says nothing.
_SHORTER = {
    "in order to": "to",
    "due to the fact that": "because",
    "a large number of": "many",
    "in the process of": "",
    "is about to": "will",
    "as well as": "and",
    "at this point in time": "now",
    "very": "",
    "really": "",
    "quite": "",
    "basically": "",
    "essentially": "",
    "clearly": "",
    "the fact that": "that",
    "it is clear that": "",
}
_PATTERN = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, _SHORTER), key=len, reverse=True)) + r")\b ?",
    re.IGNORECASE,
)
_ARTICLES = re.compile(r"\b(?:the|an?) (?=\w)", re.IGNORECASE)


@transform(
    name="compress",
    group="kept",
    summary="Phrases become shorter ones and articles go, by rule.",
    destroys=("wording",),
    keeps=("quoted spans", "line count", "script"),
)
def compress(text: str, generator: np.random.Generator) -> str:
    """``text`` with wordy phrases shortened and articles left out, quoted spans as they are."""

    def shorter(match: re.Match[str]) -> str:
        phrase = match.group()
        short = _SHORTER[phrase.rstrip().lower()]
        return short + " " if short and phrase.endswith(" ") else short

    return outside_quotes(text, lambda piece: _ARTICLES.sub("", _PATTERN.sub(shorter, piece)))
