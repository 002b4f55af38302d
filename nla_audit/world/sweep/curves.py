"""Planted FVE by prefix: tables of which the mean curve of the population is known exactly.

Every activation's curve is its model's curve, read at the length of its own text where that is
shorter, plus what is hard about the activation (a heavy low tail, the same for all models) and a
wave of its own. Both have mean 0, so that the population's curve and all that is read off it
follow from the parameters; the truth is counted here, without the code that the analyzer uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

#: Shape and scale of what is hard about an activation; its mean bounds how easy one can be.
_HARD = (1.3, 0.18)
_WAVE = 0.05
#: Tokens of one wave, over 2π.
_WAVE_LENGTH = 6.0


@dataclass(frozen=True)
class PlantedCurve:
    """One model's FVE by prefix.

    Attributes:
        name: of the model.
        start: FVE of no text at all.
        ceiling: FVE that its texts approach.
        pace: tokens in which all but 1/e of the way is gone.
        turn: length from which on more text misleads; ``None`` never.
        loss: FVE lost from there to the longest text.
        lengths: of whole texts, in tokens, each as likely.
        length_penalty: λ, where it has one.
    """

    name: str
    start: float = -0.6
    ceiling: float = 0.66
    pace: float = 12.0
    turn: int | None = None
    loss: float = 0.0
    lengths: tuple[int, ...] = (60, 80, 100)
    length_penalty: float | None = None

    def at(self, length: float) -> float:
        """FVE after so many tokens of a text that is no shorter."""
        level = self.ceiling - (self.ceiling - self.start) * math.exp(-length / self.pace)
        if self.turn is not None and length > self.turn:
            level -= self.loss * (length - self.turn) / (max(self.lengths) - self.turn)
        return level

    def mean_at(self, length: int) -> float:
        """Population mean of FVE at a length; a shorter text is read whole."""
        return sum(self.at(min(length, whole)) for whole in self.lengths) / len(self.lengths)


@dataclass(frozen=True)
class PlantedCurves:
    """A table of FVE by prefix, and what is true of each model (as in the headline)."""

    table: pl.DataFrame
    truth: dict[str, dict[str, float | None]]


def plant_curves(
    curves: Sequence[PlantedCurve],
    *,
    activations: int,
    seed: int,
    noise: float = 1.0,
) -> PlantedCurves:
    """Draw activations, and each model's text of each, read at every length.

    Args:
        curves: the models.
        activations: how many.
        seed: of the draw.
        noise: what sets activations apart, as a share of what it is by default.
    """
    generator = np.random.default_rng([seed, 31])
    hard = generator.gamma(*_HARD, activations) - math.prod(_HARD)
    frames = []
    for curve in curves:
        whole = generator.choice(curve.lengths, activations)
        phase = generator.uniform(0, 2 * math.pi, activations)
        spread = generator.normal(1.0, 0.2, activations).clip(0.4, 1.6) / 1.6
        of = np.repeat(np.arange(activations), whole)
        lengths = np.concatenate([np.arange(1, last + 1) for last in whole])
        levels = np.array([curve.at(length) for length in range(max(curve.lengths) + 1)])
        weight = (0.4 + 0.6 * (1 - np.exp(-lengths / curve.pace))) * spread[of]
        wave = _WAVE * np.sin(lengths / _WAVE_LENGTH + phase[of])
        frames.append(
            pl.DataFrame(
                {
                    "model": [curve.name] * len(of),
                    "length_penalty": [curve.length_penalty] * len(of),
                    "idx": of,
                    "sample": [0] * len(of),
                    "unit": ["tokens"] * len(of),
                    "length": lengths,
                    "fve": levels[lengths] + noise * (wave - hard[of] * weight),
                },
                schema_overrides={"length_penalty": pl.Float64},
            )
        )
    return PlantedCurves(pl.concat(frames), {curve.name: truth_of(curve) for curve in curves})


def truth_of(curve: PlantedCurve) -> dict[str, float | None]:
    """What is true of a model, over the lengths up to its longest text."""
    longest = max(curve.lengths)
    levels = {length: curve.mean_at(length) for length in range(1, longest + 1)}
    full = levels[longest]

    def first(level: float) -> float | None:
        reached = [length for length, value in levels.items() if value >= level]
        return float(min(reached)) if reached else None

    peak = max(levels.values())
    mean_length = sum(curve.lengths) / len(curve.lengths)
    return {
        "tokens_to_fve_0": first(0.0),
        "tokens_to_fve_half": first(0.5),
        "tokens_to_80_percent": first(0.8 * full) if full > 0 else None,
        "area": _area(levels, full, mean_length) if full > 0 else None,
        "peak_fve": peak,
        "peak_tokens": first(peak),
        "full_fve": full,
        "full_tokens": float(longest),
    }


def _area(levels: dict[int, float], full: float, mean_length: float) -> float:
    """Share of the full FVE that is there, averaged over the tokens of a text of mean length.

    Counted in steps of a hundredth of a token between the lengths that are read.
    """
    known = {0: 0.0} | {n: min(max(value, 0.0), full) / full for n, value in levels.items()}
    places = sorted(known)
    steps = np.arange(0, mean_length, 0.01) + 0.005
    return float(np.interp(steps, places, [known[place] for place in places]).mean())
