"""Control: other explanations' claims, as long as the explanation itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nla_audit.probes.transforming.cards import control, generator_for
from nla_audit.text.claims import split_claims
from nla_audit.text.words import word_spans


@control(
    name="random_text",
    summary="Claims of random other explanations, cut to the same number of words.",
)
def random_text(texts: Sequence[str], labels: Sequence[Any], seed: int) -> list[str | None]:
    """As many words as each text has, out of claims of other labels' texts."""
    claims = [
        (str(label), claim.text)
        for text, label in zip(texts, labels, strict=True)
        for claim in split_claims(text)
    ]
    claims.sort()
    number_of_labels = len({label for label, _ in claims})
    out: list[str | None] = []
    for text, label in zip(texts, labels, strict=True):
        if number_of_labels < 2 or all(own == str(label) for own, _ in claims):
            out.append(None)
            continue
        wanted = len(list(word_spans(text)))
        out.append(_drawn(claims, str(label), wanted, generator_for(seed, "random_text", text)))
    return out


def _drawn(
    claims: list[tuple[str, str]], label: str, wanted: int, generator: np.random.Generator
) -> str:
    drawn = ""
    while len(list(word_spans(drawn))) < wanted:
        other, claim = claims[int(generator.integers(len(claims)))]
        if other != label:
            drawn += (" " if drawn else "") + claim
    spans = list(word_spans(drawn))[:wanted]
    return drawn[: spans[-1][1]] if spans else ""
