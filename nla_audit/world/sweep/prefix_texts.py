"""Planted FVE by prefix of texts: what activations need, and what kinds of claims are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl

from nla_audit.text.claims import split_claims
from nla_audit.world.sweep.planted import PlantedModel, plant
from nla_audit.world.sweep.wordings import KINDS

Lengths = Literal["follow", "fixed", "against"]
Worths = Literal["falls", "rises", "same"]

PLAIN, OTHER = "plain", "other"
_FULL = 0.7
#: Tokens of the plain model's texts, and where they are read.
_PLAIN_LENGTH = 120
_READ = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, _PLAIN_LENGTH)


def plant_needs(
    lengths: Lengths, *, activations: int, seed: int, noise: float = 0.3
) -> pl.DataFrame:
    """Two samples of :data:`PLAIN`, whose curves show what activations need, and a model whose
    lengths follow the need, are drawn without regard to it, or fall with it.

    Args:
        lengths: of :data:`OTHER`.
        noise: standard deviation of the logarithm of what one sample shows of the need.
    """
    generator = np.random.default_rng([seed, 41])
    need = np.exp(generator.normal(2.7, 0.6, activations))
    center = {"follow": 2.5 * need, "fixed": np.full(activations, 40.0), "against": 600 / need}
    rows = []
    for sample in (0, 1):
        shown = need * np.exp(generator.normal(0.0, noise, activations))
        own = center[lengths] * np.exp(generator.normal(0.0, 0.3, activations))
        for idx in range(activations):
            # A curve of this pace has four fifths of its end after as many tokens as are needed.
            pace = shown[idx] / math.log(5)
            rows += [
                (PLAIN, idx, sample, length, _FULL * (1 - math.exp(-length / pace)), _PLAIN_LENGTH)
                for length in _READ
            ]
            whole = max(1, round(own[idx]))
            rows.append((OTHER, idx, sample, whole, 0.5, whole))
    schema = ["model", "idx", "sample", "length", "fve", "text_tokens"]
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(unit=pl.lit("tokens"))


def plant_worths(
    worths: Worths, *, activations: int, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame, Mapping[str, float]]:
    """Texts whose claims come in a usual order, and FVE by claim with known gains of each kind.

    Args:
        worths: along the usual order.

    Returns:
        Completions, FVE by prefix, and kind → gain.
    """
    completions = plant(
        [PlantedModel(PLAIN, omit=0.0)],
        activations=activations,
        seed=seed,
        resampling_omission=0.25,
    ).completions.select("model", "idx", "sample", "explanation")
    generator = np.random.default_rng([seed, 43])
    steps = {"falls": -0.01, "rises": 0.01, "same": 0.0}[worths]
    gain = {kind: 0.08 + steps * (place - 4) for place, kind in enumerate(KINDS)}
    rows = []
    for idx, text in completions.select("idx", "explanation").iter_rows():
        level = 0.0
        for number, claim in enumerate(split_claims(text or ""), 1):
            level += gain.get(claim.kind, 0.08) + generator.normal(0.0, 0.03)
            rows.append((PLAIN, idx, 0, number, min(level, 1.0)))
    schema = ["model", "idx", "sample", "length", "fve"]
    prefixes = pl.DataFrame(rows, schema=schema, orient="row").with_columns(unit=pl.lit("claims"))
    return completions, prefixes, gain
