"""Whether what an explanation quotes or names stands in the source text."""

from __future__ import annotations

from functools import cached_property

from nla_audit.text.items import named_entities
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

    def holds_name(self, span: str) -> bool:
        """Whether a name stands here, or two names that the explanation runs together.

        Without a mark between them ("mentions Ada Holm Leeds") two names look like one. The first
        must end a name of the source then, and the second begin one: "Ada Leeds" of a source that
        speaks of "Ada Holm" and "Leeds" is neither.
        """
        if self.holds(span):
            return True
        name = span.split()
        return any(
            " ".join(name[:cut]) in self._ends and " ".join(name[cut:]) in self._beginnings
            for cut in range(1, len(name))
        )

    @cached_property
    def _names(self) -> list[list[str]]:
        return [words(item.text) for item in named_entities(self._text)]

    @cached_property
    def _ends(self) -> set[str]:
        return {" ".join(name[start:]) for name in self._names for start in range(len(name))}

    @cached_property
    def _beginnings(self) -> set[str]:
        return {" ".join(name[: end + 1]) for name in self._names for end in range(len(name))}


def spoken(span: str) -> str:
    """The words of ``span`` as :class:`SourceText` holds them: lower case, single spaces."""
    joined = " ".join(words(span))
    return f" {joined} " if joined else ""
