"""Draw planted activations: which facts one has, and the source text in which they are true."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from nla_audit.world import phrasebook_language as language
from nla_audit.world import phrasebook_subjects as subjects
from nla_audit.world import phrasebook_wordings
from nla_audit.world.phrasebook import Value
from nla_audit.world.phrasebook_subjects import Topic
from nla_audit.world.phrasebook_wordings import WORDINGS

#: The facts of which each activation has a part: one of each kind, but three entities (a person,
#: an institution, a place) and two numbers.
SLOT_KINDS: tuple[str, ...] = (
    "genre", "style", "entity", "entity", "entity", "number", "number", "repetition", "momentum",
    "structure", "expectation", "final_token",
)  # fmt: skip
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
_UNIFORMS_PER_ACTIVATION = 160

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of an activation, with all that its wordings can be filled with."""

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


def word_claim(
    fact: Fact, *, terse: bool, item: str, uniforms: Sequence[float]
) -> str:  # uniforms: [UNIFORMS_PER_WORDING]
    """One wording of the fact that names ``item``; it starts with a capital only for a name."""
    wordings = WORDINGS[fact.kind]
    value = fact.value.short if terse else fact.value.long
    topic = fact.topic.short if terse else fact.topic.long
    text = pick(wordings.short if terse else wordings.long, uniforms[0]).format(
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
    def one(options: Sequence[_T]) -> _T:
        return pick(options, next(uniforms))

    topic = one(subjects.TOPICS)
    genre = one(subjects.GENRES)
    structure = one(language.STRUCTURES)
    final_word = one(language.FINAL_WORDS)
    expectation = one(language.EXPECTATIONS)
    fragment = structure.fragment.format(noun=one(topic.nouns))
    phrase = one(phrasebook_wordings.REPEATED_PHRASES)
    person = _person(next(uniforms))
    places = _several(subjects.PLACES, 2, uniforms)
    institution = f"{places[0]} {one(subjects.INSTITUTIONS)}"
    place = places[1]
    units = _several(subjects.UNITS, 2, uniforms)
    few = f"{11 + int(next(uniforms) * 89)} {units[0]}"
    many = f"{_thousands(next(uniforms))} {units[1]}"

    sentences = [f"{fragment}, {structure.rest}."]
    for item, templates in (
        (person, phrasebook_wordings.ENTITY_SENTENCES),
        (institution, phrasebook_wordings.ENTITY_SENTENCES),
        (place, phrasebook_wordings.PLACE_SENTENCES),
        (few, phrasebook_wordings.NUMBER_SENTENCES),
        (many, phrasebook_wordings.NUMBER_SENTENCES),
        (phrase, phrasebook_wordings.REPETITION_SENTENCES),
    ):
        sentences.append(one(templates).format(item=item, noun=one(topic.nouns)))
    keys = [next(uniforms) for _ in sentences]
    shuffled = [sentence for _, sentence in sorted(zip(keys, sentences, strict=True))]
    lead = one(final_word.leads).format(noun=one(topic.nouns), when=one(language.WHEN))
    ending = f"{lead[0].upper()}{lead[1:]} {final_word.word}"
    source_text = " ".join([genre.opener, *shuffled, ending])

    nothing = Value(("",), ("",))
    values: dict[str, Value] = {
        "genre": genre.forms,
        "style": one(language.STYLES),
        "momentum": one(language.MOMENTA),
        "structure": structure.forms,
        "expectation": expectation.forms,
        "final_token": final_word.role,
    }
    items = {
        2: person, 3: institution, 4: place, 5: few, 6: many, 7: phrase, 9: fragment,
        11: final_word.word,
    }  # fmt: skip
    planned, spare = _plan(uniforms)
    facts = []
    for slot in sorted(planned | spare):
        kind = SLOT_KINDS[slot]
        wrong = _wrong_items(slot, source_text, topic, uniforms) if kind in NAMING_KINDS else ()
        facts.append(
            Fact(
                slot=slot,
                kind=kind,
                planned=slot in planned,
                value=values.get(kind, nothing),
                topic=topic.forms,
                nouns=topic.nouns,
                item=items.get(slot, ""),
                wrong_items=wrong,
                guesses=expectation.guesses if kind == "expectation" else (),
            )
        )
    return Activation(idx, source_text, tuple(facts))


def _plan(uniforms: Iterator[float]) -> tuple[set[int], set[int]]:
    """Slots that the reference is meant to state, and spare ones. The final token is planned."""
    low, high = PLANNED_FACTS
    count = low + int(next(uniforms) * (high - low + 1))
    order = sorted(range(len(SLOT_KINDS) - 1), key=[next(uniforms) for _ in SLOT_KINDS].__getitem__)
    final_token = len(SLOT_KINDS) - 1
    return {final_token, *order[: count - 1]}, set(order[count - 1 : count - 1 + SPARE_FACTS])


def _several(options: Sequence[_T], count: int, uniforms: Iterator[float]) -> list[_T]:
    """``count`` different options."""
    remaining = list(options)
    return [remaining.pop(int(next(uniforms) * len(remaining))) for _ in range(count)]


def _person(uniform: float) -> str:
    given, surnames = subjects.GIVEN_NAMES, subjects.SURNAMES
    number = int(uniform * len(given) * len(surnames))
    return f"{given[number % len(given)]} {surnames[number // len(given)]}"


def _thousands(uniform: float) -> str:
    return f"{1_001 + int(uniform * 8_998):,}"


def _wrong_items(
    slot: int, source_text: str, topic: Topic, uniforms: Iterator[float]
) -> tuple[str, ...]:
    """Things of the slot's sort of which no word that tells them apart is in the source."""
    makers: Mapping[int, Callable[[float], str]] = {
        2: _person,
        3: lambda u: f"{pick(subjects.PLACES, u)} {pick(subjects.INSTITUTIONS, u * 7 % 1)}",
        4: lambda u: pick(subjects.PLACES, u),
        5: lambda u: f"{11 + int(u * 89)} {pick(subjects.UNITS, u * 89 % 1)}",
        6: lambda u: f"{_thousands(u)} {pick(subjects.UNITS, u * 8_998 % 1)}",
        7: lambda u: pick(phrasebook_wordings.REPEATED_PHRASES, u),
        9: lambda u: pick(language.STRUCTURES, u).fragment.format(
            noun=pick(topic.nouns, u * 14 % 1)
        ),
    }
    wrong: list[str] = []
    uniform = next(uniforms)
    while len(wrong) < _WRONG_ITEMS:
        candidate = makers[slot](uniform)
        if candidate not in wrong and not any(
            part in source_text for part in _telling_parts(slot, candidate)
        ):
            wrong.append(candidate)
        # A fixed irrational step visits the unit interval evenly, whatever is rejected.
        uniform = (uniform + 0.618_033_988_749_894_9) % 1.0
    return tuple(wrong)


def _telling_parts(slot: int, item: str) -> list[str]:
    """The parts that make an item wrong: both names of a person, the figure of a number."""
    kind = SLOT_KINDS[slot]
    if slot == 2:
        return item.split()
    return [item] if kind in QUOTING_KINDS else item.split()[:1]
