"""The head of an AR: which tensor of a file it is, and whether it can be one."""

from __future__ import annotations

from pathlib import Path

import torch

from nla_audit.checkpoint.health import head_health
from nla_audit.checkpoint.tensors import plain_name, read_tensors
from nla_audit.errors import UserError
from nla_audit.nla.refusal import Refuse

#: What published files call the head: the release ``weight``, nanoNLA ``value_head.weight``.
_NAMES = ("weight", "value_head.weight")


def read_head(path: Path) -> torch.Tensor:
    """The head in a file of its own (``value_head.safetensors``).

    Raises:
        UserError: damaged, no head in it, several, or more than a head.
    """
    head, others = split_head(read_tensors(path), path)
    if others:
        raise UserError(
            f"{path}: besides the head it holds {_listed(others)}; a head is one matrix without "
            "bias, and what the others would do is not known"
        )
    return head


def split_head(
    tensors: dict[str, torch.Tensor], path: Path
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The head among ``tensors``, and the others.

    Raises:
        UserError: there is none, or there are several that differ.
    """
    heads = {name: tensor for name, tensor in tensors.items() if plain_name(name) in _NAMES}
    others = {name: tensor for name, tensor in tensors.items() if name not in heads}
    if not heads:
        alone = {name: one for name, one in others.items() if ".lora_" not in name}
        advice = (
            f"rename {next(iter(alone))}, if that is it"
            if len(alone) == 1
            else "an AR has one head: keep the one that it was trained with, under that name"
        )
        raise UserError(
            f"{path}: no tensor called {' or '.join(_NAMES)}, found "
            f"{_listed(alone) if alone else 'only LoRA' if others else 'none'}; {advice}"
        )
    first, *more = heads.values()
    if not all(first.shape == each.shape and torch.equal(first, each) for each in more):
        raise UserError(
            f"{path}: holds {len(heads)} heads ({_listed(heads)}); an AR has one: keep the one "
            "that it was trained with"
        )
    return first, others


def check_head(head: torch.Tensor, d_model: int | None, path: Path, refuse: Refuse) -> None:
    """A head must be ``[d_model, d_model]`` floating-point numbers, none NaN or absurdly large.

    Args:
        d_model: ``None`` where it is not known; the head must be square all the same.

    Raises:
        UserError: no matrix product is possible with it.
    """
    shape = list(head.shape)
    if not head.is_floating_point():
        kind = str(head.dtype).removeprefix("torch.")
        raise UserError(f"{path}: the head holds {kind}, not floating-point numbers; save it again")
    if head.numel() == 0:
        raise UserError(f"{path}: the head is empty (shape {shape}); save it again")
    width = d_model if d_model is not None else shape[0]
    if shape != [width, width]:
        raise UserError(
            f"{path}: the head has shape {shape}, the model needs [{width}, {width}]; take the "
            "head that was trained with this model"
        )
    if (problem := head_health(head).problem()) is not None:
        refuse(f"{path}: {problem}")


def _listed(tensors: dict[str, torch.Tensor], limit: int = 5) -> str:
    words = [f"{name} {list(tensor.shape)}" for name, tensor in sorted(tensors.items())]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more
