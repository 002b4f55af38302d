"""A direction planted into activations at a known strength, their norms kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nla_audit.errors import UserError
from nla_audit.nla.fve import scaled

Floats = NDArray[np.float64]

#: Strengths that are planted where none are given, as shares of an activation's norm.
LADDER = (0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class Planted:
    """Activations after planting.

    Attributes:
        vectors: ``[n, d_model]``, each as long as before.
        before: ``[n]`` cosine of each with its direction before.
        gained: ``[n]`` by how much planting raised it.
    """

    vectors: Floats
    before: Floats
    gained: Floats


def plant(vectors: Floats, directions: Floats, strength: Floats) -> Planted:
    """``x ↦ ‖x‖ · (x + s‖x‖u) / ‖x + s‖x‖u‖``.

    Args:
        vectors: ``[n, d_model]``.
        directions: ``[n, d_model]`` of length 1.
        strength: ``[n]``, 0 or more: the share ``s`` of the activation's norm.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / norms
    moved = scaled(units + strength[:, None] * directions, 1.0)
    before = (units * directions).sum(axis=1)
    after = (moved * directions).sum(axis=1)
    return Planted(np.asarray(moved * norms), before, after - before)


def ladder_of(text: str) -> tuple[float, ...]:
    """``"0.1,0.2,0.4"`` as ascending strengths.

    Raises:
        UserError: no numbers, or one that is not above 0.
    """
    try:
        strengths = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        strengths = []
    if not strengths or not all(0 < one < np.inf for one in strengths):
        raise UserError(
            f"--strengths {text}: write numbers above 0 with commas, such as 0.1,0.2,0.4: shares "
            "of an activation's norm"
        )
    return tuple(strengths)
