"""All LoRA layers of an AV as one plain adapter: it is what they are, or it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nla_audit.checkpoint.joined_adapter import joined_adapter, refuse_whole_matrices
from nla_audit.checkpoint.load import load
from tests.checkpoint.faults import (
    ADAPTER,
    FLOAT32,
    also,
    edited,
    logits,
    make_adapter,
    refused,
)


def model_of(av: Path, adapter: Path) -> Any:
    verbalizer = load(av=av, adapter=adapter, placement=FLOAT32).verbalizer
    assert verbalizer is not None
    return verbalizer.model


def test_two_adapters_are_one_of_their_ranks_together(llama: Path, tmp_path: Path) -> None:
    lower = make_adapter(llama / "av", tmp_path / "lower", ["q_proj"], seed=1, use_rslora=True)
    options = {"r": 3, "rank_pattern": {"up_proj": 1}}
    upper = make_adapter(llama / "av", tmp_path / "upper", ["q_proj", "up_proj"], **options)
    two = {"base": llama / "av", "sidecar": llama / "av" / "nla_meta.yaml"}
    wanted = logits(lower, adapter=upper, **two)
    verbalizer = load(av=lower, adapter=upper, placement=FLOAT32, **two).verbalizer
    assert verbalizer is not None
    joined = joined_adapter(verbalizer.model)
    assert joined.rank == 5
    joined.save(tmp_path / "joined")
    torch.testing.assert_close(logits(llama / "av", adapter=tmp_path / "joined"), wanted)
    assert not torch.allclose(wanted, logits(llama / "av", adapter=upper), atol=1e-3)


def test_weights_without_adapters_are_of_rank_0(llama: Path) -> None:
    verbalizer = load(av=llama / "av", placement=FLOAT32).verbalizer
    assert verbalizer is not None
    assert joined_adapter(verbalizer.model).rank == 0


# Of PEFT's: that such adapters are hard to merge, and large.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("targets", "options", "said"),
    [
        (["q_proj"], {"use_dora": True}, r"q_proj: has a variant of LoRA"),
        (["q_proj"], {"lora_bias": True}, r"q_proj: has a variant of LoRA"),
        (["embed_tokens"], {}, r"embed_tokens: is no linear layer with LoRA"),
        (["q_proj"], {"modules_to_save": ["norm"]}, r"norm: is saved whole"),
    ],
)
def test_other_kinds_are_refused_by_name(
    llama: Path, tmp_path: Path, targets: list[str], options: dict[str, Any], said: str
) -> None:
    adapter = make_adapter(llama / "av", tmp_path / "adapter", targets, **options)
    model = model_of(llama / "av", adapter)
    found = refused(lambda: joined_adapter(model))
    assert said in found
    assert "enable_lora=false" in found


def test_rows_for_added_tokens_are_refused(llama: Path, tmp_path: Path) -> None:
    name = "base_model.model.model.embed_tokens.weight"
    adapter = edited(llama / "adapter", tmp_path / "adapter", ADAPTER, also(name, 300, 16))
    assert f"holds {name} whole" in refused(lambda: refuse_whole_matrices([adapter]))
    refuse_whole_matrices([llama / "adapter"])
