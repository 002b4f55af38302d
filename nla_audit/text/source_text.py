"""Whether what an explanation quotes or names stands in the source text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from nla_audit.text.items import named_entities
from nla_audit.text.numerals import forms
from nla_audit.text.peoples import each_folded, folded, without_stops
from nla_audit.text.said_items import SaidItems
from nla_audit.text.words import words

#: Names and numbers that are kept as they are looked up: other models' texts say them too.
_KEPT = 1 << 15


class SourceText:
    """A source text, normalised once for many look-ups."""

    def __init__(self, text: str):
        self._text = without_stops(text)
        self._joined = f" {' '.join(words(text))} "

    def holds(self, span: str) -> bool:
        """Whether the words of ``span`` (from :func:`spoken`) stand here in this order, whole.

        A span without any word is held by every source.
        """
        return span in self._joined

    def holds_name(self, name: str) -> bool:
        """Whether a name as written stands here, or two names that the explanation runs together.

        Without a mark between them ("mentions Ada Holm Leeds") two names look like one. The first
        must end a name of the source then, and the second begin one: "Ada Leeds" of a source that
        speaks of "Ada Holm" and "Leeds" is neither. "Holm's" is Holm. A word is held by its
        country's name too ("Danish"), and initials and what they begin hold each other ("NSW").
        """
        sought = _name(name)
        if self.holds(sought.spoken) or sought.folded in self._folded:
            return True
        if sought.acronym is not None:
            return self._items.spells_out(sought.acronym)
        return sought.initials in self._items.acronyms or self._holds_two(sought.parts)

    def holds_number(self, number: str) -> bool:
        """Whether a number as written stands here, grouped in another way or spelt or not."""
        words_of_it, digits = _number(number)
        if self.holds(words_of_it):
            return True
        # The parts of a date or a fraction may stand anywhere.
        return len(digits) == 1 and not self._items.digits.isdisjoint(digits[0])

    def _holds_two(self, parts: Sequence[str]) -> bool:
        """Whether the first words end a name here, and the others begin one."""
        # Its names are told only where all of these words stand here at all.
        return all(part in self._said for part in parts) and any(
            " ".join(parts[:cut]) in self._ends and " ".join(parts[cut:]) in self._beginnings
            for cut in range(1, len(parts))
        )

    @cached_property
    def _said(self) -> set[str]:
        """Its words as they may stand in the names of :attr:`_ends`."""
        return {*each_folded(self._items.joined.split()), *self._folded.split()}

    @cached_property
    def _items(self) -> SaidItems:
        return SaidItems(self._text)

    @cached_property
    def _folded(self) -> str:
        return f" {' '.join(folded(self._items.joined.split(), self._items.acronyms))} "

    @cached_property
    def _names(self) -> list[list[str]]:
        return [folded(words(item.text)) for item in named_entities(self._text)]

    @cached_property
    def _ends(self) -> set[str]:
        return {" ".join(name[start:]) for name in self._names for start in range(len(name))}

    @cached_property
    def _beginnings(self) -> set[str]:
        return {" ".join(name[: end + 1]) for name in self._names for end in range(len(name))}


@lru_cache(maxsize=1 << 10)  # each is looked up in another source, too
def spoken(span: str) -> str:
    """The words of ``span`` as :class:`SourceText` holds them: lower case, single spaces."""
    joined = " ".join(words(span))
    return f" {joined} " if joined else ""


class _Name(NamedTuple):
    """What of a name is looked for.

    Attributes:
        spoken: the name as written, in the form of :func:`spoken`.
        parts: its words, as names are compared.
        folded: these in the form of :func:`spoken`.
        acronym: the name, where it is one word of capitals.
        initials: what its words begin with.
    """

    spoken: str
    parts: tuple[str, ...]
    folded: str
    acronym: str | None
    initials: str


@lru_cache(maxsize=_KEPT)
def _name(name: str) -> _Name:
    plain = without_stops(name)
    said = words(plain)
    parts = folded(said, said if plain.isupper() else ())
    return _Name(
        spoken(name),
        tuple(parts),
        f" {' '.join(parts)} ",
        said[0] if len(said) == 1 and plain.isupper() else None,
        "".join(word[0] for word in said),
    )


@lru_cache(maxsize=_KEPT)
def _number(number: str) -> tuple[str, list[tuple[str, ...]]]:
    """The words of a number, and its digits."""
    return spoken(number), forms(number)
