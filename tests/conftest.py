"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Arrays here are tiny, and tests run one per core: a library's threads would only spin beside each
# other, here and in the processes that tests start. It is read when the library is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import polars as pl
import pytest

from tests.hub_contents import FakeHub
from tests.hub_server import serving

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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A server on this machine in the Hub's place, an empty local cache, and nobody logged in."""
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        # huggingface_hub reads its environment once, when it is first imported.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        # It waits before it tries again.
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield server
