"""How far apart two ways to compute the same may be before one of them is wrong."""

from __future__ import annotations

import torch


def has_32_bits(dtype: torch.dtype) -> bool:
    """Whether numbers have 32 bits or more."""
    return dtype in (torch.float32, torch.float64)


def rounding_of(dtype: torch.dtype) -> float:
    """Relative distance (L2) that rounding explains; what is wrong is off by the order of 1."""
    return 1e-3 if has_32_bits(dtype) else 0.1
