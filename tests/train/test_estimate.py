"""What a recipe is said to cost is what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from nla_audit.checkpoint.load import load_first_blocks
from nla_audit.train.adapters import RL_ADAPTER, add_lora
from nla_audit.train.estimate import estimate
from nla_audit.train.kept_memory import kept_bytes_per_token
from nla_audit.train.layout import Layout
from nla_audit.train.log_probs import TOKEN_BUDGETS
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.recipe_optimizer import Lora
from tests.pairs import tiny


def bytes_of_a_real_pass(model: Any, rows: int, tokens: int) -> int:
    """What autograd saves without a mask of ours, weights left out."""
    weights = {weight.data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=torch.zeros(rows, tokens, dtype=torch.int64), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("lora", [None, Lora(rank=2, alpha=4.0)], ids=["whole", "adapters"])
@pytest.mark.parametrize("architecture", ["qwen3", "gemma3"])
def test_a_pass_without_data_keeps_what_one_with_data_does(
    architecture: str, lora: Lora | None
) -> None:
    # Fails with: weights counted as kept; views of one tensor counted each; one row counted as two.
    config = tiny.make_config(architecture, 300)
    model = tiny.random_model(config, seed=0)
    if lora is not None:
        add_lora(model, lora, RL_ADAPTER, seed=0)
    # Of one row more, so that what does not grow with the rows (masks, positions) falls out.
    wanted = (bytes_of_a_real_pass(model, 3, 40) - bytes_of_a_real_pass(model, 2, 40)) / 40
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config).float()
    found = kept_bytes_per_token(empty, lora, gradient_checkpointing=False)
    # Attention is computed otherwise without data, and keeps its weights.
    assert wanted < 1.05 * found
    assert found < 1.5 * wanted


def test_weights_are_those_that_are_loaded(tmp_path: Path) -> None:
    # Fails with: the embedding of an AR shortened like its blocks; float32 taken for bf16.
    config = tiny.make_config("gemma3", 300)
    model = tiny.random_model(config, seed=0)
    model.save_pretrained(tmp_path / "base")
    tiny.make_tokenizer(bos=True).save_pretrained(tmp_path / "base")
    raw = {
        "name": "x",
        "target": {"model": str(tmp_path / "base"), "layer_index": 1, "device": "cpu"},
        "data": {"texts": "texts.parquet"},
        "rl": {"lora": None, "train_ar": True},
    }
    found = estimate(Layout(parse_recipe(raw, "x"), tmp_path, tmp_path))
    ar, _ = load_first_blocks(tmp_path / "base", layer_index=1)
    av_bytes, ar_bytes = (sum(weight.nbytes for weight in one.parameters()) for one in (model, ar))
    # The AV and its frozen copy, the AR and the ruler.
    assert found.weights_gb == pytest.approx((2 * av_bytes + 2 * ar_bytes) / 1e9)
    assert found.training_gb == pytest.approx(3 * (av_bytes + ar_bytes) / 1e9)
    assert found.kept_gb is not None
    assert found.kept_gb > 0
    assert found.logits_gb == pytest.approx(8 * TOKEN_BUDGETS["cpu"] * 300 / 1e9)
