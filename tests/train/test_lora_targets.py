"""Adapters on layers that the model does not have are refused before anything is trained."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from nla_audit.cli import USER_ERROR, run
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
