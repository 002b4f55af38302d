"""Whether the layers that a recipe puts adapters on exist, asked before anything is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from nla_audit.errors import UserError
from nla_audit.train.layout import Layout
from nla_audit.train.recipe_optimizer import Lora

#: More names would only make a line long.
_NAMED = 12


def check_lora_targets(layout: Layout) -> None:
    """Check every ``lora`` of the recipe on an empty model of the target's config.

    Nothing is said where that config cannot be read here: loading the model will say why.

    Raises:
        UserError: the model has no layer of one of the names, which peft would leave out.
    """
    from nla_audit.train.estimate import empty_target

    warm = layout.recipe.warm_start
    settings = {"warm_start.av.lora": warm.av.lora, "warm_start.ar.lora": warm.ar.lora}
    for run in layout.runs:
        at = "" if run.rl is layout.recipe.rl else f"run {run.name}: "
        settings[f"{at}rl.lora"] = run.rl.lora
        settings[f"{at}rl.ar_lora"] = run.rl.ar_lora if run.rl.train_ar else None
    wanted = {key: lora for key, lora in settings.items() if lora is not None}
    if not wanted:
        return
    try:
        model = empty_target(layout)
    except UserError:
        return
    for key, lora in wanted.items():
        _check(model, lora, key)


def _check(model: Any, lora: Lora, key: str) -> None:
    from transformers.pytorch_utils import Conv1D

    output = model.get_output_embeddings()
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding | Conv1D) and module is not output
    ]
    lacking = [
        target
        for target in lora.target_modules
        if not any(name == target or name.endswith(f".{target}") for name in layers)
    ]
    if not lacking:
        return
    there = sorted({name.rsplit(".", 1)[-1] for name in layers})
    others = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
    raise UserError(
        f"{key}.target_modules: {type(model).__name__} has no {', '.join(lacking)}; its layers are "
        f"{', '.join(there[:_NAMED])}{others}"
    )
