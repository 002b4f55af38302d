"""Claims: the parts of an explanation that can be kept, reworded or dropped on their own.

An explanation falls into paragraphs (a line break, or the two spaces that a published table left
of one), sentences and clauses. Punctuation inside a quoted span or a parenthesis never splits. A
piece with fewer than ``MIN_CONTENT_WORDS`` content words cannot be matched by its words and joins
its neighbour in the same sentence; so do examples ("for instance …", "e.g. …", list items), which
are details of what they exemplify, and short lead-ins that end in a colon. What only marks or
numbers the items of a list ("2.", "(b)", "•") is said of nothing, and belongs to no claim.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from nla_audit.text.items import (
    Item,
    named_entities,
    numbers,
    quoted_spans,
)
from nla_audit.text.kinds import kind_of
from nla_audit.text.languages import Language, language_of
from nla_audit.text.list_marks import without_list_marks
from nla_audit.text.peoples import each_folded
from nla_audit.text.words import FUNCTION_WORDS, content_count, content_stems, stem, words

#: A clause shorter than this is no claim of its own (unless it is a whole paragraph or sentence):
#: one or two words match by chance far too often.
MIN_CONTENT_WORDS = 3
#: A lead-in up to this long ("Genre and domain:") says nothing without what its colon introduces.
MAX_LEAD_IN_WORDS = 4

_PARAGRAPH = re.compile(r"\s*\n\s*|\s{2,}|\s*[•▪‣]\s*")
_SENTENCE = re.compile(r"(?<=[.!?;。！？；])[\"”’')\]]*\s+(?=\S)|(?<=[。！？；])")
_CLAUSE = re.compile(r"(?<=[,:，：、])\s+|\s+[—–]\s*|\s*[—–]\s+|—|\s-\s|(?<=[，、：])")
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|mr|mrs|ms|dr|prof|gov|sen|rep|st|no|inc|ltd|co|corp|jr|sr|fig"
    r"|approx|dept|est|u\.s|u\.k)|\b[A-Z])\.$",
    re.IGNORECASE,
)
#: With its full stop and the character before it.
_LONGEST_ABBREVIATION = 8
_PARENTHESIS = re.compile(r"\([^()\n]{1,300}\)|\[[^\[\]\n]{1,300}\]")
_LIST_ITEM = re.compile(
    r"^(?:(?:and|or|nor|for\s(?:instance|example)|including"
    r"|(?:(?:likely|perhaps|possibly|probably)\s)?(?:something\s)?(?:such\sas|like))\b"
    r"|&|e\.g\.|i\.e\.)",
    re.IGNORECASE,
)
#: A day or a century ("am 3. Mai"), which ends no sentence.
_ORDINAL = re.compile(r"\s\d{1,2}\.$")


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of an explanation: ``text == explanation[start:end]``."""

    start: int
    end: int
    text: str
    #: Key of :data:`nla_audit.text.kinds.KINDS`.
    kind: str
    #: Stems of its content words, in order.
    stems: tuple[str, ...]
    #: Number of its sentence within the explanation.
    sentence: int
    quotes: int
    has_parenthesis: bool
    #: Stems of the names or numbers that the claim is about, where that is what it is about.
    subjects: frozenset[str]
    #: Of the whole explanation.
    language: Language


def split_claims(explanation: str) -> list[Claim]:
    """The claims of an explanation, in order. Empty text has none.

    The spans do not overlap and together hold every word of the explanation, but what marks the
    items of its lists.
    """
    return list(_claims(explanation))


def claim_count(explanation: str) -> int:
    """How many claims :func:`split_claims` finds, without what each of them is about."""
    return len(_spans(explanation, quoted_spans(explanation)))


@lru_cache(maxsize=1 << 13)  # every question of an audit cuts the same texts
def _claims(explanation: str) -> tuple[Claim, ...]:
    quotes = quoted_spans(explanation)
    language = language_of(explanation)  # a claim alone is too short to tell it by
    nouns_too = language.capitalises_nouns
    claims = []
    starts = [quote.start for quote in quotes]
    for start, end, number in _spans(explanation, quotes):
        text = explanation[start:end]
        # A quote never spans claims, so those that begin inside are all there are.
        own = quotes[bisect_left(starts, start) : bisect_left(starts, end)]
        inside = [(quote.start - start, quote.end - start) for quote in own]
        stems = tuple(content_stems(text, inside)) or tuple(text.lower().split())
        kind = kind_of(text, nouns_too=nouns_too)
        claims.append(
            Claim(
                start,
                end,
                text,
                kind,
                stems,
                number,
                len(own),
                bool(_PARENTHESIS.search(text)),
                _subjects(text, kind, nouns_too),
                language,
            )
        )
    return tuple(claims)


