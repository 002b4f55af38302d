"""Fixtures of tests that run a pair: on one thread, for the models are tiny."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nla_audit.checkpoint.load import Pair, load
from nla_audit.nla import compiled
from tests.pairs import explaining, talking, tiny

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pair_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair whose AV writes explanations; ``av/`` and ``ar/``."""
    return talking.save_pair(tmp_path_factory.mktemp("talking") / "tiny-pair")


@pytest.fixture(scope="session")
def pair(pair_path: Path) -> Pair:
    """The same, loaded."""
    return load(av=pair_path / "av", ar=pair_path / "ar", placement=explaining.FLOAT32)


@pytest.fixture(scope="session")
def vectors() -> np.ndarray:
    """Activations without a fault, ``[rows, d_model]``."""
    shape = (explaining.ROWS, tiny.D_MODEL)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="session")
def activations(vectors: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of activations, two of which cannot be explained."""
    spoiled = vectors.copy()
    spoiled[explaining.NAN_ROW, 3] = np.nan
    spoiled[explaining.ZERO_ROW] = 0
    path = tmp_path_factory.mktemp("activations") / "activations.parquet"
    explaining.table_of(spoiled).write_parquet(path)
    return path


@pytest.fixture(scope="session")
def explained(pair_path: Path, activations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table that an uninterrupted run wrote."""
    out = tmp_path_factory.mktemp("explained") / "completions.parquet"
    assert explaining.run(pair_path, activations, "--out", out, *explaining.OPTIONS) == 0
    return out


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be compiled stays as it is, with the shapes and buffers of what is compiled."""
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    monkeypatch.setattr(compiled, "check_compiler", lambda _: None)
