"""Runs of a pair: what its tests share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nla_audit.runs.target import TargetModel, load_target
from tests.pairs import tiny
from tests.pairs.fixtures import activations, as_it_is, explained, pair, pair_path, vectors
from tests.runs.extracting import FLOAT32, random_texts, save_target

__all__ = ["activations", "as_it_is", "explained", "pair", "pair_path", "vectors"]


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("target") / "model", "qwen3")


@pytest.fixture(scope="session")
def target(qwen: Path) -> TargetModel:
    return load_target(qwen, layer_index=tiny.LAYER, placement=FLOAT32)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [{"doc_id": f"d{number}", "text": text} for number, text in enumerate(random_texts(23))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
