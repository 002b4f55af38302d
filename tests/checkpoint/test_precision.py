"""What ``auto`` makes of the precision of a model, and that no half of a pair loses digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from nla_audit.checkpoint import precision
from nla_audit.checkpoint.backbone import Placement
from nla_audit.checkpoint.load import load, load_first_blocks
from nla_audit.checkpoint.precision import for_untrained
from nla_audit.nla.injection import Injection
from tests.pairs import tiny


def processor(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


def config(width: int = 512, dtype: torch.dtype | None = torch.float32) -> Any:
    return LlamaConfig(hidden_size=width, num_attention_heads=4, dtype=dtype)


@pytest.mark.parametrize("instruction", ["amx_bf16", "avx512_bf16"])
def test_a_wide_float32_model_is_run_in_bfloat16(
    instruction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, **{instruction: True})
    assert for_untrained(Placement(device="cpu"), config()).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("placement", "model"),
    [
        (Placement(device="cpu"), config(width=256)),
        (Placement(device="cpu"), config(dtype=torch.float16)),
        (Placement(device="cpu", dtype="float32"), config()),
        (Placement(device="cuda"), config()),
        (Placement(device_map="auto"), config()),
    ],
    ids=["narrow", "float16", "asked for", "on a GPU", "spread"],
)
def test_anything_else_stays_as_it_is(
    placement: Placement, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, amx_bf16=True)
    assert for_untrained(placement, model) == placement


def test_a_processor_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, amx_bf16=False, avx512_f=True)
    assert for_untrained(Placement(device="cpu"), config()).dtype == "auto"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert for_untrained(Placement(device="cpu"), config()).dtype == "auto"


def test_halves_of_a_pair_keep_their_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fails with: the rule applied wherever a model is read.
    tiny.save_pair(tmp_path, "llama", Injection("add", block=1))
    processor(monkeypatch, amx_bf16=True)
    monkeypatch.setattr(precision, "_WIDE", 1)
    base, _ = load_first_blocks(tmp_path / "base", layer_index=1, placement=Placement(device="cpu"))
    assert base.dtype == torch.bfloat16
    pair = load(tmp_path / "av", tmp_path / "ar", placement=Placement(device="cpu"))
    assert pair.verbalizer.model.dtype == pair.reconstructor.model.dtype == torch.float32
