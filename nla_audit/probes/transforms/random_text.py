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
        (str(label), claim.text, _words(claim.text))
        for text, label in zip(texts, labels, strict=True)
        for claim in split_claims(text)
    ]
    claims.sort()
    if len({label for label, _, _ in claims}) < 2:
        return [None] * len(texts)
    return [
        _drawn(claims, str(label), _words(text), generator_for(seed, "random_text", text))
        for text, label in zip(texts, labels, strict=True)
    ]


def _words(text: str) -> int:
    return sum(1 for _ in word_spans(text))


def _drawn(
    claims: list[tuple[str, str, int]], label: str, wanted: int, generator: np.random.Generator
) -> str:
    said: list[str] = []
    found = 0
    while found < wanted:
        other, claim, words = claims[int(generator.integers(len(claims)))]
        if other != label:
            said.append(claim)
            found += words
    drawn = " ".join(said)
    spans = list(word_spans(drawn))[:wanted]
    return drawn[: spans[-1][1]] if spans else ""
