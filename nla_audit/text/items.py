"""Items: quoted spans, named entities, numbers and hedges inside an explanation.

An item is looked for nearly to the letter (:mod:`nla_audit.text.said_items`), where a claim is
compared by meaning.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Literal, NamedTuple

from nla_audit.text.languages import language_of
from nla_audit.text.structure import without_structure
from nla_audit.text.words import CJK, FUNCTION_WORDS, lower_in_place, word_spans

ItemKind = Literal["quote", "entity", "number", "hedge"]


class Item(NamedTuple):  # a dataclass takes four times as long to make, and there are millions
    """A literal piece of an explanation: ``text[start:end]`` without its quote marks."""

    kind: ItemKind
    start: int
    end: int
    text: str
    #: A quoted span that is offered as what may come next, not as what stands in the source.
    predicted: bool = False


# Opening and closing marks that belong together. A straight single quote is a quote mark only
# where it cannot be an apostrophe: outside of a word on both sides. Such a span holds so many
# apostrophes at most, or a text of marks that only open is searched to its end from each of them.
# Every alternative begins with its mark, so that the search skips to the next mark.
_QUOTE = re.compile(
    r'"(?P<double>[^"\n]{1,300})"'
    r"|“(?P<curly>[^”\n]{1,300})”"
    r"|«(?P<angle>[^»\n]{1,300})»"
    r"|「(?P<corner>[^」\n]{1,300})」"
    r"|`(?P<tick>[^`\n]{1,300})`"
    r"|'(?<!\w')(?P<single>[^'\n]{1,300}(?:'\w[^'\n]{0,300}){0,20})'(?!\w)"
    r"|‘(?<!\w‘)(?P<bent>[^’\n]{1,300}(?:’\w[^’\n]{0,300}){0,20})’(?!\w)"
)

#: Words after which a quoted span is an example of what may follow, not a citation. Searched in
#: lower case, as the hedges are: a search without regard to case takes twice as long.
_PREDICTS = re.compile(
    r"(?:e\.g\.|i\.e\.|\b(?:like|such as|likely|probably|perhaps|possibly|maybe|expect(?:ed|ing|s)?"
    r"|anticipat\w*|predict\w*|requir\w*|next|follow(?:ed|s|ing)?(?: by)?|complet\w*|continu\w*"
    r"|as in|for example|for instance|similar|variant|would be|might be|could be|or))"
    r"[\s,:;(\[—–-]*(?:(?:a|an|the|with|as|to|by|word|words|phrase|token|something)\s+){0,3}$"
)

# Chinese and the like have no blanks: a number stands between their characters.
_LETTER = rf"[^\W{CJK}]"
# It begins with what a number may begin with, so that the search skips to the next of these; then
# comes what may not stand before it, and the first digit, if that was a sign.
_NUMBER = re.compile(
    rf"[-+−$€£\d](?<!(?:{_LETTER}|\.).)(?:(?<=\d)|\d)(?:[\d,.:/]*\d%?|%?(?!{_LETTER}))"
)
#: A list's items are counted in so many digits, before one of these.
_MOST_LIST_DIGITS, _AFTER_A_LIST_NUMBER = 2, (".", ")", ":", "]")
_BEFORE_A_LIST_NUMBER = re.compile(r"(?:^|\n|[^\S\n]{2})[^\S\n]*\(?$")
_LIST_MARK = re.compile(r"(?:^|\n|[^\S\n]{2})[^\S\n]*(?:\(?\w{1,4}\)|\[[^\]\n]{0,40}\])\W*$")

#: A text that holds none of these is searched no further: most hold none.
_HEDGES = (
    *"likely probably possibly perhaps maybe presumably apparently seem appear suggest".split(),
    *"might may could potentially plausibly typically usually e.g.".split(),
    *("almost certainly", "or similar", "or something", "something like"),
)
_INFLECTED = ("seem", "appear", "suggest")
_HEDGE = re.compile(
    rf"\b(?:{'|'.join(re.escape(one) + 's?' * (one in _INFLECTED) for one in _HEDGES)})\b"
)

#: What may stand between two words: a blank is any that keeps them on one line, such as the
#: no-break ones that some language models write.
_BLANK = r"[^\S\r\n]"
_FULL_STOP = re.compile(rf"\.{_BLANK}?")
_INSIDE_A_NAME = re.compile(rf"{_BLANK}|[-\u2010\u2011'’]|&|{_BLANK}&{_BLANK}")
_BEFORE_A_SENTENCE = re.compile(rf"[.!?:;\n\"“‘«(—–•*|]|{_BLANK}{{2}}")

#: Titles that a full stop shortens.
TITLES = frozenset(
    "mr mrs ms dr prof gov sen rep st pres gen col lt capt sgt rev hon jr sr".split()
)
#: Capitalised words that open a sentence or name a feature, not an entity.
_NOT_NAMES = frozenset(
    """final last token text article document sentence paragraph phrase clause word list narrative
    news genre style tone register pattern structure repetition formal informal technical academic
    immediate semantic syntactic ongoing mid direct quote quotation the this that it next expected
    continuation source author speaker subject topic title header section english e.g i.e third
    first second""".split()
)


def quoted_spans(text: str) -> list[Item]:
    """Quoted spans, each told apart as a citation or as a prediction of what comes next.

    A list of alternatives (``"a," "b," or "c"``) is predicted as a whole when its first member
    is. What only sets keys and values apart quotes nothing (:mod:`nla_audit.text.structure`).
    """
    found: list[Item] = []
    text = without_structure(text)
    for match in _QUOTE.finditer(text):
        group = match.lastgroup
        assert group is not None
        start, end = match.span(group)
        inner = text[start:end]
        stripped = inner.strip(" ,.;:…")
        if not stripped:
            continue
        start += inner.index(stripped)
        before = text[max(0, match.start() - 60) : match.start()]
        predicted = bool(_PREDICTS.search(lower_in_place(before)))
        if not predicted and found and found[-1].predicted:
            between = text[found[-1].end : match.start()]
            predicted = bool(re.fullmatch(r"[\s,;/\"”'’»….]*(?:or|and|and/or)?\s*", between))
        found.append(Item("quote", start, start + len(stripped), stripped, predicted))
    return found


def numbers(text: str) -> list[Item]:
    """Numbers as written, units and thousands separators included."""
    return [
        Item("number", match.start(), match.end(), match.group().rstrip(".,:/"))
        for match in _NUMBER.finditer(text)
        if not _numbers_a_list(text, *match.span())
    ]


def _numbers_a_list(text: str, start: int, end: int) -> bool:
    """Whether a number only counts the items of a list: "2) …" at the start of a line."""
    return (
        end - start <= _MOST_LIST_DIGITS
        and text[end : end + 1] in _AFTER_A_LIST_NUMBER
        and (text[end + 1 : end + 2].isspace() or text[end : end + 1] == ")")
        and bool(_BEFORE_A_LIST_NUMBER.search(text[max(0, start - 8) : start]))
    )


def hedges(text: str) -> list[Item]:
    """Words that mark a claim as a guess."""
    lower = lower_in_place(text)
    if not any(map(lower.__contains__, _HEDGES)):
        return []
    spans = [match.span() for match in _HEDGE.finditer(lower)]
    return [Item("hedge", start, end, text[start:end]) for start, end in spans]


def named_entities(text: str, *, nouns_too: bool | None = None) -> list[Item]:
    """Runs of capitalised words that are not merely the first word of a sentence.

    A rule, not a model: a capitalised word counts when it does not open a sentence, line or
    quotation, or when it is capitalised inside too (``iPhone``, ``NATO``), or when it continues
    such a run (``Oregon Gov. Brown``). The feature vocabulary of explanations ("Final token",
    "Narrative momentum") is left out. In German every noun is capitalised, so there only what is
    capitalised inside tells.

    Args:
        nouns_too: whether every noun is capitalised, where more than ``text`` is there to tell by.
    """
    if nouns_too is None:
        nouns_too = language_of(text).capitalises_nouns
    found: list[Item] = []
    run: list[tuple[int, int]] = []

    def close() -> None:
        if run:
            start, end = run[0][0], run[-1][1]
            found.append(Item("entity", start, end, text[start:end]))
            run.clear()

    for start, end in _words_with_capitals(text):
        may_be, anywhere = _may_be_a_name(text[start:end])
        if not may_be:
            close()
            continue
        gap_start = _gap_before(text, start)
        if (
            run
            and not (
                gap_start <= run[-1][1]  # else another word stands between
                and _continues_a_name(text[slice(*run[-1])], text[run[-1][1] : start])
            )
        ):
            close()
        if not (run or anywhere):
            gap = text[gap_start:start]
            if nouns_too or gap_start == 0 or (gap != " " and _opens(text, start, gap)):
                continue
        run.append((start, end))
    close()
    return found


def _opens(text: str, start: int, gap: str) -> bool:
    """Whether what begins at ``start``, after this gap, begins a sentence or a list's item."""
    if _BEFORE_A_SENTENCE.search(gap):
        return True
    # The mark of a list's item is short.
    return gap.startswith((")", "]")) and bool(_LIST_MARK.search(text[max(0, start - 50) : start]))


