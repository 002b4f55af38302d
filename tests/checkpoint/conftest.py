"""Pairs on disk and on the Hub: what its tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from nla_audit.nla.injection import Injection, parse_injection
from tests.checkpoint.faults import make_adapter
from tests.pairs import tiny
from tests.pairs.fixtures import activations, pair, pair_path, vectors

__all__ = ["activations", "pair", "pair_path", "vectors"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_pair(tmp_path_factory.mktemp("pair"), "qwen3", Injection("add", block=1))


@pytest.fixture(scope="module")
def adapter_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("adapter")
    model = tiny.random_model(tiny.make_config("qwen3", 300), 0)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of Llamas, and an adapter of its AV."""
    root = tiny.save_pair(tmp_path_factory.mktemp("llama"), "llama", parse_injection("add:1"))
    make_adapter(root / "av", root / "adapter", ["q_proj", "v_proj"])
    return root
