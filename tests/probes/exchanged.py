"""A study in which a known share of the texts is exchanged for another activation's.

Every activation is what the planted AR makes of its own text, so that a text of its own has FVE 1.
With the share ``right`` of the texts in their place and the others dealt at random, the mean
activation behind a text lies ``right`` of the way from the mean to the reconstruction. From that
follow the slope (``right``), FVE (2 ``right`` − 1), and FVE after the best factor (``right`` ²).
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tests.pairs import planted_pair

MODEL = "p0.0"
#: Every two of the six keywords: fifteen texts.
_PAIRS = list(combinations(range(len(planted_pair.KEYWORDS)), 2))


def texts_and_vectors(
    n: int, generator: np.random.Generator
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """``n`` texts of two keywords each, and the activations `[n, d_model]` they reconstruct."""
    chosen = [_PAIRS[one] for one in generator.integers(len(_PAIRS), size=n)]
    texts = ["a" + "".join(planted_pair.KEYWORDS[axis] for axis in pair) for pair in chosen]
    weights = np.zeros((n, len(planted_pair.KEYWORDS)))
    for row, pair in enumerate(chosen):
        weights[row, list(pair)] = 1.0
    return texts, np.stack([planted_pair.activation(list(row)) for row in weights])


def save_study(root: Path, *, right: float, n: int = 400, per_document: int = 1) -> Path:
    """Write ``ar``, ``texts.parquet`` and ``activations.parquet``; returns ``root``."""
    generator = np.random.default_rng(0)
    texts, vectors = texts_and_vectors(n, generator)
    # Drawn anew rather than dealt out, so that a moved text says nothing of its activation.
    others = texts_and_vectors(n, generator)[0]
    stays = generator.random(n) < right
    explanations = [
        own if kept else other for own, other, kept in zip(texts, others, stays, strict=True)
    ]
    keys = {
        "idx": range(n),
        "doc_id": [f"d{row // per_document}" for row in range(n)],
        "position": [10 + 3 * (row % per_document) for row in range(n)],
    }
    planted_pair.save_planted_ar(root / "ar")
    pl.DataFrame(
        {"model": [MODEL] * n, "explanation": explanations, "idx": keys["idx"]}
    ).write_parquet(root / "texts.parquet")
    pl.DataFrame({**keys, "activation_vector": vectors.tolist()}).write_parquet(
        root / "activations.parquet"
    )
    return root


def arguments(root: Path) -> list[str]:
    """The table and the pair, as a probe's command takes them."""
    return [
        str(root / "texts.parquet"),
        "--pair",
        str(root / "ar"),
        "--activations",
        str(root / "activations.parquet"),
    ]
