"""How many threads a small model is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Widths below which one thread is as fast as several on a CPU. Threads meet after every
#: operation, and where anything else runs they wait for each other: reading 4,400 texts of 40
#: tokens with three blocks of width 64 took 3 s with one thread and 127 s with two on two busy
#: cores.
_NARROW = 512


@contextmanager
def threads_for(d_model: int, device: torch.device) -> Iterator[None]:
    """One thread while a narrow model runs on the CPU; else as many as there were."""
    before = torch.get_num_threads()
    if device.type != "cpu" or d_model >= _NARROW or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
