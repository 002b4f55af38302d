"""What a recipe says of reinforcement learning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, WithJsonSchema, model_validator

from nla_audit.train.grading import Grading, read_grading
from nla_audit.train.grpo import AdvantageKind
from nla_audit.train.lengths import Charge, Counts, NothingPays
from nla_audit.train.recipe_engine import EngineName, check_engine_options
from nla_audit.train.recipe_optimizer import Lora, Optimizer
from nla_audit.train.section import (
    NonNegative,
    Penalty,
    Positive,
    Rate,
    RecipeSection,
    Share,
    Weight,
    check_address,
)


class Judge(RecipeSection):
    """A language model that gives explanations a score, which rl.rewards weighs by its name."""

    model: str
    """Name that the endpoint knows it by."""
    base_url: str = "http://localhost:8000/v1"
    """Of an OpenAI-compatible endpoint; its key is read from OPENAI_API_KEY."""
    prompt: str
    """What it is asked; {explanation} is the explanation, {source} the text up to the activation's
    token. It has to ask for one number, which is read from the last line of the answer."""
    lowest: Weight = 0.0
    """The score that becomes 0."""
    highest: Weight = 10.0
    """The score that becomes 1."""
    max_new_tokens: Positive = 64
    """Cap on an answer; one that is cut is none."""
    temperature: Annotated[float | None, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Sent along; null sends none, for models that take their own only."""
    token_limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls max_new_tokens; reasoning models take max_completion_tokens."""
    workers: Positive = 8
    """Requests at once."""
    most_missing: Share = 0.5
    """The run stops where a larger share of a step's explanations gets no score. A missing score
    counts as the mean of its group."""

    @property
    def reads_source(self) -> bool:
        """Whether it is shown the text that the activation is of."""
        return "{source}" in self.prompt

    @model_validator(mode="after")
    def _can_judge(self) -> Judge:
        if "{explanation}" not in self.prompt:
            raise ValueError("rl.judges: the prompt has no {explanation}, so nothing is judged")
        if self.lowest >= self.highest:
            raise ValueError(
                f"rl.judges: lowest {self.lowest:g} is not below highest {self.highest:g}"
            )
        check_address(self.base_url, "rl.judges")
        return self


class Evaluating(RecipeSection):
    """Measurement during RL."""

    every: Positive = 25
    """Steps between measurements on held-out rows; also before the first and after the last."""
    rows: Positive = 128
    """Held-out rows of a measurement, the same ones for every λ."""


class Rl(RecipeSection):
    """GRPO, one run for each λ, all from the same warm start; the base of named runs."""

    length_penalties: tuple[Penalty, ...] = (0.0,)
    """λ of each run: reward lost per token. Beside named runs there are none of these unless they
    are given."""
    length_counts: Counts = "generated"
    """Tokens up to and including the first end token, or those inside the tags only."""
    free_tokens: NonNegative = 0
    """λ is paid for each token beyond these; up to here what is said decides alone. Of generated
    tokens the tags and the end token are some."""
    nothing_pays: NothingPays = "own_length"
    """What λ charges a response that says nothing: one that failed, is empty, or whose
    reconstruction is no closer than the mean of all activations. Its own_length, under which a
    large λ teaches to answer nothing at all; or the longest_length of its group, under which the
    shortest text that says something is best."""
    rewards: dict[str, Weight] = Field(default_factory=lambda: {"negative_mse": 1.0})
    """Reward terms by name with their weights; a weight of 0 only monitors. The length term is
    λ's own and is not listed here."""
    judges: dict[str, Judge] = Field(default_factory=dict)
    """Language models that score explanations, by the names under which rewards weighs them: the
    reward is the weight times a score from 0 to 1. Each explanation of every step is asked about
    once, and those of the completions; the log has scores, requests and tokens."""
    grading: Annotated[
        SerializeAsAny[Grading], BeforeValidator(read_grading), WithJsonSchema({"type": "object"})
    ] = Field(default_factory=lambda: read_grading("final"))
    """At which ends of a response its text is read and rewarded: its kind and what that takes, as
    {kind: fixed_prefixes, lengths: [8, 16, 32]}. A kind that is none is told which there are."""
    credit: Literal["segment", "response"] = "segment"
    """Whether a token is credited with what is graded at or behind it, or with all of the
    response; the same where only the whole text is graded."""
    steps: NonNegative = 250
    """Steps of each run."""
    minutes: Rate | None = None
    """Stop a run after this much training time instead, if it comes first: the fair comparison
    where short explanations make cheap steps."""
    prompts: Positive = 16
    """Activations of a step."""
    samples: Annotated[int, Field(ge=2)] = 16
    """Explanations of each activation: the group whose mean reward is the baseline."""
    max_new_tokens: Positive = 160
    """Cap on a response; one that hits it has failed."""
    clip: Rate = 0.2
    """ε of the clipped ratio."""
    kl: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    """β of the k3 estimate of KL to the warm start."""
    advantage: AdvantageKind = "standardized"
    """Reward minus the group's mean, divided by the group's standard deviation, or not divided
    (centered), or divided by one standard deviation about the groups' means over all of the step
    (batch_standardized): then a group whose rewards hardly differ is not blown up to the size of
    the others."""
    flat_groups: Literal["keep", "leave_out", "replace"] = "keep"
    """What becomes of groups whose responses all earn the same, which have no advantages: kept,
    they lower the others' weight and add their KL; left out, the loss is the mean over the rest;
    replaced, other activations are drawn in their place, and what is flat then is left out. The
    log of a step has their shares."""
    replacement_rounds: Positive = 2
    """How often at most flat groups are replaced; each time as many are sampled as were flat."""
    length_normalization: Literal["sample", "batch", "constant"] = "sample"
    """A response's token losses are averaged over its own tokens (GRPO), over all tokens of the
    step, or divided by max_new_tokens."""
    updates_per_step: Positive = 1
    """Passes over the samples of a step; the clip only matters from the second one on."""
    optimizer: Optimizer = Optimizer(learning_rate=1e-5, schedule="constant")
    """Of the AV."""
    lora: Lora | None = Lora()
    """Adapters of the AV; null trains all weights against a frozen copy."""
    train_ar: bool = False
    """Co-train the AR on the explanations of the step. Recorded in every checkpoint."""
    ar_optimizer: Optimizer = Optimizer(learning_rate=5e-5, schedule="constant")
    """Of the AR, where it is trained."""
    ar_lora: Lora | None = None
    """Adapters of the AR, beside its whole head; null trains all of its weights."""
    ar_ema: Share | None = None
    """Decay of a running average of the AR's trained weights, as 0.99. Where there is one it reads
    in the place of the last weights, which go on learning: for the reward, for held-out figures of
    the own AR, and in what is saved."""
    micro_batch_tokens: Positive | None = None
    """Tokens, padding included, of a forward and backward pass. By default by device."""
    generation_batch: Positive | None = None
    """Samples generated at once; by default all of the step."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    engine: EngineName = "own"
    """Who samples the responses of a step, and writes the completions. vllm (nla-audit[vllm]) is
    given the adapters (with no rl.lora: the weights) before every step, so that nothing is sampled
    from older ones; the log has by how many nats its log-probabilities are off the policy's
    (sampler_off). It takes one process, and runs uncompiled (enforce_eager) where vectors are added
    at a block. Held-out figures of a run are always by our own loop."""
    engine_options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of vllm.LLM, as {gpu_memory_utilization: 0.3} where training needs the rest;
    {enable_lora: false} merges adapters into the weights first."""
    decoding: Literal["plain", "compiled"] = "plain"
    """How our own loop samples the responses of a step and the held-out ones. compiled has torch
    compile the step of one token, on a GPU as CUDA graphs, for those that wait for Python (not
    measured there yet; a CPU gains little). It takes up to minutes to begin, and keeps the cache of
    its largest batch between the steps (generation_batch bounds it). The completions are by the
    plain loop."""
    evaluate: Evaluating = Evaluating()
    """Held-out measurements."""
    checkpoint_every: Positive = 25
    """Steps between saved states."""
    keep: Literal["last", "best_fve", "best_reward"] = "last"
    """Which weights the run is saved with, and the completions and the audit read: the last, or
    those that were best when measured (evaluate.every) on held-out rows: by FVE (the ruler's,
    failed explanations as 0), or by the reward, length included. Where length is charged the
    highest FVE is often that of an early, long-winded step. The best of many noisy measurements is
    flattered by its own; take evaluate.rows large. The best cost a third of a saved state on disk,
    two thirds between two of them; the last stay in the state, from which a longer run goes on."""
    sharding: Literal["none", "fsdp2"] = "none"
    """With several processes (started by torchrun): each holds whole models, or (fsdp2)
    a share of the weights, gradients and averages of the AV, of the frozen copy it is anchored to
    and of a trained AR. For sampling and scoring each model is put together in every process."""
    max_skipped_steps: Positive = 5
    """Consecutive steps with a non-finite loss or gradient that are skipped before the run
    stops."""
    processes: Positive = 1
    """Runs (λ's) trained at the same time, sharing the processor's cores."""

    @model_validator(mode="after")
    def _engine_takes_options(self) -> Rl:
        check_engine_options("rl", self.engine, self.engine_options)
        if self.decoding == "compiled" and self.engine == "vllm":
            raise ValueError("rl.decoding: compiled is for rl.engine: own")
        if self.decoding == "compiled" and self.sharding != "none":
            raise ValueError(
                "rl.decoding: compiled needs weights that stay where they are: rl.sharding: none"
            )
        if self.engine == "vllm" and self.processes > 1:
            raise ValueError("rl.engine: vllm takes rl.processes: 1, for each would start its own")
        return self

    @model_validator(mode="after")
    def _judges_are_weighed(self) -> Rl:
        for name in self.judges:
            if name not in self.rewards:
                raise ValueError(
                    f"rl.judges.{name} has no weight in rl.rewards; give it one (0 only records)"
                )
        return self

    def charge(self) -> Charge:
        """Which tokens are charged."""
        return Charge(self.length_counts, self.free_tokens)

    @model_validator(mode="after")
    def _adapters_are_trained(self) -> Rl:
        if self.ar_lora is not None and not self.train_ar:
            raise ValueError("rl.ar_lora needs rl.train_ar: true; a frozen AR has no adapters")
        if self.ar_ema is not None and not self.train_ar:
            raise ValueError("rl.ar_ema needs rl.train_ar: true; a frozen AR is its own average")
        return self

    @model_validator(mode="after")
    def _distinct(self) -> Rl:
        if len(set(self.length_penalties)) != len(self.length_penalties):
            raise ValueError("rl.length_penalties names a λ twice; each run has its own folder")
        return self
