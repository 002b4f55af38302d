"""Rows of whatever a step holds: put behind each other, or taken by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


def joined(parts: Sequence[Any]) -> Any:
    """Things of one kind, the rows of one behind those of the other, whatever is in them."""
    first: Any = parts[0]
    kind: Any = type(first)
    if is_dataclass(first):
        names = [field.name for field in fields(first)]
        return kind(**{n: joined([getattr(part, n) for part in parts]) for n in names})
    if isinstance(first, Mapping):
        return {name: joined([part[name] for part in parts]) for name in first}
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    return None if first is None else [item for part in parts for item in part]


def taken(whole: Any, rows: npt.NDArray[np.int64]) -> Any:
    """The rows of ``whole`` at these places, whatever is in it."""
    kind: Any = type(whole)
    if is_dataclass(whole):
        names = [field.name for field in fields(whole)]
        return kind(**{name: taken(getattr(whole, name), rows) for name in names})
    if isinstance(whole, Mapping):
        return {name: taken(inner, rows) for name, inner in whole.items()}
    if isinstance(whole, np.ndarray):
        return whole[rows]
    return None if whole is None else [whole[row] for row in rows]
