"""A training run as a YAML file: every setting, with its meaning where it is declared.

Unknown keys are errors, and so are values that cannot be meant. What a recipe leaves out has
the default written here, and the resolved recipe is saved with every run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    WithJsonSchema,
    model_validator,
)

from nla_audit.errors import UserError
from nla_audit.llm.address import address_of
from nla_audit.train.grading import Grading, read_grading
from nla_audit.train.grpo import AdvantageKind
from nla_audit.train.lengths import Charge, Counts, NothingPays
from nla_audit.train.runs import NamedRun, Run, all_runs
from nla_audit.train.section import (
    NonNegative,
    Penalty,
    Positive,
    Rate,
    RecipeSection,
    Share,
    Weight,
)
from nla_audit.train.tracker import TrackerName


class World(RecipeSection):
    """The synthetic language and the small transformer that is trained on it from scratch."""

    words: Annotated[int, Field(gt=0, le=10_000)] = 40
    """Words of a document."""
    peakiness: Rate = 2.2
    """Standard deviation of the logits a fact adds to its words: higher is easier to read off."""
    d_model: Annotated[int, Field(gt=0, le=65_536)] = 96
    """Width of the residual stream; a multiple of 4 attention heads."""
    blocks: Annotated[int, Field(ge=2, le=1024)] = 4
    """Decoder blocks."""
    steps: Positive = 600
    """Steps of training from scratch."""
    batch_size: Annotated[int, Field(gt=0, le=1_000_000)] = 48
    """Documents of a step; every step has fresh ones."""
    learning_rate: Rate = 3e-3
    """Peak rate of AdamW, with a short warm-up and a cosine to zero."""
    documents: Annotated[int, Field(gt=0, le=100_000_000)] = 3000
    """Documents written for activations (the target never trains on these)."""


class Target(RecipeSection):
    """The model whose activations are explained; AV and AR start as copies of it."""

    model: str | None = None
    """A causal language model: a folder, or owner/name on the Hub. Leave out for a world."""
    world: World | None = None
    """Train a small target from scratch instead."""
    layer_index: NonNegative | None = None
    """Extraction layer K: the activation is the output of block K. By default about two thirds
    of the depth."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of target, AV and AR; auto is as saved, but bfloat16 for a wide float32 model on a
    CPU that multiplies in it. What is trained is float32 whatever this says: adapters, or
    all weights where there are none. So are sums, losses and optimisers."""
    device: str | None = None
    """For example cpu or cuda:0; by default a GPU where there is one."""
    load_in_4bit: bool = False
    """Quantise the AV in RL (needs bitsandbytes, a GPU and rl.lora). Runs are then saved as
    adapters only, because 4-bit weights cannot take them in."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Target:
        if (self.model is None) == (self.world is None):
            raise ValueError("give exactly one of target.model and target.world")
        return self


def _check_address(url: str, place: str) -> None:
    try:
        address_of(url)
    except UserError as error:
        raise ValueError(f"{place}.base_url: {error}") from None


class Labeler(RecipeSection):
    """Who writes gold explanations where the data has none."""

    kind: Literal["openai", "transformers", "rule"] = "openai"
    """An OpenAI-compatible endpoint, a local transformers model, or no model: a rule that names
    the kind of document (what its doc_id has before a slash), key words and the last words."""
    model: str = ""
    """Name the endpoint knows the model by, or a folder or owner/name; the rule has none."""
    base_url: str = "http://localhost:8000/v1"
    """Of the endpoint; its key is read from OPENAI_API_KEY."""
    max_new_tokens: Positive = 200
    """Cap on an explanation."""
    workers: Positive = 8
    """Requests at once."""
    temperature: Annotated[float | None, Field(ge=0.0, allow_inf_nan=False)] = None
    """Sent along to an endpoint; without it the model's own holds."""
    token_limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls max_new_tokens; reasoning models take max_completion_tokens."""
    prompt: str = (
        "Below is the beginning of a text, cut off at some token. Name the two or three features "
        "of it that would best predict what comes next; the last must describe the very end of "
        "the text. Plain sentences, no list, no preamble.\n\n{text}"
    )
    """What it is asked; {text} is the source up to the activation's token."""

    @model_validator(mode="after")
    def _has_a_model(self) -> Labeler:
        if not self.model and self.kind != "rule":
            raise ValueError("data.labeler.model is missing; add it, or say kind: rule")
        return self

    @model_validator(mode="after")
    def _address_holds_no_key(self) -> Labeler:
        """The recipe is written down; a key must not be."""
        _check_address(self.base_url, "data.labeler")
        return self


class Passages(RecipeSection):
    """Long documents are cut, so that more of them is read than the beginning."""

    characters: Annotated[int, Field(ge=50, le=10**9)] = 700
    """Of a passage, at most; it ends with a paragraph, a line or a sentence where it can."""
    at_most: Positive | None = None
    """Passages in all, drawn at random; by default every one."""


class Data(RecipeSection):
    """Activations and the gold explanations of the warm start."""

    table: str | None = None
    """Ready-made Parquet: activation_vector, doc_id, and response (the gold explanation)."""
    texts: str | None = None
    """Documents to extract from: Parquet, JSONL or CSV with a text column (and doc_id), a .txt
    file, or a folder of either."""
    passages: Passages | None = None
    """Cut the documents of texts first; passages of one are held out together or not at all."""
    positions_per_document: Positive = 4
    """Activations taken from a document, at tokens drawn at random."""
    first_position: NonNegative = 20
    """Tokens before this one are never taken: too little has been read there."""
    context_tokens: Positive = 512
    """A document is cut after this many tokens."""
    held_out_share: Share = 0.1
    """Share of documents (never of rows) kept from all training."""
    labeler: Labeler | None = None
    """Writes gold explanations for rows without one."""


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
        _check_address(self.base_url, "rl.judges")
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
        return self

    def sweep(self) -> tuple[Run, ...]:
        """Every run, those of ``rl.length_penalties`` first, each behind the one it starts from."""
        return all_runs(self.rl, self.runs)

    @model_validator(mode="after")
    def _has_data(self) -> Recipe:
        if self.target.world is None and self.data.table is None and self.data.texts is None:
            raise ValueError("give data.table or data.texts: nothing to take activations from")
        return self


def path_of(reference: str, recipe_folder: Path) -> Path:
    """A path in a recipe is relative to the recipe's folder."""
    path = Path(reference).expanduser()
    return path if path.is_absolute() else recipe_folder / path
