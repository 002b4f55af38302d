"""The taxonomy: what a claim is about.

The kinds start from those that warm-start labels are asked for (the feature kinds of the
published labelling prompt, docs/published.md), so they are what NLA explanations are made of. A
claim has exactly one kind: the first in the order below one of whose cues it holds. The order
puts the specific before the general, because explanations mix cues ("final token X continues the
list" is about the final token). Cues are English; a claim without any cue is an entity, a number
or ``content``, by what it names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nla_audit.text.items import named_entities, numbers, quoted_spans
from nla_audit.text.words import lower_in_place


@dataclass(frozen=True)
class Kind:
    """One kind of claim, with what it means in words."""

    name: str
    meaning: str
    cue: re.Pattern[str] | None


def _cue(*alternatives: str) -> re.Pattern[str]:
    """Beginnings of words in lower case; a search without regard to case takes twice as long."""
    return re.compile(r"\b(?:" + "|".join(alternatives) + r")")


#: The kind whose claims name one thing of an input that there is only once.
FINAL_TOKEN = "final_token"

KINDS: tuple[Kind, ...] = (
    Kind(
        FINAL_TOKEN,
        "the final token or fragment of the input, and its role",
        _cue(
            r"(?:final|last|closing|concluding|ending|trailing|terminal) (?:\w+ )?(?:sub)?"
            r"(?:token|word|fragment|phrase|clause|character|comma|punctuation)",
            r"ends? (?:with|on|in|mid)",
            r"text (?:ends|stops|breaks off)",
        ),
    ),
    Kind(
        "repetition",
        "repetition or continuation of a pattern in the input",
        _cue(
            "repeat",
            "repetit",
            "recur",
            "refrain",
            "echo",
            "parallel",
            "mirrors?",
            "reiterat",
            r"same (?:phrase|pattern|word|structure)",
            "again",
            "anaphora",
        ),
    ),
    Kind(
        "genre",
        "domain, genre or kind of document",
        _cue(
            "genre",
            "article",
            "news",
            "report",
            "blog",
            "essay",
            "documentation",
            "tutorial",
            "biograph",
            "memoir",
            "novel",
            "fiction",
            "forum",
            "transcript",
            "manual",
            "review",
            "encyclop",
            "recipe",
            "press release",
            "textbook",
            "legal document",
            "domain",
            r"(?:web|wiki|product) ?page",
            "profile",
            "journal",
            "obituar",
            "listing",
            "advert",
            "letter",
            "speech",
            "dialogue",
            "poem",
            "lyrics",
            "code",
            "readme",
            "abstract",
        ),
    ),
    Kind(
        "style",
        "style, register, tone or voice",
        _cue(
            "style",
            "register",
            "tone",
            "voice",
            "formal",
            "informal",
            "colloquial",
            "rhetoric",
            "diction",
            "jargon",
            "third[- ]person",
            "first[- ]person",
            "second[- ]person",
            "conversational",
            "journalistic",
            "persuasive",
            "academic",
            "prose",
            "humor",
            "mood",
            "laudatory",
            "celebratory",
        ),
    ),
    Kind(
        "momentum",
        "narrative or argumentative momentum: where the text is heading",
        _cue(
            "momentum",
            "narrative",
            "argument",
            "building",
            "builds",
            "leading (?:to|toward)",
            "transition",
            "shift",
            "unfold",
            "progress",
            "escalat",
            "climax",
            "resolution",
            "plot",
            "story",
            "contrast",
            "causal",
            "cause",
            "conclusion",
            "elaborat",
            "develop",
            "sets? up",
            "moving (?:to|toward|from)",
            "heading",
            "advance",
        ),
    ),
    Kind(
        "structure",
        "syntactic or structural constraint",
        _cue(
            "syntax",
            "syntactic",
            "clause",
            "sentence",
            "noun",
            "verb",
            "adjective",
            "adverb",
            "preposition",
            "conjunction",
            "pronoun",
            "determiner",
            "infinitive",
            "participle",
            "grammat",
            "structure",
            "list",
            "bullet",
            "enumerat",
            "heading",
            "table",
            "format",
            "parenthe",
            "object",
            "predicate",
            "subject",
            "modifier",
            "punctuation",
            "compound",
            "relative",
            "subordinat",
            "construction",
            "phrase",
            "paragraph",
        ),
    ),
    Kind(
        "expectation",
        "what content is expected next",
        _cue(
            "expect",
            "likely",
            "anticipat",
            "requir",
            "predict",
            "next",
            "follow",
            "imminent",
            "forthcoming",
            "upcoming",
            "completion",
            "complet",
            "continu",
            "will (?:be|name|give)",
            "probabl",
            "await",
            "needs?",
            "demand",
            "should",
        ),
    ),
    Kind("number", "a number, date or quantity", None),
    Kind("entity", "a named person, place, organisation or product", None),
    Kind("quote", "a bare quoted span", None),
    Kind("content", "anything else the text is about", None),
)

KIND_NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)


def kind_of(claim: str, *, nouns_too: bool | None = None) -> str:
    """The kind of a claim (a key of :data:`KIND_NAMES`).

    Args:
        nouns_too: see :func:`~nla_audit.text.items.named_entities`.
    """
    quotes = quoted_spans(claim)
    outside = claim
    for quote in reversed(quotes):  # what is merely quoted is no cue
        outside = outside[: quote.start] + "§" + outside[quote.end :]
    lower = lower_in_place(outside)
    for kind in KINDS:
        if kind.cue is not None and kind.cue.search(lower):
            return kind.name
    if numbers(outside):
        return "number"
    if named_entities(outside, nouns_too=nouns_too):
        return "entity"
    return "quote" if quotes else "content"
