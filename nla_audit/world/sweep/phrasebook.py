"""The smallest unit of the planted vocabulary: a value in interchangeable forms.

Each :class:`Value` has ``long`` forms, used where a claim is stated at length, and ``short``
forms, used where it is said tersely. The first short form is cut down from a long one; the others
put the same thing in other words, so that rewording covers the whole range from a shortened copy
to a paraphrase without a word in common.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a fact, in interchangeable long and short forms."""

    long: tuple[str, ...]
    short: tuple[str, ...]


def options(text: str) -> tuple[str, ...]:
    """The options of a text that separates them by ``|``."""
    return tuple(option.strip() for option in text.split("|"))


def value(long: str, short: str) -> Value:
    """A value from forms separated by ``|``."""
    return Value(options(long), options(short))


def entries(text: str) -> list[list[str]]:
    """The entries of a list: each begins at a line that is not indented, and is the list of its
    lines."""
    found: list[list[str]] = []
    for line in text.strip().splitlines():
        if not line.startswith(" "):
            found.append([])
        found[-1].append(line.strip())
    return found
