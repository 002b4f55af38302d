"""Whether what an explanation quotes or names stands in the source text."""

from __future__ import annotations

from functools import cached_property, lru_cache

from nla_audit.text.items import named_entities
from nla_audit.text.numerals import forms
from nla_audit.text.peoples import folded, without_stops
from nla_audit.text.said_items import SaidItems
from nla_audit.text.words import words


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
        if self.holds(spoken(name)):
            return True
        plain = without_stops(name)
        said = words(plain)
        parts = folded(said, said if plain.isupper() else ())
        if f" {' '.join(parts)} " in self._folded:
            return True
        if len(said) == 1 and plain.isupper():
            return self._items.spells_out(said[0])
        return "".join(word[0] for word in said) in self._items.acronyms or any(
            " ".join(parts[:cut]) in self._ends and " ".join(parts[cut:]) in self._beginnings
            for cut in range(1, len(parts))
        )

    def holds_number(self, number: str) -> bool:
        """Whether a number as written stands here, grouped in another way or spelt or not."""
        if self.holds(spoken(number)):
            return True
        several = forms(number)
        # The parts of a date or a fraction may stand anywhere.
        return len(several) == 1 and not self._items.digits.isdisjoint(several[0])

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
