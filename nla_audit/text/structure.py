"""Quotation marks that only hold keys and values apart, as in JSON: nothing is quoted by them.

Some NLAs write their explanations so (``"genre": "news report", "names": ["Ada Holm"]``). What is
said in such a string is said like anything else. Only under a key that announces words of the text
(``"last_words": "and then the"``) is a string a quotation, and so is what is quoted inside of one.
"""

from __future__ import annotations

import re

#: A key stands where a line or a list begins or goes on, and before what may be a value.
_KEY = re.compile(
    r"(?:\A|[{\[,\n]|[^\S\n]{2})\s*"
    r"(?P<mark>[\"'])(?P<key>\w(?:[\w ./-]{0,60}\w)?)(?P=mark)(?P<colon>\s*:)\s*"
    r"(?=[\"'\[{]|-?\d|(?:true|false|null|None|True|False)\b)"
)
_STRING = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'(?!\w)")
_ESCAPE = re.compile(r"\\(?=[\"'])")
#: What stands between the strings of a list.
_IN_A_LIST = re.compile(r"[^\"'\[\]{}\n]*")
_WORD_OF_A_KEY = re.compile("[A-Z]?[a-z]+")
_ANNOUNCE = frozenset(
    """word words token tokens quote quotes quoted quotation verbatim phrase phrases snippet excerpt
    span spans ending""".split()
)


def without_structure(text: str) -> str:
    """``text`` with blanks for the marks around keys and values; every character in its place."""
    if '":' not in text and "':" not in text and '" :' not in text:
        return text
    found: list[str] | None = None
    for match in _KEY.finditer(text):
        found = found or list(text)
        start, end = match.span("key")
        found[start - 1] = found[end] = found[match.end("colon") - 1] = " "
        found[start:end] = text[start:end].replace("_", " ")
        words = {word.lower() for word in _WORD_OF_A_KEY.findall(match["key"])}
        for first, last in _strings(text, match.end()):
            inside = slice(first + 1, last)
            plain = _ESCAPE.sub(" ", text[inside])
            # What has a quotation of its own says something about it.
            if words.isdisjoint(_ANNOUNCE) or _STRING.search(plain):
                found[first] = found[last] = " "
                found[inside] = plain
    return text if found is None else "".join(found)


def _strings(text: str, start: int) -> list[tuple[int, int]]:
    """The marks of the string that begins at ``start``, or of those of the list that does."""
    if text[start] == "[":
        return _listed(text, start + 1)
    string = _STRING.match(text, start)
    return [(string.start(), string.end() - 1)] if string else []


def _listed(text: str, start: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        between = _IN_A_LIST.match(text, start)
        assert between is not None  # it may be empty
        string = _STRING.match(text, between.end())
        if string is None:
            return found
        found.append((string.start(), string.end() - 1))
        start = string.end()
