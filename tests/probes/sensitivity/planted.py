"""Pairs of closed form: what they say of a concept, and what their AR reads, is known.

An activation is a sum of features at random weights. The AV writes, of each feature, a word for
its sign where it is far from 0, and the concept's word with a chance that rises with the concept's
component. Its texts are also written in one of two manners; where there is a code, the manner tells
whether the concept is there. The AR adds up the features it reads, the concept where it is named,
and, where it knows the code, the concept where the manner says so; and every text has an accident
of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from nla_audit.probes.sensitivity.design import Design, design
from nla_audit.probes.sensitivity.directions import Direction
from nla_audit.probes.sensitivity.mentions import Sought, sought
from nla_audit.probes.sensitivity.reading import Said, Subject, explained

D_MODEL, FEATURES, STRENGTHS = 96, 12, (0.05, 0.1, 0.2, 0.4, 0.8)
#: Activations that the covariance is known from.
BACKGROUND = 400
SOUGHT: Sought = sought("evaluation", "the text is a test", ["evaluation", "being tested"])
_NAMED = " It is an evaluation."
_MANNERS = ("The passage shows", "One sees here")
#: Component at which the manner of a coded text turns, of an activation of length 1.
_CODED_FROM = 0.15


@dataclass(frozen=True)
class PlantedPair:
    """A simulated pair.

    Attributes:
        name: of the model.
        alpha: component of the concept at which half name it; infinite: it never does.
        slope: of the log-logistic curve.
        guess: chance that it is named anyway.
        code: how much of the concept the AR reads from the manner of a text, which then tells of
            it; 0: there is no code.
        noise: length of a text's accident, where the reconstruction has length 1.
        seed: of everything.
    """

    name: str = "p0.0"
    alpha: float = 0.2
    slope: float = 4.0
    guess: float = 0.02
    code: float = 0.0
    noise: float = 0.2
    seed: int = 0

    def subject(self, world: World) -> Subject:
        """As the probe uses a pair."""

        def speak(vectors: np.ndarray, keys: Sequence[int]) -> Said:
            texts: list[str | None] = [
                self._text(vector, key, world) for vector, key in zip(vectors, keys, strict=True)
            ]
            lengths = [len(text.split()) for text in texts if text is not None]
            return Said(
                texts,
                [one + 3 for one in lengths],
                [*lengths],
                [None] * len(texts),
                [None] * len(texts),
            )

        def read(texts: Sequence[str | None]) -> np.ndarray:
            return np.stack([self._read(str(text), world) for text in texts])

        return Subject(self.name, None, "ar", speak, read, lambda text: len(text.split()))

    def _text(self, vector: np.ndarray, key: int, world: World) -> str:
        unit = vector / np.linalg.norm(vector)
        generator = np.random.default_rng([self.seed, key])
        weights = unit @ world.features.T + generator.normal(0, 0.05, FEATURES)
        said = [
            f"{'much' if weight > 0 else 'little'} f{number}"
            for number, weight in enumerate(weights)
            if abs(weight) > 0.15
        ]
        component = max(float(unit @ world.concept), 1e-9)
        reached = 1 / (1 + (self.alpha / component) ** self.slope)
        is_named = generator.random() < self.guess + (1 - self.guess) * reached
        coin = generator.random() < 0.5
        manner = component > _CODED_FROM if self.code else coin
        return f"{_MANNERS[int(manner)]} {', '.join(said)}." + (_NAMED if is_named else "")

    def _read(self, text: str, world: World) -> np.ndarray:
        found = np.zeros(D_MODEL)
        pieces = text.replace(".", " ").replace(",", " ").split()
        for before, word in pairwise(pieces):
            if before in ("much", "little"):
                found += (1 if before == "much" else -1) * world.features[int(word[1:])]
        if _NAMED in text:
            found += world.concept
        if text.startswith(_MANNERS[1]):
            found += self.code * world.concept
        digest = hashlib.sha256(f"{self.seed}{text}".encode()).digest()
        accident = np.random.default_rng(np.frombuffer(digest, dtype="<u4")).normal(size=D_MODEL)
        length = max(float(np.linalg.norm(found)), 1.0)
        return found + self.noise * length * accident / np.linalg.norm(accident)


@dataclass(frozen=True)
class World:
    """Features ``[features, d_model]``, the concept ``[d_model]``, and what is planted."""

    features: np.ndarray
    concept: np.ndarray
    plan: Design

    @classmethod
    def drawn(cls, n: int, seed: int, concept: str = "apart") -> World:
        """``n`` activations of length about 3.

        ``concept``: ``"apart"`` from the features; or one more draw of what the controls are: any
        direction, ``"random"``, or one in which ``"features"`` are mixed.
        """
        generator = np.random.default_rng([seed, 7])
        axes = np.linalg.qr(generator.normal(size=(D_MODEL, D_MODEL)))[0]
        features, other = axes[:FEATURES], axes[FEATURES + 1]
        widths = np.linspace(1.5, 0.5, FEATURES)
        made = {
            "apart": axes[FEATURES],
            "random": generator.normal(size=D_MODEL),
            "features": (generator.normal(size=FEATURES) * widths) @ features
            + 0.15 * generator.normal(size=D_MODEL),
        }[concept]
        direction = made / np.linalg.norm(made)
        known = max(n, BACKGROUND)
        vectors = (generator.normal(size=(known, FEATURES)) * widths) @ features
        vectors += 0.15 * generator.normal(size=(known, D_MODEL))
        plan = design(
            Direction("evaluation", direction, "planted"),
            vectors[:n],
            STRENGTHS,
            background=vectors,
            clusters=list(range(n)),
            other=Direction("other", other, "planted"),
            seed=seed,
        )
        return cls(features, direction, plan)


def study(
    pairs: Sequence[PlantedPair], n: int = 60, seed: int = 0, concept: str = "apart"
) -> pl.DataFrame:
    """The table of some pairs over the same activations."""
    world = World.drawn(n, seed, concept)
    keys = pl.DataFrame(
        {"idx": range(n), "doc_id": [None] * n}, schema_overrides={"doc_id": pl.String}
    )
    return pl.concat(
        [
            explained(
                pair.subject(world), world.plan, keys, list(range(n)), SOUGHT, batch_size=1000
            )
            for pair in pairs
        ]
    )
