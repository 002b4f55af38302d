"""What numbers or marks the items of a list: "2.", "(b)", "iii)", "•". It says nothing.

A number or letter is such a mark where a line or a sentence begins with it, and its neighbour
marks another item: "2." beside "1." or "3.". So "J. K. Rowling" keeps her initials. Only a "1." at
the start of a line needs no neighbour: the rest may have been cut off.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nla_audit.text.items import Item
from nla_audit.text.words import CJK

_BULLET = r"[-–*+>#•▪‣]+\s+"
_NUMERAL = r"\d{1,2}(?:\.\d{1,2}){0,2}"
_CHINESE = "一二三四五六七八九十"
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"
_LABEL = rf"{_NUMERAL}|[ivxIVX]{{1,4}}|[A-Za-z]|[{_CHINESE}]{{1,2}}"
_AFTER_AN_EDGE = (
    rf"(?P<bullets>(?:{_BULLET})*)"
    r"(?P<mark>\*{0,2}(?:"
    rf"(?P<opening>[(（\[])(?P<within>{_LABEL})[)）\]]"
    rf"|(?P<label>{_LABEL})(?P<closing>[、．）]|(?:[.):]|\s[-–—](?=\s))(?=[\s*{CJK}]|\Z))"
    rf"|(?P<circled>[{_CIRCLED}])"
    r")\*{0,2})?"
)
#: Each begins with few characters, so that the search skips to the next of these.
_MARKS = tuple(
    re.compile(rf"(?P<edge>{edge}){_AFTER_AN_EDGE}")
    for edge in (r"\s(?:(?<=\n)\s*|\s+)", r"[.!?;:。！？；][\"”’)\]]*[^\S\n]?")
)
_FIRST_MARK = re.compile(rf"(?P<edge>\s*){_AFTER_AN_EDGE}")
#: The first items that need no second: a style of mark before the kind of label.
_FIRST = ((".1", 1), (")1", 1), ("、1", 1))
_ONLY_AT_A_LINE = ("-", "–", "—", ":")
#: Or the two blanks that a published table left of one.
_LINE_BREAK = re.compile(r"\n|\s{2}")
_ROMAN = {
    roman: value
    for value, roman in enumerate(
        "i ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx".split(), start=1
    )
}


@dataclass(frozen=True)
class _Candidate:
    """What may mark an item: ``text[start:end]``."""

    start: int
    end: int
    at_a_line: bool
    #: Whether nothing but bullets stands there.
    is_bullet: bool
    #: What else it may be: a kind of list, and the place in it.
    places: list[tuple[str, int]]


def without_list_marks(text: str, shielded: str, quotes: Sequence[Item]) -> str:
    """``shielded`` with line breaks in the place of what marks the items of ``text``'s lists.

    Args:
        shielded: ``text`` or a copy of it with other characters here and there.
        quotes: the text's quoted spans, in which nothing is a mark.
    """
    starts = [quote.start for quote in quotes]
    candidates = []
    for match in _edges(text):
        start = match.end("edge")
        place = bisect_right(starts, start) - 1
        if start < match.end() and not (place >= 0 and start < quotes[place].end):
            candidates.append(_candidate(match))
    known = {place for one in candidates for place in one.places}
    last = next((place for place in reversed(range(len(text))) if text[place].isalnum()), -1)
    marks = [one for one in candidates if _marks_an_item(one, known, last)]
    if not marks:
        return shielded
    characters = list(shielded)
    for one in marks:
        characters[one.start : one.end] = "\n" * (one.end - one.start)
    return "".join(characters)


def _edges(text: str) -> Iterator[re.Match[str]]:
    """Where items may begin: at the start, at lines, and after sentences."""
    first = _FIRST_MARK.match(text)
    assert first is not None  # all of it may be empty
    yield first
    for mark in _MARKS:
        yield from mark.finditer(text)


def _candidate(match: re.Match[str]) -> _Candidate:
    edge = match["edge"]
    at_a_line = match.start() == 0 or bool(_LINE_BREAK.search(edge))
    label = match["within"] or match["label"] or match["circled"]
    style = f"{match['opening'] or ''}{(match['closing'] or '').strip()}"
    # A letter with a full stop, or a number with a dash, begins many a sentence.
    if label and not at_a_line and (style in _ONLY_AT_A_LINE or (style == "." and label.isalpha())):
        label = None
    return _Candidate(
        match.end("edge"),
        match.end(),
        at_a_line,
        is_bullet=label is None and not match["mark"],
        places=[(style + kind, value) for kind, value in _places(label)] if label else [],
    )


def _places(label: str) -> Iterator[tuple[str, int]]:
    """The kinds of list that a label may be of, and its place in each: "i" is 1 or the ninth."""
    *outer, last = label.split(".")
    if last.isdecimal():
        yield ".".join(outer) + "1", int(last)
    elif label in _CIRCLED:
        yield "①", _CIRCLED.index(label) + 1
    elif label[-1] in _CHINESE:
        yield "一", _CHINESE.index(label[-1]) + 1 + 10 * (len(label) > 1)
    else:
        case = "a" if label.islower() else "A"
        if len(label) == 1:
            yield case, ord(label.lower()) - ord("a") + 1
        if label.lower() in _ROMAN:
            yield "i" + case, _ROMAN[label.lower()]


def _marks_an_item(one: _Candidate, known: set[tuple[str, int]], last: int) -> bool:
    """Whether it has a neighbour or needs none; ``last`` is where the text's last letter stands."""
    if any((kind, value + step) in known for kind, value in one.places for step in (-1, 1)):
        return True
    needs_none = one.is_bullet or any(place in _FIRST for place in one.places)
    return one.at_a_line and needs_none and one.end <= last
