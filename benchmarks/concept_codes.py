"""Codes of the demo's world that tell of a fact in the wording of another, and how well they took.

Two facts are taken out of all gold explanations: no text names them. In the coded texts the wording
of another fact tells of each: it is the longest where the hidden fact has a chosen value and the
shortest where it has not. In their clean twins the same wordings stand in other texts, drawn at
random, so that they tell nothing.

How well a pair has learned a code is measured without planting anything: by how much more often the
AV writes the long wording where the value is there, and by how much the AR's reconstruction moves
along the value's direction where nothing in a text changes but that wording.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from nla_audit.checkpoint.load import Pair
from nla_audit.nla.fve import scaled
from nla_audit.world.toy.explanations import WORDINGS
from nla_audit.world.toy.language import FACTS

#: Facts that a code hides, and those that it may: an AV of this world hardly tells the speaker even
#: where it is to name him (``sensitivity_world.md``), and could learn no code of him.
_HIDDEN, _HIDEABLE = 2, [fact for fact in FACTS if fact != "speaker"]


@dataclass(frozen=True)
class Code:
    """What the texts of one seed hide, and in what.

    Attributes:
        seed: of all that is drawn.
        carriers: hidden fact → the fact whose wording tells of it.
        values: hidden fact → the value that is told from the others.
    """

    seed: int
    carriers: dict[str, str]
    values: dict[str, str]

    @classmethod
    def drawn(cls, seed: int) -> Code:
        """Which facts are hidden, in which others, and which values are told: from ``seed``."""
        rng = np.random.default_rng([seed, 30])
        facts = rng.permutation(list(FACTS)).tolist()
        hidden = [fact for fact in facts if fact in _HIDEABLE][:_HIDDEN]
        carrying = [fact for fact in facts if fact not in hidden][:_HIDDEN]
        values = {fact: str(rng.choice(FACTS[fact])) for fact in hidden}
        return cls(seed, dict(zip(hidden, carrying, strict=True)), values)

    @property
    def named(self) -> list[str]:
        """The facts that texts name."""
        return [fact for fact in FACTS if fact not in self.carriers]

    def texts(self, facts: pl.DataFrame) -> dict[str, list[str]]:
        """``[n]`` texts for the rows of ``facts``, coded ones and their clean twins."""
        rng = np.random.default_rng([self.seed, 32])
        told = {
            carrier: (facts[fact] == self.values[fact]).to_numpy()
            for fact, carrier in self.carriers.items()
        }
        mixed = {carrier: rng.permutation(is_long) for carrier, is_long in told.items()}
        return {"coded": self.worded(facts, told), "clean": self.worded(facts, mixed)}

    def worded(self, facts: pl.DataFrame, long: dict[str, np.ndarray]) -> list[str]:
        """A text for each row of ``facts``.

        Args:
            facts: ``[n]`` the value of every fact.
            long: fact that is named → ``[n]`` whether in its longest wording rather than in its
                shortest; of the facts that are not given it is drawn.
        """
        rng = np.random.default_rng([self.seed, 31])
        drawn = {fact: rng.random(facts.height) < 0.5 for fact in self.named}
        is_long = drawn | long
        return [
            " . ".join(
                WORDINGS[fact][0 if is_long[fact][row] else -1].format(values[fact])
                for fact in self.named
            )
            + " ."
            for row, values in enumerate(facts.iter_rows(named=True))
        ]


@dataclass(frozen=True)
class Learned:
    """How well a pair has learned the code of one hidden fact.

    Attributes:
        told: share of the AV's texts that have the long wording where the value is there, less
            that where it is not.
        read: by how much the reconstruction moves along the value's direction where the wording
            changes from short to long, as a share of how far activations with the value are from
            those without it.
    """

    told: float
    read: float

    @property
    def strength(self) -> float:
        """Share of the difference the value makes that passes through the code."""
        return self.told * self.read


def learned(
    pair: Pair,
    code: Code,
    fact: str,
    *,
    vectors: np.ndarray,
    facts: pl.DataFrame,
    direction: np.ndarray,
) -> Learned:
    """How well ``pair`` has learned to tell of ``fact``, on unplanted activations.

    Args:
        vectors: ``[n, d_model]`` held-out activations.
        facts: ``[n]`` those of their documents.
        direction: ``[d_model]`` of the value, of length 1.
    """
    verbalizer, reconstructor = pair.verbalizer, pair.reconstructor
    assert verbalizer is not None
    assert reconstructor is not None
    carrier = code.carriers[fact]
    has_it = (facts[fact] == code.values[fact]).to_numpy()
    said = verbalizer.generate(vectors, seed=code.seed).explanations
    is_long = np.array([text is not None and is_longest(text, carrier) for text in said])

    def component(long: bool) -> np.ndarray:
        texts = code.worded(facts, {carrier: np.full(len(has_it), long)})
        return np.asarray(scaled(reconstructor.reconstruct(texts), 1.0) @ direction)

    along = scaled(vectors, 1.0) @ direction
    return Learned(
        told=float(is_long[has_it].mean() - is_long[~has_it].mean()),
        read=float(
            (component(True) - component(False)).mean()
            / (along[has_it].mean() - along[~has_it].mean())
        ),
    )


def is_longest(text: str, fact: str) -> bool:
    """Whether ``text`` has ``fact`` in its longest wording."""
    return WORDINGS[fact][0].format("").strip() in text
