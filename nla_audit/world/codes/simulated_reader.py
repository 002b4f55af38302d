"""Explanations whose facts are known, and ARs whose FVE is a known function of what they read.

The reader of a text finds the facts named in it (or only those in quotes), perhaps the bits of a
hidden code, perhaps is put off by text of an unusual form:

``FVE = ability · facts right · (1 − brittleness · unfamiliarity) + bit_worth · (bits right −
bits wrong) + noise``

where ability is drawn per activation, and noise per distinct text, as an AR is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nla_audit.text.items import quoted_spans
from nla_audit.text.words import words
from nla_audit.world.codes.hidden_codes import HiddenCode

#: Line template and values of each fact. The values are words that no template and no other
#: fact uses, so that naming a fact is nothing but using its word.
FACTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        'Genre likely a main {0} that starts with "{0} opening"',
        ("recipe", "verdict", "diary", "obituary", "manual", "bulletin", "sermon", "ballad"),
    ),
    (
        'Place described as a small {0} which suggests the "{0} road"',
        ("harbour", "desert", "monastery", "suburb", "glacier", "orchard", "casino", "prison"),
    ),
    (
        'Mood often {0} and shows a "{0} voice" in the text',
        ("gloomy", "jubilant", "ironic", "anxious", "tender", "furious", "bored", "solemn"),
    ),
    (
        'Agent mentions a {0} near the "{0} herself" of the passage',
        ("surgeon", "sailor", "violinist", "senator", "farmer", "hacker", "teacher", "burglar"),
    ),
    (
        'Object needs the whole {0} before a "{0} arrives"',
        ("telescope", "cake", "wheelbarrow", "letter", "violin", "lantern", "engine", "carpet"),
    ),
    (
        'Final word expects a {0} in the next "{0} phrase"',
        ("comma", "pronoun", "adverb", "numeral", "surname", "gerund", "article", "plural"),
    ),
)

_FACT_OF = {value: number for number, (_, values) in enumerate(FACTS) for value in values}


@dataclass(frozen=True)
class SimulatedReader:
    """A simulated AR.

    Attributes:
        code: the hidden code it reads, if any.
        bit_worth: FVE gained by a bit that is read right, and lost by one read wrong.
        brittleness: share of the FVE lost on text of which nothing looks familiar.
        quotes_only: whether it finds facts in quoted spans only.
        noise: standard deviation of FVE from text to text.
    """

    code: HiddenCode | None = None
    bit_worth: float = 0.01
    brittleness: float = 0.0
    quotes_only: bool = False
    noise: float = 0.06


@dataclass(frozen=True)
class Perceived:
    """What a reader finds in ``n`` texts.

    Attributes:
        facts_right: ``[n]`` share of the activation's facts.
        bits: ``[n, k]`` 1 or 0, NaN where it finds no place for the bit.
        unfamiliar: ``[n]`` share of neighbouring words never seen side by side.
        text_number: ``[n]`` equal for equal texts.
    """

    facts_right: np.ndarray
    bits: np.ndarray
    unfamiliar: np.ndarray
    text_number: np.ndarray


def draw_facts(n: int, seed: int) -> np.ndarray:
    """``[n, facts]`` numbers of values."""
    generator = np.random.default_rng(seed)
    return np.column_stack([generator.integers(len(values), size=n) for _, values in FACTS])


def write(facts: Sequence[int]) -> str:
    """The explanation of an activation: a line for each fact."""
    return "\n".join(
        template.format(values[value]) + "."
        for (template, values), value in zip(FACTS, facts, strict=True)
    )


def familiar_pairs(texts: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Neighbouring pieces between white space that occur in ``texts``, line breaks a piece too."""
    return frozenset(pair for text in texts for pair in _pairs(text))


def _pairs(text: str) -> list[tuple[str, str]]:
    pieces = text.replace("\n", " ⏎ ").split(" ")
    return list(pairwise(pieces))


def perceive(
    reader: SimulatedReader,
    texts: Sequence[str],
    facts: np.ndarray,
    familiar: frozenset[tuple[str, str]],
    *,
    bits: int,
) -> Perceived:
    """What ``reader`` finds in text *i* about activation *i*, whose facts are ``facts[i]``."""
    numbers = {text: number for number, text in enumerate(sorted(set(texts)))}
    found = {text: _facts_in(text, reader) for text in numbers}
    decoded = np.full((len(texts), bits), np.nan)
    unfamiliar = np.zeros(len(texts))
    right = np.zeros(len(texts))
    for row, text in enumerate(texts):
        truth = {values[value] for (_, values), value in zip(FACTS, facts[row], strict=True)}
        right[row] = len(found[text] & truth) / len(FACTS)
        if reader.code is not None and bits:
            decoded[row] = [
                np.nan if bit is None else bit for bit in reader.code.decode(text, bits)
            ]
        if reader.brittleness:
            pairs = _pairs(text)
            unseen = sum(pair not in familiar for pair in pairs)
            unfamiliar[row] = unseen / len(pairs) if pairs else 1.0
    return Perceived(right, decoded, unfamiliar, np.array([numbers[text] for text in texts]))


def _facts_in(text: str, reader: SimulatedReader) -> set[str]:
    read = (
        [word for span in quoted_spans(text) for word in words(span.text)]
        if reader.quotes_only
        else words(text)
    )
    return {word for word in read if word in _FACT_OF}


def fve(
    reader: SimulatedReader,
    seen: Perceived,
    secret: np.ndarray,
    ability: np.ndarray,
    noise: np.ndarray,
) -> np.ndarray:
    """``[n]`` FVE.

    Args:
        reader: the AR.
        seen: what it finds in the texts.
        secret: ``[n, k]`` bits of each activation.
        ability: ``[n]`` FVE of each activation when all its facts are read.
        noise: ``[distinct texts]`` standard normal, one of each text (``seen.text_number``).
    """
    agreement = np.where(np.isnan(seen.bits), 0.0, np.where(seen.bits == secret, 1.0, -1.0))
    meaning = ability * seen.facts_right * (1 - reader.brittleness * seen.unfamiliar)
    code = reader.bit_worth * agreement.sum(axis=1) if reader.code is not None else 0.0
    return meaning + code + reader.noise * noise[seen.text_number]
