"""A small language in which every next word depends on a few hidden facts.

A document is drawn from five facts (what it is about, its tone, who speaks, when, and to what
end). Each value of a fact raises some of the words and lowers others; the next word's logits are
the sum over the facts. A model of this language has to carry a belief about all five facts at
every position, so an activation holds something to verbalize. Documents that state a fact once
and ask for it later do not work: a small transformer fetches such a fact when it needs it and
carries nothing meanwhile (docs/worlds.md).

What an activation can hold is therefore known, and so is what an explanation leaves out: the
five facts, and the last words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Fact → its values. The numbers of values are those that worked in docs/worlds.md.
FACTS: dict[str, tuple[str, ...]] = {
    "topic": (
        "harbour",
        "kitchen",
        "courtroom",
        "garden",
        "hospital",
        "market",
        "theatre",
        "mountain",
    ),
    "tone": ("cheerful", "gloomy", "formal", "playful"),
    "speaker": (
        "sailor",
        "baker",
        "judge",
        "farmer",
        "doctor",
        "trader",
        "actor",
        "climber",
    ),
    "time": ("dawn", "noon", "dusk", "winter", "summer", "autumn"),
    "purpose": ("warns", "asks", "promises", "remembers", "explains", "complains"),
}

WORDS: tuple[str, ...] = tuple(
    """
    anchor apple arrow ash bag ball bank barn basket bath beach bean bear bed bell belt bench bird
    blade blanket board boat bone book boot bottle bowl box branch bread brick bridge broom brush
    bucket bush butter button cabin cake camel camp candle canvas cap card carpet cart castle cat
    chain chair chalk cheese chest chimney clay cliff clock cloth cloud coal coat coin comb copper
    cord corn cotton cow cradle cream crow crown cup curtain desk dish dog door dove dress drum
    duck dust eagle egg engine fan feather fence fern field fig fire fish flag flask flour flute
    fork fox frame frog fruit gate ghost glass glove goat gold grain grape grass gravel hammer hat
    hay hill hinge honey hood hook horn horse ice ink iron island ivory jacket jar jewel kettle key
    kite knife knot ladder lake lamp lantern leaf leather lemon letter lid lion
    """.split()
)

#: Share of the words that one value of a fact touches; the rest it leaves alone.
_TOUCHED_SHARE = 0.25


@dataclass(frozen=True)
class ToyDocuments:
    """Documents and the facts they were drawn from.

    Attributes:
        words: ``[n, length]`` indices into :data:`WORDS`.
        facts: ``[n, 5]`` indices into the values of each of :data:`FACTS`.
    """

    words: npt.NDArray[np.int64]
    facts: npt.NDArray[np.int64]

    def text(self, document: int, length: int | None = None) -> str:
        """The first ``length`` words (by default all) of a document."""
        return " ".join(WORDS[word] for word in self.words[document, :length])

    def named_facts(self, document: int) -> dict[str, str]:
        """Fact → its value in this document."""
        return {
            fact: values[value]
            for (fact, values), value in zip(FACTS.items(), self.facts[document], strict=True)
        }


class Language:
    """The language: word logits for every value of every fact, drawn from ``seed``.

    Args:
        peakiness: standard deviation of the logits of the words that a value touches.
    """

    def __init__(self, seed: int, peakiness: float) -> None:
        rng = np.random.default_rng([seed, 1])
        self.logits = []
        for values in FACTS.values():
            shape = (len(values), len(WORDS))
            touched = rng.random(shape) < _TOUCHED_SHARE
            self.logits.append(np.where(touched, rng.normal(0.0, peakiness, shape), 0.0))

    def word_probabilities(self, facts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """``[n, words]`` for facts ``[n, 5]``."""
        total = sum(table[facts[:, place]] for place, table in enumerate(self.logits))
        weights = np.exp(total - np.max(total, axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def write(self, rng: np.random.Generator, documents: int, length: int) -> ToyDocuments:
        """Draw facts uniformly, and ``length`` words for each document."""
        facts = np.stack(
            [rng.integers(0, len(values), documents) for values in FACTS.values()], axis=1
        )
        cumulative = self.word_probabilities(facts).cumsum(axis=1)
        draws = rng.random((documents, length))
        # One search for each row: its words are where the draws fall between cumulative sums.
        rows = zip(cumulative, draws, strict=True)
        words = np.stack([np.searchsorted(row, at, side="right") for row, at in rows])
        return ToyDocuments(words.clip(max=len(WORDS) - 1), facts)
