"""Letters that look like Latin ones become Latin ones."""

import unicodedata
from functools import lru_cache

import numpy as np

from nla_audit.probes.transforming.cards import transform

#: Cyrillic and Greek letters that most fonts draw as Latin ones.
_LOOK = dict(
    zip(
        "аеорсухіјѕһԁԛԝАВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧοϲ",
        "aeopcyxijshdqwABEKMHOPCTYXIJSABEZHIKMNOPTYXoc",
        strict=True,
    )
)
_TABLE = str.maketrans(_LOOK)


@lru_cache(maxsize=1 << 14)
def _folded(word: str) -> str:
    compatible = unicodedata.normalize("NFKC", word)
    # A word wholly of another script is a word of that script, not a disguise.
    if not any("a" <= sign <= "z" for sign in compatible.lower()):
        return compatible
    return compatible.translate(_TABLE)


def fold_lookalikes(text: str) -> str:
    """``text`` in NFKC, look-alikes inside of Latin words replaced; white space untouched."""
    if text.isascii():
        return text
    pieces, word = [], ""
    for sign in text:
        if sign.isspace():
            pieces += [_folded(word), sign]
            word = ""
        else:
            word += sign
    return "".join([*pieces, _folded(word)])


@transform(
    name="lookalikes",
    group="kept",
    summary="Compatibility forms and letters that look like Latin ones become plain.",
    destroys=("layout",),
    keeps=("words in order", "line count"),
)
def lookalikes(text: str, generator: np.random.Generator) -> str:
    """``text`` with look-alikes folded."""
    return fold_lookalikes(text)
