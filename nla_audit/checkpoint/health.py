"""The health of weights: what is not finite, absurdly large, or dead.

One published AR head holds 12 % NaN or huge weights from a sharded save (docs/failures.md); such a
checkpoint loads without a murmur and scores everything as NaN, or worse, as a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

#: No weight of a model that works is this large: norms of Gemma reach the hundreds, bytes read
#: as the wrong type are around 1e30.
ABSURD_WEIGHT = 1e5
#: A head starts as the identity and moves little; entries stay near 1 or far below.
ABSURD_HEAD_WEIGHT = 100.0


@dataclass
class WeightHealth:
    """What a scan of tensors found.

    Attributes:
        tensors: how many.
        parameters: numbers in them.
        dtypes: their types, most numbers first.
        largest: the largest finite magnitude.
        non_finite: tensor → how many of its numbers are NaN or infinite.
        absurd: tensor → its largest magnitude, where above :data:`ABSURD_WEIGHT`.
    """

    tensors: int = 0
    parameters: int = 0
    largest: float = 0.0
    non_finite: dict[str, int] = field(default_factory=dict)
    absurd: dict[str, float] = field(default_factory=dict)
    _dtypes: dict[str, int] = field(default_factory=dict)

    @property
    def dtypes(self) -> list[str]:
        return sorted(self._dtypes, key=lambda name: -self._dtypes[name])

    def problem(self) -> str | None:
        """What cannot be right, ``None`` if nothing."""
        if self.non_finite:
            name, number = next(iter(self.non_finite.items()))
            return (
                f"{len(self.non_finite)} of {self.tensors} weight tensors hold NaN or infinity "
                f"(first {name}: {number:,} numbers); fetch or save the checkpoint again"
            )
        if self.absurd:
            name, magnitude = next(iter(self.absurd.items()))
            return (
                f"{len(self.absurd)} of {self.tensors} weight tensors hold absurd magnitudes "
                f"(first {name}: {magnitude:.3g}); fetch or save the checkpoint again"
            )
        return None


@torch.inference_mode()
def scan(tensors: Iterable[tuple[str, torch.Tensor]]) -> WeightHealth:
    """Look at every number of floating tensors, one tensor at a time."""
    health = WeightHealth()
    for name, tensor in tensors:
        health.tensors += 1
        health.parameters += tensor.numel()
        kind = str(tensor.dtype).removeprefix("torch.")
        health._dtypes[kind] = health._dtypes.get(kind, 0) + tensor.numel()
        if not tensor.is_floating_point() or tensor.is_meta or tensor.numel() == 0:
            continue
        values = tensor if tensor.element_size() > 1 else tensor.float()  # 8-bit floats cannot
        low, high = (float(limit) for limit in torch.aminmax(values))
        magnitude = max(abs(low), abs(high))
        if not magnitude < float("inf"):  # aminmax hands NaN on
            is_finite = torch.isfinite(values)
            health.non_finite[name] = int((~is_finite).sum())
            magnitude = float(values[is_finite].abs().max()) if is_finite.any() else 0.0
        if magnitude > ABSURD_WEIGHT:
            health.absurd[name] = magnitude
        health.largest = max(health.largest, magnitude)
    return health


@dataclass(frozen=True)
class HeadHealth:
    """What an AR's head ``[d_model, d_model]`` looks like.

    Attributes:
        non_finite: share of its weights that are NaN or infinite.
        absurd: share of its weights above :data:`ABSURD_HEAD_WEIGHT` in magnitude.
        largest: the largest finite magnitude.
        dead_rows: rows that are all zero, so that their output never moves.
        from_identity: ‖H − I‖ / ‖I‖ over its finite weights; 0 is untrained. ``None`` where the
            head is not square.
    """

    non_finite: float
    absurd: float
    largest: float
    dead_rows: int
    from_identity: float | None

    def problem(self) -> str | None:
        """What cannot be right, ``None`` if nothing."""
        if self.non_finite or self.absurd:
            return (
                f"{self.non_finite:.2%} of the head's weights are NaN or infinite and "
                f"{self.absurd:.2%} above {ABSURD_HEAD_WEIGHT:g}; the head was saved wrongly, "
                "take another copy"
            )
        return None

    def oddity(self) -> str | None:
        """What is worth knowing but may be meant."""
        if self.dead_rows:
            return f"{self.dead_rows} rows of the head are all zero"
        return None


@torch.inference_mode()
def head_health(head: torch.Tensor) -> HeadHealth:
    """Measure a head."""
    weights = head.detach().float().cpu()
    is_finite = torch.isfinite(weights)
    finite = torch.where(is_finite, weights, torch.zeros_like(weights))
    from_identity = None
    if weights.ndim == 2 and weights.shape[0] == weights.shape[1]:
        distance = torch.where(is_finite, weights - torch.eye(len(weights)), 0.0)
        from_identity = float(distance.double().norm() / len(weights) ** 0.5)
    return HeadHealth(
        non_finite=float((~is_finite).double().mean()),
        absurd=float((finite.abs() > ABSURD_HEAD_WEIGHT).double().mean()),
        largest=float(finite.abs().max()),
        dead_rows=int((weights == 0).all(dim=-1).sum()),
        from_identity=from_identity,
    )
