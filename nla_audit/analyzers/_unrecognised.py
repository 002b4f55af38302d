"""What a text may say of the reference in words too different to be recognised.

Nothing that compares words, or embeddings, sees that "further funding" on a line about syntax is
the claim that "more money is promised". But such a claim takes room: it stands as a claim that is
read as new, or as words on a line that says something else of the reference. How much of either
there is without any reason for it, a twin of the reference shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.analyzers._twins import LEAST_TWINS
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import equally_long
from nla_audit.text.claims import MIN_CONTENT_WORDS
from nla_audit.text.reading import RESAMPLING_FLOOR, Reading

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Usual:
    """What a twin of the reference says anew, with no reason for other claims or other words.

    Attributes:
        new: the share of its claims that are new; where no twin shows it, none is usual.
        other_words: of its content words beside what it says anew, the share that are other words
            than the reference's; where no twin shows it, any number is.
    """

    new: float = 0.0
    other_words: float = 1.0

    @classmethod
    def of(cls, explanations: pl.DataFrame) -> Usual:
        """Of a twin's explanations, as :attr:`~nla_audit.text.reading.Reading.explanations`."""
        new, claims, other = (
            float(explanations[name].sum())
            for name in ("new_claims", "claims_model", "other_words")
        )
        return cls(
            new / max(claims, 1.0), other / max(float(_words_beside(explanations).sum()), 1.0)
        )


def usually_new(completions: Completions, reading: Reading) -> Usual:
    """What is usual in this table.

    The twin is the reference's second sample, or an equally long model, if there are enough of
    its texts.
    """
    for twin in (RESAMPLING_FLOOR, equally_long(completions) or ""):
        own = reading.explanations.filter(pl.col("model") == twin)
        if own.height >= LEAST_TWINS:
            return Usual.of(own)
    return Usual()


def unusually_new(explanations: pl.DataFrame, usual: Usual) -> Floats:
    """`[explanations]`: how many more new claims a text makes than is usual; below 0, fewer."""
    new, claims = (explanations[name].to_numpy() for name in ("new_claims", "claims_model"))
    return new - usual.new * claims


def hidden(explanations: pl.DataFrame, usual: Usual) -> Floats:
    """`[explanations]`: how many claims a text may make beside others, on the same lines.

    A line that says something of the reference may go on with something else. Where it has more
    other words than is usual, they may be further claims, of as few words as a claim can have.
    Below 0, it has fewer.
    """
    other = explanations["other_words"].to_numpy()
    usually = usual.other_words * _words_beside(explanations)
    return (other - usually) / MIN_CONTENT_WORDS


def _words_beside(explanations: pl.DataFrame) -> Floats:
    """`[explanations]`: content words of each text, less those of the claims that it makes anew."""
    words, new, claims = (
        explanations[name].to_numpy() for name in ("content_words", "new_claims", "claims_model")
    )
    return words * (1.0 - new / np.maximum(claims, 1.0))
