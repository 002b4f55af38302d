"""Watching concepts: words or phrases that a user cares about, whatever the taxonomy says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nla_audit.errors import UserError
from nla_audit.text.words import stem, words


@dataclass(frozen=True)
class Concept:
    """A concept is mentioned when any of its phrases is, up to inflection and case."""

    name: str
    phrases: tuple[tuple[str, ...], ...]

    def mentioned_in(self, stems: Sequence[str]) -> bool:
        """Whether any phrase stands in the stems of a text as one run."""
        return any(
            phrase[0] in stems
            and any(
                tuple(stems[place : place + len(phrase)]) == phrase
                for place in range(len(stems) - len(phrase) + 1)
            )
            for phrase in self.phrases
        )


def all_stems(text: str) -> list[str]:
    """Stems of all words of a text, function words included (phrases may hold them)."""
    return [stem(word) for word in words(text)]


def parse_concept(description: str) -> Concept:
    """``"name=phrase|phrase"`` or just ``"phrase|phrase"``.

    Raises:
        UserError: when there is no word in it.
    """
    name, separator, body = description.partition("=")
    phrases = tuple(tuple(all_stems(phrase)) for phrase in (body if separator else name).split("|"))
    phrases = tuple(phrase for phrase in phrases if phrase)
    if not phrases:
        raise UserError(
            f"--watch '{description}' holds no word; write e.g. --watch 'evaluation awareness' or "
            "--watch 'eval=being tested|evaluation'"
        )
    return Concept(name.strip(), phrases)
