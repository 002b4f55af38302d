"""Whether what an explanation quotes or names stands in the source text."""

from __future__ import annotations

from functools import cached_property

from nla_audit.text.items import named_entities
from nla_audit.text.said_items import acronyms, all_digits, digits, is_named, stems_of_names
from nla_audit.text.words import words


class SourceText:
    """A source text, normalised once for many look-ups."""

    def __init__(self, text: str):
        self._text = text
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
        country's name too ("Romanian"), and initials and what they begin hold each other ("NSW").
        """
        parts = [_owner(word) for word in words(name)]
        if self.holds(spoken(name)) or f" {' '.join(parts)} " in self._owners:
            return True
        if len(parts) == 1 and name.isupper() and self._spells_out(parts[0]):
            return True
        stems = stems_of_names(parts)
        if len(stems) == 1:
            return is_named(stems[0], self._stems)
        return "".join(part[0] for part in parts) in self._acronyms or any(
            " ".join(parts[:cut]) in self._ends and " ".join(parts[cut:]) in self._beginnings
            for cut in range(1, len(parts))
        )

    def holds_number(self, span: str) -> bool:
        """Whether a number as written stands here, grouped in another way or spelt or not."""
        return self.holds(spoken(span)) or self._digits.issuperset(digits(span))

    def _spells_out(self, acronym: str) -> bool:
        """Whether words of a name that stands here begin with the letters of ``acronym``."""
        return any(acronym in "".join(part[0] for part in name) for name in self._names)

    @cached_property
    def _owners(self) -> str:
        return f" {' '.join(map(_owner, self._joined.split()))} "

    @cached_property
    def _stems(self) -> frozenset[str]:
        return frozenset(stems_of_names(self._joined.split()))

    @cached_property
    def _acronyms(self) -> frozenset[str]:
        return acronyms(self._text)

    @cached_property
    def _digits(self) -> frozenset[str]:
        return all_digits(self._text)

    @cached_property
    def _names(self) -> list[list[str]]:
        return [[_owner(word) for word in words(item.text)] for item in named_entities(self._text)]

    @cached_property
    def _ends(self) -> set[str]:
        return {" ".join(name[start:]) for name in self._names for start in range(len(name))}

    @cached_property
    def _beginnings(self) -> set[str]:
        return {" ".join(name[: end + 1]) for name in self._names for end in range(len(name))}


def _owner(word: str) -> str:
    return word.removesuffix("'s").removesuffix("’s")


def spoken(span: str) -> str:
    """The words of ``span`` as :class:`SourceText` holds them: lower case, single spaces."""
    joined = " ".join(words(span))
    return f" {joined} " if joined else ""
