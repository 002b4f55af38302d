"""Which names, numbers and quoted spans of one text another text says, in whatever words.

They are looked for nearly to the letter: none of them may be paraphrased, and what stands beside
them may.

* A **name** stands where all its words do, titles apart, in any order and any case; where the
  letters that it begins with do, if either is written so ("CFO"); and where its people's name does,
  or its country's ("Romanian", "Danish"). In German, where every noun is capitalised, hardly a name
  can be told, and words made of names and numbers that are spelt are known in English alone.
* A **number** stands where its digits do, however they are grouped and whatever letters they are
  joined to ("FY2021"), or the word for it.
* A **quoted span** stands where its words do in this order, in quote marks or not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from nla_audit.text.items import TITLES, Item, items, numbers
from nla_audit.text.words import FUNCTION_WORDS, stem, words

SaidKind = Literal["quote", "entity", "number"]

#: Cardinals and ordinals, as words: up to twenty, and tens.
_CARDINALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_ORDINALS = (
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SPELT = {
    word: number for several in (_CARDINALS, _ORDINALS) for number, word in enumerate(several)
} | {
    word: ten
    for ten, tens in zip(range(20, 100, 10), _TENS, strict=True)
    for word in (tens, tens.removesuffix("y") + "ieth")
}
_SCALES = {
    **dict.fromkeys(("hundred",), 100),
    **dict.fromkeys(("thousand", "k"), 1_000),
    **dict.fromkeys(("million", "m"), 1_000_000),
    **dict.fromkeys(("billion", "bn"), 1_000_000_000),
}
#: Stems that are no part of a name: titles, also in full and of a council, and function words.
_UNNAMED = (
    TITLES
    | FUNCTION_WORDS
    | set("reverend professor saint doctor sir lord ladi cllr councillor".split())
)
#: What is called after a country by another word; the others only have an ending more.
_PEOPLES = """american usa, argentine argentina, belgian belgium, british britain uk, chinese china,
    danish denmark, dutch netherlands holland, english england, filipino philippines,
    finnish finland, french france, greek greece, icelandic iceland, irish ireland,
    norwegian norway, peruvian peru, polish poland, scottish scotland, spanish spain,
    swedish sweden, swiss switzerland, thai thailand, turkish turkey, welsh wales"""
_PEOPLE = {
    stem(word): stem(people)
    for people, *others in map(str.split, _PEOPLES.split(","))
    for word in others
}
_STATES = {"states": "american", "kingdom": "british"}
_UNITED = re.compile(r"\bunited (states|kingdom)\b")
#: By how much the stems of a country, its language and its people may differ.
_DEMONYM = ("n", "an", "ian", "i", "ish", "es")
_DIGIT = re.compile("[0-9]")
_JOINED_TO_LETTERS = re.compile(r"(?<=[^\W\d_])[0-9][0-9.,]*|[0-9][0-9.,]*(?=[^\W\d_])")
_SCALED = re.compile(r"(?P<number>[0-9][0-9.,]*)\s?(?P<scale>thousand|million|billion|bn|[kKmM])\b")
_ORDINAL = re.compile("([0-9]+)(?:st|nd|rd|th)")
_ACRONYM = re.compile(r"\b[A-Z]{2,6}\b")
#: An article or preposition that French and Italian run together with a name.
_ELISION = re.compile("^(?:[ld]|qu|(?:d|n|s)?[ae]ll)'(?=.)")
_ABBREVIATED = re.compile(r"\b(?=\w*[A-Z]\w*[A-Z])[A-Za-z]{2,6}\b")
_GROUPED = re.compile(r"[0-9]{1,3}(?:[.,][0-9]{3})+")
_GROUPED_BY_BLANKS = re.compile(r"(?<![\w.,])[0-9]{1,3}(?:[ \u00a0\u202f][0-9]{3})+(?![\w.,])")
_NOT_IN_A_NUMBER = re.compile(r"[^\d.,]")


class SaidItems:
    """The items of a text, and where another text's items are looked for in it.

    What stands inside a quoted span is part of the quote. Of many texts only little is asked, so
    each is found when it is.
    """

    def __init__(self, text: str):
        self._text = text
        self._words = words(text)
        #: Its words, each between two spaces.
        self.joined = f" {' '.join(self._words)} "

    @cached_property
    def names(self) -> frozenset[tuple[str, ...]]:
        """The stems of each name."""
        found = (
            tuple(word for word in stems_of_names(words(item.text)) if word not in _UNNAMED)
            for item in self._items
            if item.kind == "entity"
        )
        # A single letter ("Q&A") names nothing, and letters at a number ("412M") are a unit.
        return frozenset(
            name
            for name in found
            if max(map(len, name), default=0) > 1 and not _DIGIT.search("".join(name))
        )

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The digits of each number."""
        found = set()
        for item in self._items:
            if item.kind == "number":
                scaled = _SCALED.match(self._text, item.start)
                large = scaled is not None and len(scaled["scale"]) > 1
                found.update([_in_full(scaled)] if scaled and large else digits(item.text))
        return frozenset(found)

    @cached_property
    def quotes(self) -> frozenset[str]:
        """The words of each quoted span, between two spaces."""
        quoted = (words(item.text) for item in self._items if item.kind == "quote")
        # A mark alone ("—") is looked for by no word.
        return frozenset(f" {' '.join(said)} " for said in quoted if said)

    @cached_property
    def _items(self) -> list[Item]:
        return items(self._text)

    @cached_property
    def _stems(self) -> frozenset[str]:
        # "US" in small letters is a pronoun.
        states = [_STATES["states"]] if "us" in self._acronyms else []
        return frozenset([*stems_of_names(self._words), *states])

    @cached_property
    def _initials(self) -> str:
        return "".join(word[0] for word in self._words)

    @cached_property
    def _acronyms(self) -> frozenset[str]:
        return acronyms(self._text)

    @cached_property
    def _digits(self) -> frozenset[str]:
        return all_digits(self._text)

    def of(self, kind: SaidKind) -> frozenset[str] | frozenset[tuple[str, ...]]:
        """The text's items of a kind."""
        if kind == "entity":
            return self.names
        return self.numbers if kind == "number" else self.quotes

    def not_said_by(self, other: SaidItems, kind: SaidKind) -> Sequence[str | tuple[str, ...]]:
        """The text's items of a kind that ``other`` does not say."""
        if kind == "entity":
            return [name for name in self.names if not self._names(name, other)]
        if kind == "number":
            return list(self.numbers - other._digits)
        return [quote for quote in self.quotes if quote not in other.joined]

    def abbreviates(self, name: Sequence[str]) -> bool:
        """Whether a name of the text is an abbreviation ("ICU", "NaOH")."""
        return all(word in self._abbreviations for word in name)

    @cached_property
    def _abbreviations(self) -> frozenset[str]:
        return frozenset(word.lower() for word in _ABBREVIATED.findall(self._text))

    def _names(self, name: tuple[str, ...], other: SaidItems) -> bool:
        if len(name) > 1 and "".join(word[0] for word in name) in other._acronyms:
            return True
        return all(
            is_named(word, other._stems) or (word in self._acronyms and word in other._initials)
            for word in name
        )


