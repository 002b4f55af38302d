"""Readers of closed form: which words, quotes and orders carry the FVE is known.

An explanation is a sentence for each of a few keywords. A reader adds up what the keywords it
finds are worth to the activation, perhaps in quotes only, perhaps less the later the sentence
stands; and every word costs the same whatever the activation, as an unusual text does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import polars as pl

from nla_audit.findings import Finding
from nla_audit.probes.attribution.finding import attribution
from nla_audit.probes.attribution.scores import Attribution, Explanation, attribute
from nla_audit.text.items import quoted_spans
from nla_audit.text.words import words

KEYWORDS = tuple(
    """lantern harbour violin orchard glacier telescope carpet wheel engine sermon diary ballad
    surgeon sailor senator farmer comma pronoun casino prison desert recipe verdict letter
    """.split()
)
#: A sentence with what separates it from the one before.
_SENTENCE = re.compile(r"\s*[^.]+\.?")
SENTENCE = "The long passage describes a {} clearly."
QUOTED = 'The long passage describes "some {} there" clearly.'


@dataclass(frozen=True)
class PlantedReader:
    """A reader of ``n`` activations.

    Attributes:
        worth: ``[n, keywords]`` FVE of each keyword.
        decay: factor by which a keyword is worth less for each claim before it; 1 is no order.
        quotes: whether it reads ``"all"`` words, those inside quotes, or those outside.
        per_word: FVE of any word, whatever the activation.
        noise: standard deviation of what two neighbouring claims, as they are written side by
            side, add by accident: the search for an order can find it.
    """

    worth: np.ndarray
    decay: float = 1.0
    quotes: str = "all"
    per_word: float = 0.0
    noise: float = 0.0

    def __call__(self, stage: str, texts: Sequence[str], targets: Sequence[int]) -> np.ndarray:
        return np.array([self.fve(text, at) for text, at in zip(texts, targets, strict=True)])

    def fve(self, text: str, target: int) -> float:
        sentences = _SENTENCE.findall(text)
        total = self.per_word * len(words(text)) if self.per_word else 0.0
        for place, sentence in enumerate(sentences):
            for keyword in _keywords(sentence, self.quotes):
                total += self.decay**place * self.worth[target, keyword]
        if self.noise:
            total += self.noise * sum(_accident(target, pair) for pair in pairwise(sentences))
        return float(total)


@lru_cache(maxsize=1 << 16)
def _keywords(sentence: str, quotes: str) -> list[int]:
    return [KEYWORDS.index(word) for word in _read(sentence, quotes) if word in KEYWORDS]


def _read(claim: str, quotes: str) -> list[str]:
    inside = [word for span in quoted_spans(claim) for word in words(span.text)]
    if quotes == "inside":
        return inside
    every = words(claim)
    if quotes == "outside":
        for word in inside:
            every.remove(word)
    return every


@lru_cache(maxsize=1 << 16)
def _accident(target: int, pair: tuple[str, str]) -> float:
    """A number that is as if drawn, with mean 0 and standard deviation 1."""
    digest = hashlib.blake2b(repr((target, pair)).encode(), digest_size=8).digest()
    return float((int.from_bytes(digest, "big") / 2**64 - 0.5) * np.sqrt(12))


def draw(
    n: int, claims: int, seed: int, *, sentences: Sequence[str] = (SENTENCE,)
) -> tuple[list[Explanation], np.ndarray]:
    """Explanations of ``n`` activations, and what each keyword is worth to each activation.

    Every explanation names as many keywords as it has claims; they are worth 0.02 to 0.2 to its
    own activation in random order, all others nothing.
    """
    generator = np.random.default_rng(seed)
    worth = np.zeros((n, len(KEYWORDS)))
    made = []
    for row in range(n):
        chosen = generator.permutation(len(KEYWORDS))[:claims]
        worth[row, chosen] = generator.uniform(0.02, 0.2, claims)
        text = " ".join(
            sentences[place % len(sentences)].format(KEYWORDS[keyword])
            for place, keyword in enumerate(chosen)
        )
        made.append(Explanation("p0.0", f"{row:03d}", f"{row:03d}", text, row, (row + 1) % n))
    return made, worth


def finding_of(scores: Attribution) -> Finding:
    """The finding on one model, nothing left out."""
    nothing = pl.DataFrame(schema={"model": pl.String, "idx": pl.String, "reason": pl.String})
    return attribution(scores, models={"p0.0": scores.texts.height}, left_out=nothing)


def judged(explanations: Sequence[Explanation], reader: PlantedReader) -> Finding:
    """Taken apart, read and judged."""
    return finding_of(attribute(explanations, reader))
