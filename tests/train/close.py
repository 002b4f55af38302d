"""Records of metrics that are equal but for rounding."""

from __future__ import annotations


def close(first, second):
    """Equal but for rounding, at every depth."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[k], second[k]) for k in first)
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= 1e-5 * max(1.0, abs(first))
    return first == second
