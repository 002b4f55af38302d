"""A training run as a YAML file: every setting, with its meaning where it is declared.

Unknown keys are errors, and so are values that cannot be meant. What a recipe leaves out has
the default written here or in the ``recipe_*.py`` beside this file, one for each large part; the
resolved recipe is saved with every run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from nla_audit.checkpoint.read_sidecar import template_fault
from nla_audit.errors import UserError
from nla_audit.train.recipe_data import Data, Target
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.recipe_warm_start import WarmStart
from nla_audit.train.runs import NamedRun, Run, all_runs
from nla_audit.train.section import NonNegative, Positive, RecipeSection
from nla_audit.train.tracker import TrackerName


class PairSettings(RecipeSection):
    """The two prompts, the marker and how the vector enters."""

    injection: str = "add:1"
    """add:BLOCK (norm-matched addition, as the sweep) or replace:SCALE (as the release)."""
    marker: str = "㈎"
    """A single token at which the vector is injected."""
    av_template: str = (
        "Here is an activation vector of a language model: <concept>{injection_char}</concept>\n"
        "Describe what it represents inside <explanation> tags."
    )
    """User message of the AV prompt."""
    ar_template: str = "Summary of the following text: <text>{explanation}</text> <summary>"
    """Prompt of the AR, read at its last token."""
    chat_template: str | None = None
    """What makes the AV prompt of the user message, in the place of the tokenizer's own: a Jinja
    template, or plain for one that serves models that were never taught to chat."""
    av: str | None = None
    """Begin from this trained AV instead of the target (then there is no warm start)."""
    ar: str | None = None
    """Begin from this trained AR."""

    @model_validator(mode="after")
    def _both_or_none(self) -> PairSettings:
        if (self.av is None) != (self.ar is None):
            raise ValueError("pair.av and pair.ar belong together: give both or neither")
        return self

    @model_validator(mode="after")
    def _prompts_can_be(self) -> PairSettings:
        for name, placeholder in (
            ("av_template", "injection_char"),
            ("ar_template", "explanation"),
        ):
            fault = template_fault(getattr(self, name), placeholder)
            if fault is not None:
                raise ValueError(f"pair.{name} {fault}")
        return self

    @model_validator(mode="after")
    def _vector_can_enter(self) -> PairSettings:
        self.block()
        return self

    def block(self) -> int | None:
        """The block that the vector is added at; ``None`` where it replaces an embedding."""
        from nla_audit.nla.injection import parse_injection  # torch: a recipe alone needs none

        try:
            return parse_injection(self.injection).block
        except UserError as error:
            raise ValueError(f"pair.{error}") from None


class Evaluation(RecipeSection):
    """Held-out completions of the warm start and of every λ, on the same activations."""

    activations: Positive = 300
    """Held-out activations."""
    samples: Positive = 2
    """Explanations of each by each model; the second shows the resampling floor."""
    prefix_activations: NonNegative = 128
    """Of those, how many whose explanations are read prefix by prefix; 0 for none."""


class Recipe(RecipeSection):
    """A whole course: target, activations, warm start, GRPO over λ, completions, audit."""

    name: str
    """What the run is called in reports."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides everything that is drawn: 32 bits, which is what every library takes."""
    threads: Positive | None = None
    """CPU threads in all; by default all cores."""
    tracking: tuple[TrackerName, ...] | None = None
    """Where metrics go besides the metrics.jsonl of each run: tensorboard (event files in its
    folder), wandb (Weights & Biases, under its own variables: WANDB_PROJECT, WANDB_MODE=offline).
    By default TensorBoard where it is installed; [] is nothing else."""
    target: Target
    """The model to explain."""
    data: Data = Data()
    """Activations and gold explanations."""
    pair: PairSettings = PairSettings()
    """AV and AR prompts and injection."""
    warm_start: WarmStart = WarmStart()
    """Supervised stage."""
    rl: Rl = Rl()
    """Reinforcement learning."""
    runs: tuple[NamedRun, ...] = ()
    """The sweep, as named runs that override rl, beside those of rl.length_penalties."""
    evaluation: Evaluation = Evaluation()
    """Held-out completions."""

    @model_validator(mode="before")
    @classmethod
    def _named_runs_are_all(cls, given: Any) -> Any:
        """Who names runs and no λ's means no run of the default λ beside them."""
        if not isinstance(given, dict) or not given.get("runs"):
            return given
        rl = given.get("rl", {})
        if not isinstance(rl, dict) or "length_penalties" in rl:
            return given
        return {**given, "rl": {**rl, "length_penalties": ()}}

    @model_validator(mode="after")
    def _runs_can_be(self) -> Recipe:
        runs = self.sweep()
        if not self.target.load_in_4bit:
            return self
        for run in runs:
            if run.start is not None:
                raise ValueError(
                    f"run {run.name}: target.load_in_4bit saves adapters only, from which no other "
                    "run can start"
                )
            if run.rl.lora is None:
                raise ValueError(
                    "target.load_in_4bit needs rl.lora: 4-bit weights cannot be trained "
                    f"({run.title})"
                )
            if run.rl.sharding != "none":
                raise ValueError("target.load_in_4bit and rl.sharding do not go together; drop one")
            if run.rl.engine != "own":
                raise ValueError("target.load_in_4bit and rl.engine: vllm do not go together")
        return self

    def sweep(self) -> tuple[Run, ...]:
        """Every run, those of ``rl.length_penalties`` first, each behind the one it starts from."""
        return all_runs(self.rl, self.runs)

    @model_validator(mode="after")
    def _world_has_the_blocks(self) -> Recipe:
        """Of another model they are counted when its config is read, before anything is trained."""
        if self.target.world is None:
            return self
        last = self.target.world.blocks - 1
        for name, block in (
            ("target.layer_index", self.target.layer_index),
            ("pair.injection", self.pair.block()),
        ):
            if block is not None and block > last:
                raise ValueError(f"{name} names block {block}: the world has blocks 0 to {last}")
        return self

    @model_validator(mode="after")
    def _has_data(self) -> Recipe:
        if self.target.world is None and self.data.table is None and self.data.texts is None:
            raise ValueError("give data.table or data.texts: nothing to take activations from")
        return self


def path_of(reference: str, recipe_folder: Path) -> Path:
    """A path in a recipe is relative to the recipe's folder."""
    path = Path(reference).expanduser()
    return path if path.is_absolute() else recipe_folder / path
