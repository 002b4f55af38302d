"""The sentence of the world's benchmark of thresholds, on numbers made up for it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from tests.benchmark_module import benchmark_module

PENALTIES = {"p0.1": 0.1, "p0.0": 0.0, "p0.01": 0.01}


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """``benchmarks/sensitivity_world.py`` as a module."""
    with benchmark_module("sensitivity_world") as module:
        yield module


def told(
    benchmark: ModuleType,
    levels: dict[str, tuple[float, float]],
    lost: tuple[str, ...],
    silent: tuple[str, ...] = (),
) -> str:
    """Two facts or more, all lost at λ = 0.1, some already at 0.01, some never said."""
    named = {}
    for fact in levels:
        for model in PENALTIES:
            is_said = fact not in silent and model != "p0.1"
            right = 0.5 if is_said and not (model == "p0.01" and fact in lost) else 0.05
            named[model, fact] = benchmark.NamedRightly(right, right - 0.05, right + 0.05, 0.1)
    return benchmark.order_told(
        PENALTIES,
        named,
        {fact: benchmark.Level(low, high, f"{low}") for fact, (low, high) in levels.items()},
    )


@pytest.mark.parametrize(
    ("tone", "sentence"),
    [
        ((0.6, 0.8), "What goes first has the highest thresholds."),
        ((0.8, np.inf), "What goes first has the highest thresholds."),
        ((0.1, 0.2), "What goes first does not have the highest thresholds."),
        ((0.4, 0.7), "Whether what goes first has the highest thresholds cannot be told."),
    ],
)
def test_what_goes_first(benchmark: ModuleType, tone: tuple[float, float], sentence: str) -> None:
    found = told(benchmark, {"tone": tone, "time": (0.3, 0.5)}, lost=("tone",))
    assert found.endswith(sentence)
    assert f"p0.01: it drops tone (α50 {tone[0]}) and keeps time (α50 0.3)" in found


def test_a_penalty_that_drops_all_tells_no_order(benchmark: ModuleType) -> None:
    levels = {"tone": (0.6, 0.8), "time": (0.3, 0.5)}
    assert "cannot be told" in told(benchmark, levels, lost=("tone", "time"))
    assert "that of p0.1" in told(benchmark, levels, lost=())


def test_what_was_never_said_is_not_dropped(benchmark: ModuleType) -> None:
    levels = {"tone": (0.6, 0.8), "time": (0.3, 0.5), "speaker": (0.9, np.inf)}
    found = told(benchmark, levels, lost=("tone",), silent=("speaker",))
    assert found.startswith("Not said by p0.0 of itself: speaker")
    assert "drops tone (α50 0.6) and keeps time" in found
