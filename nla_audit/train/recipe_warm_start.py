"""What a recipe says of the warm start."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nla_audit.train.recipe_engine import EngineName, check_engine_options
from nla_audit.train.recipe_optimizer import Lora, Optimizer
from nla_audit.train.section import Positive, RecipeSection


class Supervised(RecipeSection):
    """Warm start of one half."""

    optimizer: Optimizer
    """How it learns."""
    steps: Positive = 1000
    """Optimiser steps."""
    batch_size: Positive = 64
    """Rows of a step."""
    lora: Lora | None = None
    """Train adapters, merged at the end; without this section all weights are trained."""


class OnGenerated(Supervised):
    """More training of the AR, on what the AV writes once its own warm start is done."""

    texts: Positive = 1000
    """Training activations that the AV explains once each, at temperature 1."""
    gold_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of gold, of the same activations, among the texts. It keeps the AR's reading of gold
    from fading, and its trust in the AV's words too high: it cannot tell which text is which."""
    engine: EngineName = "own"
    """Who generates the texts. vllm (nla-audit[vllm]) takes one process; its samples are others. It
    ends before the AR is trained."""
    engine_options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of vllm.LLM, as {tensor_parallel_size: 4}."""

    @model_validator(mode="after")
    def _engine_takes_options(self) -> OnGenerated:
        check_engine_options("warm_start.ar_on_generated", self.engine, self.engine_options)
        return self


class WarmStart(RecipeSection):
    """Supervised training of both halves on gold explanations."""

    av: Supervised = Supervised(optimizer=Optimizer(learning_rate=3e-5))
    """Cross-entropy on the gold response with the vector injected."""
    ar: Supervised = Supervised(optimizer=Optimizer(learning_rate=3e-5))
    """Direction-only MSE at the last token of the gold explanation; the head starts as identity."""
    ar_prefixes: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the gold explanations that the AR reads cut off, at a length drawn anew each time.
    An AR whose RL grades prefixes must know them: one that met short ones untrained went to NaN."""
    ar_on_generated: OnGenerated | None = None
    """An AR of gold takes each word for true, and reads a text that is partly wrong as worse than
    none. With this section it also learns how far the AV's own words are to be trusted."""
    evaluate_every: Positive = 100
    """Steps between measurements on held-out rows."""
    evaluation_rows: Positive = 128
    """Held-out rows of those measurements."""
    checkpoint_every: Positive = 100
    """Steps between saved states; after a kill the course goes on from the last."""
    keep: Literal["last", "best_fve"] = "last"
    """Which weights of each half RL begins from: the last, or those with the highest FVE on
    held-out rows so far, measured every evaluate_every steps (of the AV's explanations, failed
    ones as 0; of gold texts for the AR). The best cost a third of a saved state on disk."""
