"""What is planted into which activation, and how strongly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nla_audit.probes.sensitivity.controls import (
    CONCEPT,
    DIRECTIONS,
    OTHER,
    RANDOM,
    VARIANCE,
    at_right_angle,
    random_directions,
    variance_directions,
)
from nla_audit.probes.sensitivity.directions import Direction
from nla_audit.probes.sensitivity.planting import Planted, plant
from nla_audit.stats import derangement

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One text to ask for: activation ``row`` with a direction of ``kind`` at ``strength``."""

    row: int
    kind: str
    strength: float


@dataclass(frozen=True)
class Design:
    """The activations, the directions of each kind, the strengths.

    Attributes:
        vectors: ``[n, d_model]`` activations as the pair reads them, not planted.
        directions: kind → ``[directions, d_model]`` of length 1; activation ``i`` gets the one
            of number ``i`` modulo their number.
        names: kind → their names.
        strengths: ascending, without 0.
        partner: ``[n]`` another activation of each, of another document where they are known; −1
            where there is none.
        share: of the variance of the activations along the concept.
    """

    vectors: Floats
    directions: dict[str, Floats]
    names: dict[str, list[str]]
    strengths: tuple[float, ...]
    partner: NDArray[np.int64]
    share: float

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of directions that are planted."""
        return tuple(self.directions)

    def cells_of(self, rows: Sequence[int]) -> list[Cell]:
        """All texts of some activations, the unplanted one (strength 0) once for every kind."""
        return [
            Cell(row, kind, strength)
            for row in rows
            for kind in self.kinds
            for strength in (0.0, *self.strengths)
        ]

    def planted(self, cells: Sequence[Cell], *, elsewhere: bool = False) -> Planted:
        """The activations of ``cells`` after planting; of their partners if ``elsewhere``."""
        rows = np.array([cell.row for cell in cells])
        rows = self.partner[rows] if elsewhere else rows
        directions = np.stack(
            [self.direction(cell.kind, row) for cell, row in zip(cells, rows, strict=True)]
        )
        return plant(self.vectors[rows], directions, np.array([cell.strength for cell in cells]))

    def direction(self, kind: str, row: int) -> Floats:
        """What is planted into activation ``row``."""
        return self.directions[kind][row % len(self.directions[kind])]

    def name(self, kind: str, row: int) -> str:
        """What the direction is called."""
        return self.names[kind][row % len(self.names[kind])]

    def digest(self) -> str:
        """Hash of all that is planted."""
        found = hashlib.sha256(repr((self.strengths, self.names)).encode())
        for kind in self.kinds:
            found.update(self.directions[kind].tobytes())
        found.update(self.vectors.tobytes())
        found.update(self.partner.tobytes())
        return found.hexdigest()


def design(
    concept: Direction,
    vectors: Floats,
    strengths: Sequence[float],
    *,
    clusters: Sequence[object],
    background: Floats | None = None,
    other: Direction | None = None,
    seed: int = 0,
) -> Design:
    """The concept and its controls.

    Args:
        concept: what is planted.
        vectors: ``[n, d_model]`` activations.
        strengths: ascending, without 0.
        clusters: ``[n]`` documents, or the activations themselves where these are not known.
        background: ``[m, d_model]`` activations whose covariance random directions are drawn from;
            ``vectors``, if there are no others.
        other: another concept; its component along ``concept`` is taken out.
        seed: of the random directions.
    """
    background = vectors if background is None else background
    variance, share = variance_directions(concept.vector, background, DIRECTIONS, seed)
    directions = {
        CONCEPT: concept.vector[None],
        RANDOM: random_directions(concept.vector, DIRECTIONS, seed),
        VARIANCE: variance,
    }
    names = {
        CONCEPT: [concept.name],
        RANDOM: [f"random {number}" for number in range(DIRECTIONS)],
        VARIANCE: [f"of equal variance {number}" for number in range(DIRECTIONS)],
    }
    if other is not None:
        directions[OTHER] = at_right_angle(other.vector, concept.vector)[None]
        names[OTHER] = [other.name]
    partner = derangement(np.array([str(one) for one in clusters]), seed)
    return Design(vectors, directions, names, tuple(strengths), partner, share)
