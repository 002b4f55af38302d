"""Checkpoints with faults, and what loading and inspecting make of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from nla_audit.checkpoint.backbone import Placement
from nla_audit.checkpoint.inspection import inspect
from nla_audit.checkpoint.load import load
from nla_audit.errors import UserError
from tests.pairs import tiny

Tensors = dict[str, torch.Tensor]

Edit = Callable[[Tensors], Tensors]

FLOAT32 = Placement(dtype="float32", device="cpu")

VECTORS = np.random.default_rng(0).normal(size=(3, tiny.D_MODEL)).astype(np.float32)

ADAPTER = "adapter_model.safetensors"

HEAD = "value_head.safetensors"


def make_adapter(
    base: Path, folder: Path, targets: str | list[str], seed: int = 0, **options: Any
) -> Path:
    """A PEFT adapter on ``base`` that changes what it says; ``options`` of its config."""
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(seed)
    options = {"r": 2, "lora_alpha": 8, "init_lora_weights": False, **options}
    lora = LoraConfig(target_modules=targets, **options)
    get_peft_model(model, lora).save_pretrained(folder)
    (folder / "README.md").unlink()
    return folder


def edited(source: Path, folder: Path, file: str, edit: Edit) -> Path:
    """A copy of the checkpoint ``source`` whose tensors in ``file`` are changed."""
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)  # what is copied may be read-only
    tensors = {name: one.contiguous() for name, one in edit(load_file(folder / file)).items()}
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


def logits(av: Path, **options: Any) -> torch.Tensor:
    verbalizer = load(av=av, placement=FLOAT32, notice=lambda _: None, **options).verbalizer
    assert verbalizer is not None
    return verbalizer.first_logits(VECTORS)


def reading(ar: Path) -> np.ndarray:
    reconstructor = load(ar=ar, placement=FLOAT32, notice=lambda _: None).reconstructor
    assert reconstructor is not None
    return reconstructor.reconstruct(["a quoted word", "a story"])


@cache
def sound_logits(av: Path, adapter: Path | None = None) -> torch.Tensor:
    """Of checkpoints of a fixture, which no test changes."""
    return logits(av) if adapter is None else logits(av, adapter=adapter)


@cache
def sound_reading(ar: Path) -> np.ndarray:
    return reading(ar)


def refused(run: Callable[[], object]) -> str:
    """The one line with which loading refuses."""
    with pytest.raises(UserError) as error:
        run()
    assert "\n" not in str(error.value)
    return str(error.value)


def inspected(path: Path, base: Path | None = None) -> list[str]:
    (found,) = inspect(path, base=base)
    return found.problems


def inspected_or_refused(path: Path, base: Path | None, said: str) -> list[str]:
    """Problems; or the line ``said``, where even the door to inspecting refuses with it."""
    try:
        return inspected(path, base)
    except UserError as error:
        return [said] if str(error) == said else []


def renaming(old: str, new: str) -> Edit:
    return lambda tensors: {name.replace(old, new): one for name, one in tensors.items()}


def each(change: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    return lambda tensors: {name: change(one) for name, one in tensors.items()}


def without(*words: str) -> Edit:
    return lambda tensors: {
        name: one for name, one in tensors.items() if not any(word in name for word in words)
    }


def also(name: str, *shape: int) -> Edit:
    return lambda tensors: {**tensors, name: torch.ones(shape)}
