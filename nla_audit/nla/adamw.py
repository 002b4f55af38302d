"""The optimiser of everything that is trained here."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

#: Kinds of devices on which torch updates a weight and both of its averages in one pass.
_FUSED_ON = frozenset({"cpu", "cuda"})


def adamw(
    parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW, which reads and writes weights once a step wherever torch can do so.

    Its state has the same names and meaning either way, so that one saved by the other is gone on
    from; but for where the count of steps lies (:func:`place_of_count`).
    """
    trained = list(parameters)
    # One pass takes either whole weights or divided ones, and an AR in shares has a whole head.
    fused = (
        all(one.device.type in _FUSED_ON for one in trained)
        and len({type(one.data) for one in trained}) == 1
    )
    return torch.optim.AdamW(
        # None, and not False, leaves the choice among the others to torch.
        trained,
        lr=learning_rate,
        weight_decay=weight_decay,
        fused=True if fused else None,
    )


def place_of_count(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> torch.device:
    """Where ``optimizer`` wants the count of steps of ``parameter``."""
    is_fused = optimizer.param_groups[0].get("fused")
    return parameter.device if is_fused else torch.device("cpu")