#: From what may be a capital, any but white space and what is ASCII and none, to the next white
#: space. Most words hold none, and are passed by sooner than one by one.
_FROM_CAPITAL = re.compile(r"[^\s\x00-@\[-\x7f]\S*")


def _words_with_capitals(text: str) -> Iterator[tuple[int, int]]:
    """Character spans of the words that are not all lower case, in order."""
    for match in _FROM_CAPITAL.finditer(text):
        start, end = match.span()
        while start and not text[start - 1].isspace():
            start -= 1
        stretch = text[start:end]
        if stretch.isascii() and stretch.isalpha():  # a word and nothing else
            yield start, end
            continue
        for first, last in word_spans(text, start, end):
            if not text[first:last].islower():
                yield first, last


def _gap_before(text: str, start: int) -> int:
    """Where what stands between a word that begins at ``start`` and the one before it begins."""
    while start and not text[start - 1].isalnum():
        start -= 1
    return start


def _continues_a_name(before: str, gap: str) -> bool:
    """Whether what stands between two capitalised words leaves them one name.

    A full stop does so only after an initial or a title ("J. Smith", "Gov. Brown").
    """
    if _FULL_STOP.fullmatch(gap):
        return len(before) == 1 or before.lower() in TITLES
    return bool(_INSIDE_A_NAME.fullmatch(gap))


@lru_cache(maxsize=1 << 13)
def _may_be_a_name(word: str) -> tuple[bool, bool]:
    """Whether a word may be a name by its capitals, and whether also where it opens a sentence."""
    inner_capital = not word[1:].islower() and any(map(str.isupper, word[1:]))
    if not word[0].isupper() and not inner_capital:
        return False, False
    lower = word.lower().removesuffix("'s").removesuffix("’s")
    return lower not in _NOT_NAMES and lower not in FUNCTION_WORDS, inner_capital


def items(text: str) -> list[Item]:
    """All items of an explanation; names and numbers inside a quote are part of the quote."""
    quotes = quoted_spans(text)
    rest = [*named_entities(text), *numbers(text), *hedges(text)]
    if quotes:
        starts = [quote.start for quote in quotes]  # in order, and none within another

        def is_outside(item: Item) -> bool:
            place = bisect_right(starts, item.start) - 1
            return place < 0 or item.start >= quotes[place].end

        rest = list(filter(is_outside, rest))
    return sorted([*quotes, *rest], key=attrgetter("start", "end"))
