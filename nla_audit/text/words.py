"""Words: what a text is compared by.

A word is a maximal run of letters and digits (any script; apostrophes inside a word belong to
it; each CJK character is a word of its own). Comparison is on *stems* of *content words*:
function words say little and are everywhere.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase

import Stemmer

#: Letters of scripts without blanks, each a word: for character classes of patterns. Marks between
#: them ("・") and what is not assigned are none.
CJK = (
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7a3\uf900-\ufa6d\ufa70-\ufad9"
)
_CJK_CHARACTER = re.compile(f"[{CJK}]")
#: Accents and the like of a decomposed text belong to the letter before them.
_ACCENTS = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
#: So do the vowels of many scripts (Hebrew and Arabic to Khmer), and what joins or parts letters
#: within a word (Persian, Hindi).
_SCRIPTS_WITH_MARKS = range(0x0590, 0x1800)
_VOWELS = "".join(
    chr(code) for code in _SCRIPTS_WITH_MARKS if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
_MARKS = _ACCENTS + _VOWELS + "\u200c\u200d"
# Nothing is given back, for nothing that may follow is a letter or a mark: a word of many marks, as
# of Thai, which has no blanks, could else be taken apart in more ways than there is time for.
_RUN = rf"[^\W_{CJK}]++(?:[{_MARKS}]++[^\W_{CJK}]*+)*"
_ENDING = rf"[^\W\d_{CJK}]++(?:[{_MARKS}]++[^\W\d_{CJK}]*+)*"
_WORD = re.compile(rf"[{CJK}][{_MARKS}]*|{_RUN}(?:['’]{_ENDING})*")
#: The same words where all is ASCII, as most texts are; it searches twice as fast.
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z]+)*")
#: A blank for every character of ASCII that is neither a letter nor a digit.
_BETWEEN_WORDS = {code: " " for code in range(128) if not chr(code).isalnum()}

#: English function words (articles, prepositions, pronouns, auxiliaries, conjunctions).
FUNCTION_WORDS = frozenset(
    """a an the of to in on at for and or nor but is are was were be been being am as by with from
    that this these those it its he she his her him they them their we us our you your i me my
    into onto than then so such via not no do does did has have had having can could may might
    will would shall should must about over under up down out off between within through during
    if while because there here when where which who whom whose what how also both either neither
    each per very more most some any all just only own same too""".split()
)

#: Texts whose words or counts are kept: a clause is a piece, and often a claim and a sentence, too.
_KEPT = 1 << 15

_english = Stemmer.Stemmer("english")
#: Blanks and hyphens that do not break a line, or are of another width, as some models write them.
_BLANKS = (
    "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
_HYPHENS = "\u2010\u2011"
#: Lower case of A to Z; a blank for every blank and a hyphen for every hyphen.
_LOWER = str.maketrans(
    ascii_uppercase + _BLANKS + _HYPHENS,
    ascii_lowercase + " " * len(_BLANKS) + "-" * len(_HYPHENS),
)


def lower_in_place(text: str) -> str:
    """``text`` as patterns are looked for in it: in lower case, with plain blanks and hyphens.

    Every character stays in its place. Capitals other than A to Z stay as they are: some become
    two characters, "İ" an "i" and a dot, between which a pattern sees the end of a word.
    """
    return text.lower() if text.isascii() else text.translate(_LOWER)


def _word_in(text: str) -> re.Pattern[str]:
    return _ASCII_WORD if text.isascii() else _WORD


def word_spans(text: str, start: int = 0, end: int = sys.maxsize) -> Iterator[tuple[int, int]]:
    """Character spans of the words of ``text``, in order; of those in ``text[start:end]`` only.

    Neither ``start`` nor ``end`` may cut a word.
    """
    for match in _word_in(text).finditer(text, start, end):
        yield match.span()


class WordBreaks:
    """Where a text may be cut without breaking one of its words."""

    def __init__(self, text: str):
        self._spans = list(word_spans(text))
        self._starts = [start for start, _ in self._spans]

    def at(self, end: int) -> bool:
        """Whether the text goes on, after its first ``end`` characters, within a word."""
        place = bisect_left(self._starts, end) - 1
        return place >= 0 and end < self._spans[place][1]


def words(text: str) -> list[str]:
    """Lower-case words of ``text``, in order, function words included.

    One word however its characters are encoded: an accent of its own or in one character with its
    letter, a ligature, a full-width letter (Unicode's compatibility form, NFKC).
    """
    return _split(_one_encoding(text).lower().replace("’", "'"))


def _split(lower: str) -> list[str]:
    """The words of a text in lower case."""
    if lower.isascii() and "'" not in lower:
        return lower.translate(_BETWEEN_WORDS).split()  # a third of a search's time
    return _word_in(lower).findall(lower)


#: Quotation marks, opening ones and closing ones: which is which differs between languages.
_QUOTING = "[\"“”„'‘’‚`«»‹›「」]"
#: A word that is quoted alone: the text speaks of the word itself. The mark stands before the look
#: behind it, so that the search skips to the next mark.
_MENTIONED = re.compile(rf"{_QUOTING}(?<![^\W_].)\s?({_RUN})[\s.,…]*{_QUOTING}(?![^\W_])")


@lru_cache(maxsize=_KEPT)
def words_and_mentions(text: str) -> Sequence[str]:
    """:func:`words`, where a function word that is quoted alone is marked with the quote.

    Explanations speak of words (final token "that"), and such a word is no function word then.
    """
    text = _one_encoding(text).lower()
    mentioned = {
        match.start(1) for match in _MENTIONED.finditer(text) if match[1] in FUNCTION_WORDS
    }
    if not mentioned:
        return tuple(_split(text.replace("’", "'")))
    return tuple(
        '"' + match.group() if match.start() in mentioned else match.group().replace("’", "'")
        for match in _word_in(text).finditer(text)
    )


def mentions(text: str) -> frozenset[str]:
    """Stems of the words that ``text`` quotes alone: those that it speaks of."""
    lower = _one_encoding(text).lower().replace("’", "'")
    return frozenset(stem(match[1]) for match in _MENTIONED.finditer(lower))


def _one_encoding(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


@lru_cache(maxsize=1 << 17)
def stem(word: str) -> str:
    """The Porter2 stem of a lower-case word (other scripts come back unchanged)."""
    return _english.stemWord(word.removesuffix("'s"))


def content_stems(text: str, quoted: Sequence[tuple[int, int]] = ()) -> list[str]:
    """Stems of the content words of ``text``, in order, repeats included.

    A function word inside one of the ``quoted`` character spans, which are in order, is content
    all the same, since explanations quote the words they are about (final token "that"). It is
    marked with the quote, so that it matches only where it is quoted too.
    """
    if text.isascii() and not quoted:
        return [stem(word) for word in words(text) if word not in FUNCTION_WORDS]
    stems = []
    starts = [first for first, _ in quoted]
    for match in _word_in(text).finditer(text):
        word = _one_encoding(match.group()).lower().replace("’", "'")
        if word not in FUNCTION_WORDS:
            stems.append(stem(word))
            continue
        place = bisect_right(starts, match.start()) - 1
        if place >= 0 and match.start() < quoted[place][1]:
            stems.append(f'"{word}')
    return stems


def unheld(text: Sequence[str], by: Sequence[str]) -> list[str]:
    """The content words of a text, given as its words, that another does not hold."""
    said = {stem(word) for word in by}
    return [word for word in text if word not in FUNCTION_WORDS and stem(word) not in said]


@lru_cache(maxsize=_KEPT)
def content_count(text: str, function_words: frozenset[str] = FUNCTION_WORDS) -> int:
    """Number of content words of ``text``: of those that are not ``function_words``."""
    found = words(text)
    return len(found) - sum(map(function_words.__contains__, found))


def content_size(text: str, function_words: frozenset[str] = FUNCTION_WORDS) -> int:
    """Content words of ``text`` as other scripts count them: two characters of Chinese are one."""
    count = content_count(text, function_words)
    return count if text.isascii() else count - len(_CJK_CHARACTER.findall(text)) // 2


@lru_cache(maxsize=_KEPT)
def piece_count(text: str) -> int:
    """A tokenizer-free estimate of how many word pieces a text costs.

    A word costs one piece for every eight characters begun, each further visible character
    (punctuation, symbol) one piece. Only *ratios* of it are used: to spread an explanation's
    known token count over its claims.
    """
    lengths = [len(word) for word in _word_in(text).findall(text)]
    visible = sum(map(len, text.split()))
    return sum([(length + 7) // 8 for length in lengths]) + visible - sum(lengths)
