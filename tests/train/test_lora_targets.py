"""Adapters: on layers that the model has, or refused before anything is trained; scaled by α/√r."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml

from nla_audit.cli import USER_ERROR, run
from nla_audit.train.adapters import RL_ADAPTER, add_lora
from nla_audit.train.recipe_optimizer import Lora
from tests.pairs import tiny
from tests.train.test_course import MINI


@pytest.mark.parametrize("place", ["warm_start.av", "warm_start.ar", "rl"])
@pytest.mark.parametrize(
    ("targets", "lacking"), [(["c_attn"], "c_attn"), (["q_proj", "Wqkv", "o"], "Wqkv, o")]
)
def test_said_at_once(
    place: str,
    targets: list[str],
    lacking: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = copy.deepcopy(MINI)
    section = recipe
    for word in place.split("."):
        section = section[word]
    section["lora"] = {"rank": 2, "alpha": 4, "target_modules": targets}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    assert run(["train", str(path), "--out", str(tmp_path / "run")]) == USER_ERROR
    assert capsys.readouterr().err == (
        f"error: {place}.lora.target_modules: LlamaForCausalLM has no {lacking}; its layers are "
        "down_proj, embed_tokens, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj\n"
    )
    assert not (tmp_path / "run" / "target").exists()


def test_what_an_adapter_adds_is_alpha_over_root_rank() -> None:
    # Fails with: α/r, under which a larger rank would learn more slowly.
    model = tiny.random_model(tiny.make_config("llama", 60), 0)
    lora = Lora(rank=4, alpha=6.0, target_modules=("q_proj",))
    parameters = add_lora(model, lora, RL_ADAPTER, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters.values():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    layer = next(one for name, one in model.named_modules() if name.endswith("q_proj"))
    x = torch.randn((5, tiny.D_MODEL), generator=generator)
    low, high = layer.lora_A[RL_ADAPTER].weight, layer.lora_B[RL_ADAPTER].weight
    added = layer(x) - layer.base_layer(x)
    torch.testing.assert_close(added, 6.0 / 4**0.5 * x @ low.T @ high.T)
