"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

# Arrays here are tiny, and tests run one per core: a library's threads would only spin beside each
# other, here and in the processes that tests start. It is read when the library is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import polars as pl
import pytest

_SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; the test is skipped where it is not there."""
    if not (_SHARED / "data").is_dir():
        pytest.skip(f"no real data beside the repository ({_SHARED.name}/data)")
    return _SHARED


@pytest.fixture(scope="session")
def sweep_path(shared: Path) -> Path:
    """The published Qwen3-8B length-penalty sweep: 7 models × 600 activations."""
    return shared / "data" / "qwen3_8b_length_sweep.parquet"


@pytest.fixture
def table() -> pl.DataFrame:
    """A small valid table: three models × twelve activations, one empty and one failed row."""
    rows = []
    for model, penalty, words in (("base", None, 6), ("p0.0", 0.0, 6), ("p0.03", 0.03, 2)):
        for idx in range(12):
            text = " ".join(["cold", "grey", "harbour", "morning", "before", "departure"][:words])
            rows.append(
                {
                    "model": model,
                    "length_penalty": penalty,
                    "idx": idx,
                    "source_text": f"the harbour of town {idx}",
                    "explanation": text,
                    "n_tokens": 11 + words,
                    "fve": 0.5 + idx / 100 + words / 100,
                    "extracted": True,
                    "ar": "warm-start",
                }
            )
    rows[24] |= {"explanation": "", "n_tokens": 11, "fve": 0.01}  # p0.03, idx 0
    rows[25] |= {"explanation": None, "n_tokens": 160, "fve": None, "extracted": False}
    return pl.DataFrame(rows)