def stems_of_names(said: Sequence[str]) -> list[str]:
    """Stems of words as names are compared by: of a people and its country the same."""
    joined = _UNITED.sub(lambda match: _STATES[match.group(1)], " ".join(said))
    found = (stem(_ELISION.sub("", word)) for word in joined.split())
    return [_PEOPLE.get(word, word) for word in found]


def is_named(word: str, stems: frozenset[str]) -> bool:
    """Whether a stem is among ``stems``, or a country's where its people's is ("Romanian")."""
    if word in stems:
        return True
    longer = any(word + ending in stems for ending in _DEMONYM)
    return longer or any(word.removesuffix(end) in stems for end in _DEMONYM if len(word) > 5)


def acronyms(text: str) -> frozenset[str]:
    """Words of two to six capitals, in lower case."""
    return frozenset(word.lower() for word in _ACRONYM.findall(text))


def digits(number: str) -> list[str]:
    """The digits of a number, of two where they stand over each other ("9/16", "6:45").

    Thousands are not grouped in them, and a decimal mark is a full stop: "$5,829.50" and "5829.5"
    have the same. "5,829" of a text that writes so for five and a fraction has those of "5829".
    """
    parts = (_plain(part) for part in re.split("[/:]", number))
    return [part for part in parts if part]


def _plain(number: str) -> str:
    bare = _NOT_IN_A_NUMBER.sub("", number).strip(".,")
    whole = _GROUPED.match(bare)
    if whole:
        bare = re.sub("[.,]", "", whole.group()) + bare[whole.end() :]
    bare = bare.replace(",", ".")
    return bare.rstrip("0").rstrip(".") if bare.count(".") == 1 else bare


def all_digits(text: str) -> frozenset[str]:
    """The digits of all numbers of a text, spelt ones too, whole and by their groups.

    By its groups "5,829" is also found where it has become "5 829".
    """
    found = {part for item in numbers(text) for part in (*digits(item.text), *words(item.text))}
    found |= {part for number in _JOINED_TO_LETTERS.findall(text) for part in digits(number)}
    found |= {re.sub(r"\D", "", group) for group in _GROUPED_BY_BLANKS.findall(text)}
    found |= {_in_full(match) for match in _SCALED.finditer(text)}
    return frozenset(found) | _spelt(words(text))


def _in_full(scaled: re.Match[str]) -> str:
    """The digits of "1.2 million"."""
    number = float("".join(digits(scaled["number"])[:1]) or 0)
    return f"{number * _SCALES[scaled['scale'].lower()]:.0f}"


def _spelt(spoken: Sequence[str]) -> set[str]:
    """The digits of numbers that are spelt, whole and by their parts, and of ordinals ("4th")."""
    found = {match.group(1) for word in spoken if (match := _ORDINAL.fullmatch(word))}
    #: Of a number of several words: its whole thousands, and what is counted after them.
    whole, after = 0, 0
    for word in spoken:
        if word in _SPELT:
            number = _SPELT[word]
            found.add(str(number))
            # "twenty one" and "hundred twelve" are one number, "nine ten" are two.
            fits = after % 100 == 0 or (after % 10 == 0 and after % 100 >= 20 and 0 < number < 10)
            whole, after = (whole, after + number) if fits else (0, number)
        elif word in _SCALES:
            scale = _SCALES[word]
            if scale == 100:
                after = max(after, 1) * scale
            else:
                whole, after = whole + max(after, 1) * scale, 0
        elif word != "and":
            whole, after = 0, 0
            continue
        found.add(str(whole + after))
    return found
