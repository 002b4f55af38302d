"""What a recipe says of how weights are trained, in the warm start and in RL alike."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nla_audit.train.section import NonNegative, Rate, RecipeSection


class Lora(RecipeSection):
    """Low-rank adapters, scaled by α/√r (rsLoRA)."""

    rank: Annotated[int, Field(gt=0, le=65_536)] = 16
    """r."""
    alpha: Rate = 16.0
    """α."""
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the linear layers that get one."""


class Optimizer(RecipeSection):
    """AdamW."""

    learning_rate: Rate
    """Peak rate."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """After the warm-up: stay, or follow a cosine to a tenth of the peak."""
    warmup_steps: NonNegative = 10
    """Steps over which the rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Decoupled."""
    max_grad_norm: Rate = 1.0
    """Gradients are scaled down to this L2 norm."""
