"""Numbers by their digits: grouped or not, scaled ("1.2 million") or spelt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from nla_audit.text.items import numbers

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
_LARGE = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALES = {**_LARGE, "k": 10**3, "m": 10**6, "bn": 10**9}
#: What numbers are spelt with.
NUMBER_WORDS = frozenset([*_SPELT, *_LARGE, "hundred"])
_NUMBER_WORD = "|".join(sorted(NUMBER_WORDS, key=lambda word: (-len(word), word)))
_NUMBER_WORDS = re.compile(
    rf"\b(?:an? )?(?:{_NUMBER_WORD})(?:(?:[ -]and)?[ -](?:{_NUMBER_WORD}))*\b"
)
#: Nothing is given back, or a text of digits alone would take time by the square of its length.
#: Each pattern begins with a digit and only then looks behind it: the search skips to the next one.
_DIGITS = r"[0-9](?<![0-9.,].)[0-9.,]*+"
_SCALE = rf"(?:{'|'.join(_LARGE)}|bn|[km])\b"
_SCALED = re.compile(rf"(?P<number>{_DIGITS})[\s-]?(?P<scale>{_SCALE})", re.IGNORECASE)
_AT_LETTERS = re.compile(r"[0-9](?:(?<=[^\W\d_].)[0-9.,]*+|(?<![0-9.,].)[0-9.,]*+(?=[^\W\d_]))")
_ANY_DIGIT = re.compile("[0-9]")
_ORDINAL = re.compile(r"([0-9](?<![0-9.,].)[0-9]*+)(?:st|nd|rd|th)\b")
#: In the one way of writing and in the other.
_GROUPED = tuple(
    re.compile(rf"(?P<whole>[1-9][0-9]{{0,2}}(?:{group}[0-9]{{3}})+)(?:{mark}(?P<rest>[0-9]+))?")
    for group, mark in ((",", r"\."), (r"\.", ","))
)
_GROUPED_BY_BLANKS = re.compile(
    r"[1-9](?<![\w.,].)[0-9]{0,2}(?:[ \u00a0\u202f][0-9]{3})+(?![\w.,])"
)
_BARE_FRACTION = re.compile(r"(?<![\w.)\]])\.(?=[0-9])")
_MONTHS = (
    "january february march april may june july august september october november december"
).split()
_MONTH_NUMBERS = {month[:3]: str(number) for number, month in enumerate(_MONTHS, start=1)}
_MONTH_NAME = rf"(?:{'|'.join(map(str.capitalize, [*_MONTHS, *_MONTH_NUMBERS, 'sept']))})\b"
#: Looked for first: the pattern is slow.
_MONTH_BEGINNINGS = tuple(map(str.capitalize, _MONTH_NUMBERS))
#: Beside a day or a year.
_MONTH = re.compile(
    rf"[0-9](?:st|nd|rd|th)?\.? (?:of )?({_MONTH_NAME})|\b({_MONTH_NAME})(?=\.?,? [0-9])"
)
_DATE = re.compile(r"[0-9](?<![\w./-].)[0-9]{0,3}[-/.][0-9]{1,2}(?:[-/.][0-9]{1,4})?(?![\w/-])")
_NOT_IN_A_NUMBER = re.compile(r"[^0-9.,]")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_FRACTION_OF_THOUSANDS = re.compile(r"[0-9]{1,3}\.[0-9]{3}")


def forms(number: str) -> list[tuple[str, ...]]:
    """The digits of a number, of two where they stand over each other ("9/16", "6:45").

    Each is told in every way that it may be meant: "5.829" is five and a fraction, and five
    thousand in other countries. A decimal mark is a full stop and ends in no zero.
    """
    parts = (_NOT_IN_A_NUMBER.sub("", part).strip(".,") for part in re.split("[/:]", number))
    return [_forms(part) for part in parts if part]


def _forms(bare: str) -> tuple[str, ...]:
    found = []
    for grouped in _GROUPED:
        if match := grouped.fullmatch(bare):
            found.append(re.sub("[.,]", "", match["whole"]) + _fraction(match["rest"] or ""))
    if bare.count(",") + bare.count(".") == 1 and not _GROUPED[0].fullmatch(bare):
        whole, rest = re.split("[.,]", bare)
        found.append(whole + _fraction(rest))
    if not found and bare.startswith("0") and bare.isdecimal():  # the first of a month
        found = [bare, bare.lstrip("0") or "0"]
    return tuple(found) or (bare,)


def _fraction(digits: str) -> str:
    digits = digits.rstrip("0")
    return f".{digits}" if digits else ""


def scaled(text: str, start: int) -> tuple[str, ...]:
    """The digits in full of a number from ``start`` on that a scale follows ("1.2 million").

    A single letter may be another unit: "5 m" is five, or five million.
    """
    first = next((place for place in range(start, len(text)) if text[place].isdigit()), None)
    match = None if first is None else _SCALED.match(text, first)
    if match is None:
        return ()
    full = tuple(_in_full(match))
    return full if match["scale"].lower() in _LARGE else (*full, *_plainly(match["number"]))


def _in_full(match: re.Match[str]) -> Iterator[str]:
    bare = match["number"].strip(".,")
    # Nobody writes "1.125 million" for 1,125 of them.
    plain = bare if _FRACTION_OF_THOUSANDS.fullmatch(bare) else next(iter(_plainly(bare)), "")
    if _DECIMAL.fullmatch(plain):
        yield f"{float(plain) * _SCALES[match['scale'].lower()]:.0f}"


def _plainly(number: str) -> Iterator[str]:
    for form in forms(number):
        yield from form


def with_zeros(text: str) -> str:
    """``text`` with ".003" as "0.003"."""
    return _BARE_FRACTION.sub("0.", text) if "." in text else text


def all_digits(text: str, said: Iterable[str]) -> frozenset[str]:
    """The digits of all numbers of a text: of grouped, scaled and spelt ones, and beside letters.

    And of the groups of each: where "5,829" has become "5 829", both are found.

    Args:
        said: the text's words.
    """
    found: set[str] = set()
    if _ANY_DIGIT.search(text):
        for number in (*(item.text for item in numbers(text)), *_AT_LETTERS.findall(text)):
            found.update(_plainly(number))
            found.update(re.findall("[0-9]+", number))
        found.update(re.sub(r"\D", "", group) for group in _GROUPED_BY_BLANKS.findall(text))
        for match in _SCALED.finditer(text):
            found.update(_in_full(match))
        found.update(_ORDINAL.findall(text))
        if any(map(text.__contains__, _MONTH_BEGINNINGS)):
            found.update(map(_month_of, _MONTH.finditer(text)))
    if not NUMBER_WORDS.isdisjoint(said):
        for match in _NUMBER_WORDS.finditer(text.lower()):
            found.update(map(str, _spelt(match.group().replace("-", " ").split())))
    return frozenset(found)


def _month_of(match: re.Match[str]) -> str:
    return _MONTH_NUMBERS[(match[1] or match[2])[:3].lower()]


def months_of_dates(text: str) -> frozenset[str]:
    """The months, in lower case, that dates in digits may name: "3/4/1916" March or April."""
    parts = {int(part) for date in _DATE.findall(text) for part in re.split("[-/.]", date)}
    return frozenset(_MONTHS[part - 1] for part in parts if 1 <= part <= len(_MONTHS))


def _spelt(run: Sequence[str]) -> Iterator[int]:
    """The numbers of a run of number words: "a hundred and two hundred" are 2, 100 and 200."""
    whole, after, scale = 0, 0, 10**15  # whole thousands, what follows them, the last thousands
    last, before = "", 0
    for word in run:
        number = _SPELT.get(word)
        if number is not None:
            yield number
            within = (after % 100 == 0 and after > 0) or (
                after % 10 == 0 and after % 100 >= 20 and 0 < number < 10 and last != "and"
            )
            if after and not within:
                yield whole + after
                whole, after, scale = 0, 0, 10**15
            before, after = after, after + number
        elif word == "hundred":
            if after >= 100:
                yield whole + before
                whole, after, scale = 0, after - before, 10**15
            after = 100 * (after or int(last in ("a", "an")))
        elif word in _LARGE:
            after = after or int(last in ("a", "an"))
            if _LARGE[word] >= scale and after:
                yield whole
                whole = 0
            whole, scale, after = whole + after * _LARGE[word], _LARGE[word], 0
        elif word == "and" and last not in ("hundred", *_LARGE):
            yield whole + after
            whole, after, scale = 0, 0, 10**15
        last = word
    if whole + after:
        yield whole + after
