"""The head of an AR, alone and beside adapters, is the one that was saved, or it is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nla_audit.checkpoint.formats import AR_LORA_FILE
from nla_audit.checkpoint.load import load
from tests.checkpoint.faults import (
    FLOAT32,
    HEAD,
    Edit,
    also,
    each,
    edited,
    inspected,
    reading,
    refused,
    renaming,
    sound_reading,
    without,
)
from tests.pairs.golden import GOLDEN

SAME_HEAD: dict[str, Edit] = {
    "nanoNLA's name": renaming("weight", "value_head.weight"),
    "torch.compile": renaming("weight", "_orig_mod.weight"),
    "DDP": renaming("weight", "module.value_head.weight"),
    "twice the same": lambda tensors: tensors | {"value_head.weight": tensors["weight"].clone()},
}

OTHER_HEAD: dict[str, tuple[Edit, str]] = {
    "empty file": (lambda _: {}, "no tensor called weight or value_head.weight, found none"),
    "empty": (each(lambda one: one[:0, :0]), "the head is empty (shape [0, 0])"),
    "empty rows": (each(lambda one: one[:, :0]), "the head is empty (shape [32, 0])"),
    "rectangular": (each(lambda one: one[:5]), "the head has shape [5, 32]"),
    "one dimension": (each(torch.flatten), "the head has shape [1024]"),
    "three dimensions": (each(lambda one: one[None]), "the head has shape [1, 32, 32]"),
    "one number": (each(lambda one: one[0, 0]), "the head has shape []"),
    "another width": (each(lambda one: one[:8, :8]), "the model needs [32, 32]"),
    "whole numbers": (each(lambda one: one.to(torch.int8)), "the head holds int8"),
    "true or false": (each(lambda one: one > 0), "the head holds bool"),
    "complex": (each(lambda one: one.to(torch.complex64)), "the head holds complex64"),
    "not finite": (each(lambda one: one / 0), "of the head's weights are NaN or infinite"),
    "absurd": (each(lambda one: one * 1e20), "the head was saved wrongly"),
    "two heads": (also("value_head.weight", 32, 32), "holds 2 heads"),
    "a head a layer": (
        lambda tensors: {f"heads.{layer}": tensors["weight"].clone() for layer in (1, 2, 3)},
        "heads.2 [32, 32], heads.3 [32, 32]; an AR has one head",
    ),
    "a bias": (also("bias", 32), "besides the head it holds bias [32]"),
    "another name": (renaming("weight", "projection"), "rename projection, if that is it"),
}


class TestHeads:
    @pytest.mark.parametrize("edit", SAME_HEAD.values(), ids=SAME_HEAD.keys())
    def test_known_names_are_read(self, edit: Edit, llama: Path, tmp_path: Path) -> None:
        ar = edited(llama / "ar", tmp_path / "ar", HEAD, edit)
        assert np.array_equal(reading(ar), sound_reading(llama / "ar"))
        assert inspected(ar) == []

    @pytest.mark.parametrize(("edit", "words"), OTHER_HEAD.values(), ids=OTHER_HEAD.keys())
    def test_others_are_refused(self, edit: Edit, words: str, llama: Path, tmp_path: Path) -> None:
        ar = edited(llama / "ar", tmp_path / "ar", HEAD, edit)
        assert words in refused(lambda: reading(ar))
        assert any(words in problem for problem in inspected(ar))


NANO = GOLDEN / "nano_lora"

SAME_AR_LORA: dict[str, Edit] = {
    "torch.compile": renaming("backbone.", "backbone._orig_mod."),
    "DDP": lambda tensors: {f"module.{name}": one for name, one in tensors.items()},
}

OTHER_AR_LORA: dict[str, tuple[Edit, str]] = {
    "one lost": (without("layers.0.self_attn.q_proj.lora_A"), "0 of its 23 tensors fit nowhere"),
    "one too many": (also("backbone.model.layers.9.x.lora_A.default.weight", 2), "1 of its 25"),
    "another shape": (
        lambda tensors: {name: one[..., :5] for name, one in tensors.items() if one.ndim},
        "have another shape",
    ),
    "whole numbers": (each(lambda one: one.int()), "holds int32"),
    "no head": (without("value_head"), "found only LoRA; an AR has one head"),
    "two heads": (also("weight", 64, 64), "holds 2 heads"),
}


class TestArLora:
    @staticmethod
    def reading(ar: Path) -> np.ndarray:
        half = load(ar=ar, base=NANO / "base", placement=FLOAT32, notice=lambda _: None)
        assert half.reconstructor is not None
        return half.reconstructor.reconstruct(["a quoted word"])

    @staticmethod
    def edited(folder: Path, edit: Edit) -> Path:
        shutil.copytree(NANO / "base", folder / "base")
        return edited(NANO / "ar_lora", folder / "ar_lora", AR_LORA_FILE, edit)

    @pytest.mark.parametrize("edit", SAME_AR_LORA.values(), ids=SAME_AR_LORA.keys())
    def test_known_words_in_names_are_read(self, edit: Edit, tmp_path: Path) -> None:
        ar = self.edited(tmp_path, edit)
        assert np.array_equal(self.reading(ar), self.reading(NANO / "ar_lora"))
        assert inspected(ar) == []

    @pytest.mark.parametrize(("edit", "words"), OTHER_AR_LORA.values(), ids=OTHER_AR_LORA.keys())
    def test_others_are_refused(self, edit: Edit, words: str, tmp_path: Path) -> None:
        ar = self.edited(tmp_path, edit)
        assert words in refused(lambda: self.reading(ar))
        assert any(words in problem for problem in inspected(ar))
