"""Watching concepts: words or phrases that a user cares about, whatever the taxonomy says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nla_audit.errors import UserError
from nla_audit.text.words import stem, word_spans, words


@dataclass(frozen=True)
class Concept:
    """A concept is mentioned when any of its phrases is, up to inflection and case."""

    name: str
    phrases: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, name: str, phrases: Iterable[str]) -> Concept:
        """A concept by its phrases, as people write them; those without a word are left out."""
        stems = (tuple(all_stems(phrase)) for phrase in phrases)
        return cls(name, tuple(phrase for phrase in stems if phrase))

    def first_in(self, text: str) -> int | None:
        """Where in ``text`` the first of its phrases begins, in characters; ``None``: nowhere."""
        stems = all_stems(text)
        starts = [start for start, _ in word_spans(text)]
        if len(starts) != len(stems):  # characters that are several words in one encoding only
            return 0 if self.mentioned_in(stems) else None
        for place in range(len(stems)):
            if any(tuple(stems[place : place + len(one)]) == one for one in self.phrases):
                return starts[place]
        return None

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


def parse_concept(description: str, option: str = "--watch") -> Concept:
    """``"name=phrase|phrase"`` or just ``"phrase|phrase"``, as ``option`` was given it.

    Raises:
        UserError: when there is no word in it.
    """
    name, separator, body = description.partition("=")
    concept = Concept.of(name.strip(), (body if separator else name).split("|"))
    if not concept.phrases:
        raise UserError(
            f"{option} '{description}' holds no word; write e.g. {option} 'evaluation awareness' "
            f"or {option} 'eval=being tested|evaluation'"
        )
    return concept
