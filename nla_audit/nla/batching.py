"""Batches that fit: by a budget of tokens, and halved when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Tells the user something that does not stop the work (a halved batch).
Notice = Callable[[str], None]


def by_token_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group positions of ``lengths`` so that rows × longest row stays within ``budget`` tokens.

    Positions are sorted by length (longest first, so that memory runs out at once if it does),
    so that rows of a group are of nearly equal length and little is padded.
    """
    order = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    groups: list[list[int]] = []
    for place in order:
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= budget:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def distinct_rows(
    vectors: torch.Tensor,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each distinct row of ``[n, d]`` stands first, and which of them every row is."""
    seen: dict[bytes, int] = {}
    rows = vectors.detach().cpu().numpy()
    place = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in rows], dtype=np.int64)
    return np.unique(place, return_index=True)[1], place


def halving(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Result], notice: Notice
) -> list[Result]:
    """``work(items)``, in ever smaller parts for as long as memory runs out.

    Returns:
        The results of the parts, in order.

    Raises:
        UserError: memory runs out on a single item.
    """
    try:
        return [work(items)]
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise UserError(
                "out of memory on a single row; use a smaller dtype, fewer tokens, or more memory"
            ) from None
    # Outside the handler: the traceback would keep the failed attempt's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(items) // 2
    notice(f"out of memory with {len(items)} rows in a batch; going on with {len(items) - half}")
    return [*halving(items[:half], work, notice), *halving(items[half:], work, notice)]
