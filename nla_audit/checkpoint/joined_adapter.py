"""All LoRA layers of a loaded model as one plain adapter, for an engine that takes it by request.

An engine takes one adapter with a request: two matrices beside a linear layer, and nothing else.
Adapters that are on at once are one of that kind together, whose rank is the sum of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import pad

from nla_audit.checkpoint.formats import ADAPTER_CONFIG, ADAPTER_FILE
from nla_audit.checkpoint.save import is_lora_layer, is_saved_whole
from nla_audit.checkpoint.tensors import types_in
from nla_audit.errors import UserError


@dataclass(frozen=True)
class JoinedAdapter:
    """One adapter of the plain kind.

    Attributes:
        layers: by a layer's name, A ``[rank, in]`` and B ``[out, rank]``, its scaling in B.
        rank: of all layers.
    """

    layers: dict[str, tuple[torch.Tensor, torch.Tensor]]
    rank: int

    def save(self, folder: Path) -> None:
        """Write it as PEFT does, into a new folder."""
        folder.mkdir(parents=True)
        tensors = {
            f"base_model.model.{name}.lora_{letter}.weight": half.contiguous().cpu()
            for name, halves in self.layers.items()
            for letter, half in zip("AB", halves, strict=True)
        }
        save_file(tensors, str(folder / ADAPTER_FILE))
        config = {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.rank,
            "target_modules": sorted(self.layers),
        }
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config), encoding="utf-8")


def refuse_whole_matrices(folders: Sequence[Path]) -> None:
    """Refuse PEFT adapters that bring more than LoRA's matrices, such as rows for added tokens.

    Raises:
        UserError: it names one of the tensors.
    """
    for folder in folders:
        others = [name for name in types_in([folder / ADAPTER_FILE]) if ".lora_" not in name]
        if others:
            raise _not_plain(str(folder), f"holds {others[0]} whole")


@torch.no_grad()
def joined_adapter(model: nn.Module) -> JoinedAdapter:
    """The active LoRA layers of ``model``.

    Raises:
        UserError: a layer has a later variant of LoRA, or is changed in another way.
    """
    layers = {}
    for name, module in _adapted(model):
        active = [adapter for adapter in module.active_adapters if adapter in module.lora_A]
        down = [module.lora_A[one].weight.detach() for one in active]
        up = [module.lora_B[one].weight.detach() * module.scaling[one] for one in active]
        if active:
            layers[name] = torch.cat(down), torch.cat(up, dim=1)
    rank = max((len(down) for down, _ in layers.values()), default=0)
    # Engines read one rank for all layers.
    padded = {
        name: (pad(down, (0, 0, 0, rank - len(down))), pad(up, (0, rank - len(down))))
        for name, (down, up) in layers.items()
    }
    return JoinedAdapter(padded, rank)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and module of every layer that PEFT changed.

    Raises:
        UserError: one is changed by more than two matrices beside it.
    """
    for name, module in model.named_modules():
        if is_saved_whole(module):
            raise _not_plain(name, "is saved whole")
        if not hasattr(module, "base_layer"):
            continue
        if not (is_lora_layer(module) and isinstance(module.base_layer, nn.Linear)):
            raise _not_plain(name, "is no linear layer with LoRA")
        layer: Any = module
        variants = getattr(layer, "lora_variant", {})  # peft 0.15 has DoRA alone
        if variants or any(layer.use_dora.values()) or any(layer.lora_bias.values()):
            raise _not_plain(name, "has a variant of LoRA (such as DoRA)")
        yield name, layer


def _not_plain(what: str, is_not: str) -> UserError:
    return UserError(
        f"{what}: {is_not}, which an engine does not take by request: engine option "
        "enable_lora=false merges adapters into the weights"
    )