def _spans(explanation: str, quotes: Sequence[Item]) -> list[tuple[int, int, int]]:
    """Where each claim begins and ends, and the number of its sentence."""
    shielded = _shield(explanation, [(quote.start, quote.end) for quote in quotes])
    shielded = without_list_marks(explanation, shielded, quotes)
    spans: list[tuple[int, int, int]] = []
    language = language_of(explanation)
    sentences = [
        sentence
        for paragraph in _split(shielded, 0, len(shielded), _PARAGRAPH)
        for sentence in _sentences(shielded, *paragraph, language)
    ]
    for number, sentence in enumerate(sentences):
        clauses = _split(shielded, *sentence, _CLAUSE)
        spans += [(*clause, number) for clause in _merge_short(explanation, clauses, language)]
    return [
        (start, end, number)
        for start, end, number in spans
        if any(map(str.isalnum, explanation[start:end]))
    ]


def _subjects(text: str, kind: str, nouns_too: bool) -> frozenset[str]:
    """What a claim of these kinds names: said of another name or number, it is another claim."""
    if kind == "entity":
        named = named_entities(text, nouns_too=nouns_too)
    elif kind == "number":
        named = numbers(text)
    else:
        return frozenset()
    return frozenset(
        stem(word)
        for item in named
        for word in each_folded(words(item.text))
        if word not in FUNCTION_WORDS
    )


def _shield(text: str, quoted: list[tuple[int, int]]) -> str:
    """``text`` with separators inside quotes and parentheses replaced, lengths unchanged."""
    spans = quoted + [match.span() for match in _PARENTHESIS.finditer(text)]
    if not spans:
        return text
    characters = list(text)
    for start, end in spans:
        for place in range(start, min(end, len(characters))):
            if not characters[place].isalnum() and characters[place] not in "\"”’'":
                characters[place] = "_"
    return "".join(characters)


def _split(text: str, start: int, end: int, separator: re.Pattern[str]) -> list[tuple[int, int]]:
    spans = []
    place = start
    for match in separator.finditer(text, start, end):
        if text[place : match.start()].strip():
            spans.append((place, match.start()))
            place = match.end()
    if text[place:end].strip():
        spans.append((place, end))
    return [_trim(text, *span) for span in spans]


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _sentences(text: str, start: int, end: int, language: Language) -> list[tuple[int, int]]:
    spans = _split(text, start, end, _SENTENCE)
    joined: list[tuple[int, int]] = []
    for span in spans:
        if joined and _goes_on(text, *joined[-1], language):
            joined[-1] = (joined[-1][0], span[1])
        else:
            joined.append(span)
    return joined


def _goes_on(text: str, start: int, end: int, language: Language) -> bool:
    """Whether the full stop at ``end`` ends no sentence."""
    # Only the end of what is joined: a text of nothing but abbreviations is one long sentence.
    start = max(start, end - _LONGEST_ABBREVIATION)
    if _ABBREVIATION.search(text, start, end):
        return True
    return language.ordinals_end_in_a_stop and bool(_ORDINAL.search(text, start, end))


def _merge_short(
    text: str, clauses: list[tuple[int, int]], language: Language
) -> list[tuple[int, int]]:
    """Join list items and clauses too short to stand alone to the clause before (or after)."""
    merged: list[tuple[int, int]] = []
    lengths: list[int] = []
    for start, end in clauses:
        piece = text[start:end]
        length = content_count(piece, language.function_words)
        if merged and (
            length < MIN_CONTENT_WORDS
            or lengths[-1] < MIN_CONTENT_WORDS
            or _LIST_ITEM.match(piece)
            or (lengths[-1] <= MAX_LEAD_IN_WORDS and text[merged[-1][1] - 1] in ":：")
        ):
            merged[-1] = (merged[-1][0], end)
            lengths[-1] += length
        else:
            merged.append((start, end))
            lengths.append(length)
    return merged
