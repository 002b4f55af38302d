"""Draw planted activations: which facts one has, and the source text in which they are true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nla_audit.world.sweep import manner, subjects, wordings
from nla_audit.world.sweep.manner import FinalWord, Structure
from nla_audit.world.sweep.phrasebook import Value
from nla_audit.world.sweep.subjects import Genre, Topic

#: The facts of which each activation has a part, each with its kind, in the order in which
#: explanations usually state them.
SLOTS: Mapping[str, str] = {
    "genre": "genre",
    "style": "style",
    "person": "entity",
    "institution": "entity",
    "place": "entity",
    "few": "number",
    "many": "number",
    "repetition": "repetition",
    "momentum": "momentum",
    "structure": "structure",
    "expectation": "expectation",
    "final_token": "final_token",
}
_SLOT_NAMES: tuple[str, ...] = tuple(SLOTS)
#: Kinds whose claims name something that can be looked up in the source (and be wrong). The final
#: token is left out: its claim is about a place in the text rather than about a name.
NAMING_KINDS: frozenset[str] = frozenset({"entity", "number", "repetition", "structure"})
#: Kinds whose claims cite words of the source in quotation marks.
QUOTING_KINDS: frozenset[str] = frozenset({"repetition", "structure", "final_token"})
#: What a reference explanation is meant to state: between these many facts …
PLANNED_FACTS = (5, 9)
#: … and so many more that it does not state, from which models can make true additions.
SPARE_FACTS = 3

#: Uniform numbers that rendering one claim consumes.
UNIFORMS_PER_WORDING = 5
_WRONG_ITEMS = 3
# More than any activation consumes (at most 65 or so).
_UNIFORMS_PER_ACTIVATION = 96
_GOLDEN_STEP = (5**0.5 - 1) / 2
_NO_VALUE = Value(("",), ("",))
#: Source sentences, by the slot whose item they hold.
_SENTENCES: Mapping[str, tuple[str, ...]] = {
    "person": wordings.ENTITY_SENTENCES,
    "institution": wordings.ENTITY_SENTENCES,
    "place": wordings.PLACE_SENTENCES,
    "few": wordings.NUMBER_SENTENCES,
    "many": wordings.NUMBER_SENTENCES,
    "repetition": wordings.REPETITION_SENTENCES,
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of an activation, with all that its wordings can be filled with."""

    #: Position of its slot in :data:`SLOTS`.
    slot: int
    kind: str
    planned: bool
    value: Value
    topic: Value
    nouns: tuple[str, ...]
    #: What the claim names (a name, a number with its unit, quoted words), or ``""``.
    item: str
    #: Things of the same sort that the source does not hold.
    wrong_items: tuple[str, ...]
    guesses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation as the set of its facts, and the source text that ends where it was taken."""

    idx: int
    source_text: str
    facts: tuple[Fact, ...]


def pick(options: Sequence[_T], uniform: float) -> _T:
    """The option at the quantile ``uniform`` ∈ [0, 1)."""
    return options[int(uniform * len(options))]


def word_claim(fact: Fact, *, terse: bool, item: str, uniforms: Sequence[float]) -> str:
    """One wording of the fact that names ``item``; it starts with a capital only for a name.

    ``uniforms``, ``[UNIFORMS_PER_WORDING]``, choose the template and what fills it.
    """
    templates = wordings.WORDINGS[fact.kind]
    value = fact.value.short if terse else fact.value.long
    topic = fact.topic.short if terse else fact.topic.long
    text = pick(templates.short if terse else templates.long, uniforms[0]).format(
        value=pick(value, uniforms[1]),
        topic=pick(topic, uniforms[2]),
        noun=pick(fact.nouns, uniforms[3]),
        item=item,
        guess=pick(fact.guesses, uniforms[4]) if fact.guesses else "",
    )
    starts_with_name = bool(item) and text.startswith(item)
    return text if starts_with_name else text[0].lower() + text[1:]


def draw_activations(rng: np.random.Generator, first_idx: int, count: int) -> Iterator[Activation]:
    """``count`` activations with consecutive ``idx`` from ``first_idx``.

    The rows that one generator yields do not depend on how they are cut into calls.
    """
    for offset, row in enumerate(rng.random((count, _UNIFORMS_PER_ACTIVATION)).tolist()):
        yield _draw(first_idx + offset, iter(row))


def _draw(idx: int, uniforms: Iterator[float]) -> Activation:
    topic = _one(subjects.TOPICS, uniforms)
    genre = _one(subjects.GENRES, uniforms)
    structure = _one(manner.STRUCTURES, uniforms)
    expectation = _one(manner.EXPECTATIONS, uniforms)
    final_word = _one(manner.FINAL_WORDS, uniforms)
    values: dict[str, Value] = {
        "genre": genre.forms,
        "style": _one(manner.STYLES, uniforms),
        "momentum": _one(manner.MOMENTA, uniforms),
        "structure": structure.forms,
        "expectation": expectation.forms,
        "final_token": final_word.role,
    }
    items = _items(uniforms) | {
        "structure": structure.fragment.format(noun=_one(topic.nouns, uniforms)),
        "final_token": final_word.word,
    }
    source_text = _source(
        topic=topic,
        genre=genre,
        structure=structure,
        final_word=final_word,
        items=items,
        uniforms=uniforms,
    )

    planned, spare = _plan(uniforms)
    facts: list[Fact] = []
    for slot in sorted(planned | spare):
        name = _SLOT_NAMES[slot]
        names_something = SLOTS[name] in NAMING_KINDS
        fact = Fact(
            slot=slot,
            kind=SLOTS[name],
            planned=slot in planned,
            value=values.get(name, _NO_VALUE),
            topic=topic.forms,
            nouns=topic.nouns,
            item=items.get(name, ""),
            wrong_items=_wrong_items(name, source_text, topic, uniforms) if names_something else (),
            guesses=expectation.guesses if name == "expectation" else (),
        )
        facts.append(fact)
    return Activation(idx, source_text, tuple(facts))


def _items(uniforms: Iterator[float]) -> dict[str, str]:
    """What the source names, by slot; the two places and the two units differ."""
    institution_place, place = _several(subjects.PLACES, 2, uniforms)
    few_unit, many_unit = _several(subjects.UNITS, 2, uniforms)
    return {
        "person": _person(next(uniforms)),
        "institution": f"{institution_place} {_one(subjects.INSTITUTIONS, uniforms)}",
        "place": place,
        "few": f"{_tens(next(uniforms))} {few_unit}",
        "many": f"{_thousands(next(uniforms))} {many_unit}",
        "repetition": _one(wordings.REPEATED_PHRASES, uniforms),
    }


def _source(
    *,
    topic: Topic,
    genre: Genre,
    structure: Structure,
    final_word: FinalWord,
    items: Mapping[str, str],
    uniforms: Iterator[float],
) -> str:
    """A text that holds every item and breaks off at the final word."""
    sentences = [f"{items['structure']}{structure.rest}."]
    for name, templates in _SENTENCES.items():
        noun = _one(topic.nouns, uniforms)
        sentences.append(_one(templates, uniforms).format(item=items[name], noun=noun))
    order = sorted((next(uniforms), position) for position in range(len(sentences)))
    lead = _one(final_word.leads, uniforms).format(
        noun=_one(topic.nouns, uniforms), when=_one(manner.WHEN, uniforms)
    )
    ending = f"{lead[0].upper()}{lead[1:]} {final_word.word}"
    return " ".join([genre.opener, *(sentences[position] for _, position in order), ending])


def _plan(uniforms: Iterator[float]) -> tuple[set[int], set[int]]:
    """Slots that the reference is meant to state, and spare ones. The final token is planned."""
    low, high = PLANNED_FACTS
    count = low + int(next(uniforms) * (high - low + 1))
    final_token = _SLOT_NAMES.index("final_token")
    others = _several(range(final_token), count - 1 + SPARE_FACTS, uniforms)
    return {final_token, *others[: count - 1]}, set(others[count - 1 :])


def _one(options: Sequence[_T], uniforms: Iterator[float]) -> _T:
    return pick(options, next(uniforms))


def _several(options: Sequence[_T], count: int, uniforms: Iterator[float]) -> list[_T]:
    """``count`` different options."""
    remaining = list(options)
    return [remaining.pop(int(next(uniforms) * len(remaining))) for _ in range(count)]


def _person(uniform: float) -> str:
    given, surnames = subjects.GIVEN_NAMES, subjects.SURNAMES
    number = int(uniform * len(given) * len(surnames))
    return f"{given[number % len(given)]} {surnames[number // len(given)]}"


def _tens(uniform: float) -> str:
    return str(11 + int(uniform * 89))


def _thousands(uniform: float) -> str:
    return f"{1_001 + int(uniform * 8_998):,}"


def _wrong_items(
    name: str, source_text: str, topic: Topic, uniforms: Iterator[float]
) -> tuple[str, ...]:
    """Things of the slot's sort of which no word that tells them apart is in the source."""
    wrong: list[str] = []
    uniform, second = next(uniforms), next(uniforms)
    while len(wrong) < _WRONG_ITEMS:
        candidate = _candidate(name, topic, uniform, second)
        parts = _telling_parts(name, candidate)
        if candidate not in wrong and not any(part in source_text for part in parts):
            wrong.append(candidate)
        # Steps of the golden ratio visit the unit interval evenly, whatever is rejected.
        uniform = (uniform + _GOLDEN_STEP) % 1.0
    return tuple(wrong)


def _candidate(name: str, topic: Topic, first: float, second: float) -> str:
    """Something that could stand in the slot; ``first`` and ``second`` are uniform numbers."""
    makers: dict[str, Callable[[], str]] = {
        "person": lambda: _person(first),
        "institution": lambda: (
            f"{pick(subjects.PLACES, first)} {pick(subjects.INSTITUTIONS, second)}"
        ),
        "place": lambda: pick(subjects.PLACES, first),
        "few": lambda: f"{_tens(first)} {pick(subjects.UNITS, second)}",
        "many": lambda: f"{_thousands(first)} {pick(subjects.UNITS, second)}",
        "repetition": lambda: pick(wordings.REPEATED_PHRASES, first),
        "structure": lambda: pick(manner.STRUCTURES, first).fragment.format(
            noun=pick(topic.nouns, second)
        ),
    }
    return makers[name]()


def _telling_parts(name: str, item: str) -> list[str]:
    """The parts that make an item wrong: both names of a person, the figure of a number."""
    if name == "person":
        return item.split()
    return [item] if SLOTS[name] in QUOTING_KINDS else item.split()[:1]
