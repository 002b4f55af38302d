"""LoRA layers inside a model: added, switched off for the anchor, saved as PEFT adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from nla_audit.checkpoint.formats import ADAPTER_FILE
from nla_audit.errors import UserError
from nla_audit.train.recipe_optimizer import Lora

#: Name of the adapters that RL trains.
RL_ADAPTER = "rl"


def add_lora(model: nn.Module, settings: Lora, name: str, *, seed: int) -> dict[str, nn.Parameter]:
    """Inject adapters called ``name`` on top of whatever the model has; freeze all else.

    Returns:
        The new trainable parameters by name. B starts at zero, so the model says what it said.

    Raises:
        UserError: none of the target modules exists.
    """
    from peft import LoraConfig, inject_adapter_in_model

    before = [(layer, list(layer.active_adapters)) for layer in _lora_layers(model)]
    config = _peft_config(settings, LoraConfig)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            inject_adapter_in_model(config, model, adapter_name=name)
    except ValueError as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"lora.target_modules: {reason}") from None
    # peft makes the new adapter the only active one; a warm start that is an adapter stays on.
    for layer, active in before:
        layer._active_adapter = [*active, name] if name in layer.lora_A else active
    trainable = {}
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{name}." in parameter_name and "lora_" in parameter_name)
        if parameter.requires_grad:
            # Adapters train in float32 on any base: bf16 loses updates this small.
            parameter.data = parameter.data.float()
            trainable[parameter_name] = parameter
    return trainable


@contextmanager
def without_adapter(model: nn.Module, name: str) -> Iterator[None]:
    """Switch off the adapter ``name`` and no other: what remains is the warm start."""
    layers = [layer for layer in _lora_layers(model) if name in layer.active_adapters]
    active = [list(layer.active_adapters) for layer in layers]
    for layer, names in zip(layers, active, strict=True):
        layer._active_adapter = [other for other in names if other != name]
    try:
        yield
    finally:
        for layer, names in zip(layers, active, strict=True):
            layer._active_adapter = names


def has_adapter(model: nn.Module, *, besides: str) -> bool:
    """Whether a layer of ``model`` has an active adapter other than ``besides``."""
    return any(set(layer.active_adapters) - {besides} for layer in _lora_layers(model))


def save_adapter(model: nn.Module, settings: Lora, name: str, folder: Path, *, base: str) -> None:
    """Write the adapter as PEFT does, so that it loads on ``base`` (a path or name)."""
    from peft import LoraConfig

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"base_model.model.{key.replace(f'.{name}.', '.')}": value.detach().cpu().contiguous()
        for key, value in model.named_parameters()
        if f".{name}." in key
    }
    config = _peft_config(settings, LoraConfig)
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))
    save_file(tensors, str(folder / ADAPTER_FILE))


def _peft_config(settings: Lora, kind: Any) -> Any:
    return kind(
        r=settings.rank,
        lora_alpha=settings.alpha,
        use_rslora=True,
        lora_dropout=0.0,
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
    )


def _lora_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]
