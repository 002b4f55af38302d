"""How long work tells of how far it is."""

from __future__ import annotations

from collections.abc import Callable

#: Told of progress: the stage in words, units done (those of a former run included), all units.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """A :data:`Progress` that tells nobody."""
