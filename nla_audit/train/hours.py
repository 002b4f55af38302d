"""How long a recipe will take on this machine, from how fast it runs the target's blocks now.

Two blocks of the target with random weights and its output matrix are timed for a moment. Most of a
course is passes through these. What is left out makes it longer than is said here: a labeler that
writes gold, the training of a target that speaks a language of ours, the optimiser, the audit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from nla_audit.errors import UserError, first_line
from nla_audit.nla.architecture import (
    decoder_of,
    hidden_size,
    keep_first_blocks,
    model_class,
    number_of_blocks,
    text_config,
)
from nla_audit.nla.threads import threads_for
from nla_audit.train.estimate import frozen_dtype, target_config
from nla_audit.train.layout import Layout
from nla_audit.train.pair import layer_of, placement_of
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.runs import Run
from nla_audit.train.scheduling import share_threads
from nla_audit.train.texts import texts_of_recipe

_BLOCKS = 2
#: Rows and tokens of the timed pass, and how often it is made.
_ROWS, _TOKENS, _TIMES = 4, 96, 3
#: A backward pass costs as much again twice: by the inputs and, with adapters nearly so, by the
#: weights.
_FORWARD_AND_BACKWARD = 3
#: Of a text in most languages and tokenizers.
_CHARACTERS_PER_TOKEN = 4
#: Where nothing has been written yet, an explanation is taken to be this share of its cap.
_USUAL_SHARE = 0.5
#: Around the template of a prompt.
_CHAT_TOKENS = 10


@dataclass(frozen=True)
class Speed:
    """Seconds, of the device as busy as it is now.

    Attributes:
        token: of a token on its way through one block, in a batch.
        step: of a block for one token of each of ``_ROWS`` rows.
        word: of one token's logits.
    """

    token: float
    step: float
    word: float


@dataclass(frozen=True)
class Duration:
    """Seconds of each stage.

    ``activations`` is ``None`` where the texts are not known: they cannot be read, or are yet to
    be written in a language of ours.
    """

    activations: float | None
    warm_start: float
    rl: float
    completions: float


def expected(layout: Layout) -> Duration:
    """Seconds of each stage of a recipe on this machine.

    Raises:
        UserError: the target's config is not to be had here and now, or its blocks cannot be run.
    """
    recipe, config = layout.recipe, target_config(layout)
    whole = any(run.rl.lora is None for run in layout.runs)
    dtype = torch.float32 if whole else frozen_dtype(recipe, config)
    device = placement_of(recipe.target).chosen_device()

    def speed_among(processes: int) -> Speed:
        share_threads(recipe, processes)
        with threads_for(hidden_size(config), torch.device(device)):
            return measure_speed(config, dtype, device)

    processes = at_once(layout)
    try:
        speed = speed_among(1)
        in_rl = speed if processes == 1 else speed_among(processes)
    except Exception as error:  # anyone's code, on any device
        raise UserError(f"the target's blocks cannot be timed: {first_line(error)}") from None
    return duration(layout, config, speed, in_rl)


def at_once(layout: Layout) -> int:
    """Runs that are trained at the same time."""
    return max(1, min(layout.recipe.rl.processes, len(layout.runs)))


def measure_speed(config: Any, dtype: torch.dtype, device: str) -> Speed:
    """Time the first blocks of a model of this config, and its output matrix."""
    small, blocks = deepcopy(config), min(_BLOCKS, number_of_blocks(config))
    keep_first_blocks(small, blocks)
    inner = text_config(small)
    vocabulary, width = inner.vocab_size, hidden_size(config)
    inner.vocab_size, inner.pad_token_id = _TOKENS, None  # no embedding is timed
    with torch.device(device):
        decoder = decoder_of(model_class(small).from_config(small, dtype=dtype).eval())
        ids = torch.zeros((_ROWS, _TOKENS), dtype=torch.int64)
        weight = torch.ones((vocabulary, width), dtype=dtype)
        states = torch.ones((_TOKENS, width), dtype=dtype)
    with torch.inference_mode():
        whole = _seconds(lambda: decoder(input_ids=ids, use_cache=False), device)
        step = _seconds(lambda: decoder(input_ids=ids[:, :1], use_cache=False), device)
        words = _seconds(lambda: states @ weight.T, device)
    return Speed(whole / (_ROWS * _TOKENS * blocks), step / blocks, words / _TOKENS)


def _seconds(work: Callable[[], Any], device: str) -> float:
    def once() -> float:
        began = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    return median(once() for _ in range(_TIMES))


def duration(
    layout: Layout, config: Any, speed: Speed, speed_in_rl: Speed | None = None
) -> Duration:
    """Seconds of each stage but the audit.

    Args:
        speed_in_rl: of one process, with its share of the threads, of those that train runs at
            the same time; by default ``speed``.
    """
    recipe = layout.recipe
    work = _Work(
        av_prompt=len(recipe.pair.av_template) / _CHARACTERS_PER_TOKEN + _CHAT_TOKENS,
        ar_prompt=len(recipe.pair.ar_template) / _CHARACTERS_PER_TOKEN,
        blocks=number_of_blocks(config),
        ar_blocks=layer_of(recipe.target, config) + 1,
        speed=speed,
        cap=recipe.rl.max_new_tokens,
    )
    in_rl = replace(work, speed=speed_in_rl or speed)
    runs, settings, half = layout.runs, recipe.evaluation, recipe.warm_start
    warm = 0.0
    if recipe.pair.av is None:
        measured = half.evaluation_rows
        warm += half.ar.steps * work.ar_step(half.ar.batch_size)
        warm += half.ar.steps / half.evaluate_every * work.read(measured)
        warm += half.av.steps * work.av_step(half.av.batch_size)
        warm += half.av.steps / half.evaluate_every * work.measure_av(measured)
    more = half.ar_on_generated
    if more is not None:
        warm += work.explain_and_read(more.texts + half.evaluation_rows)
        warm += more.steps * work.ar_step(more.batch_size)
        warm += more.steps / half.evaluate_every * work.read(measured)
    said = settings.activations * settings.samples
    completions = [work.explain_and_read(said)]
    completions += [work.of(run).explain_and_read(said) for run in runs]
    return Duration(
        activations=_activations(layout, work),
        warm_start=warm,
        rl=sum(in_rl.of(run).run(run.rl) for run in runs) / at_once(layout),
        completions=sum(completions),
    )


def _activations(layout: Layout, work: _Work) -> float | None:
    data = layout.recipe.data
    if data.texts is None:
        return 0.0 if data.table is not None else None
    try:
        texts = texts_of_recipe(layout.recipe, layout.folder).texts
    except UserError:
        return None
    tokens = sum(min(len(text) / _CHARACTERS_PER_TOKEN, data.context_tokens) for text in texts)
    return tokens * work.ar_blocks * work.speed.token


@dataclass(frozen=True)
class _Work:
    """Seconds of the passes that a course is made of.

    Attributes:
        blocks: of the AV.
        ar_blocks: of the AR.
        speed: of these blocks.
        cap: on an explanation, in tokens.
    """

    av_prompt: float
    ar_prompt: float
    blocks: int
    ar_blocks: int
    speed: Speed
    cap: int

    @property
    def explanation(self) -> float:
        """Tokens."""
        return _USUAL_SHARE * self.cap

    def of(self, run: Run) -> _Work:
        """With the run's own cap."""
        return replace(self, cap=run.rl.max_new_tokens)

    def read(self, texts: float, passes: float = 1) -> float:
        """The AR on some explanations."""
        tokens = texts * (self.ar_prompt + self.explanation)
        return passes * tokens * self.ar_blocks * self.speed.token

    def ar_step(self, texts: int) -> float:
        return self.read(texts, _FORWARD_AND_BACKWARD)

    def judge(self, texts: float, passes: float = 1, *, prompts: float | None = None) -> float:
        """The AV's log-probabilities of some explanations, each with its prompt or of so many."""
        tokens = (texts if prompts is None else prompts) * self.av_prompt + texts * self.explanation
        words = texts * self.explanation
        return passes * (tokens * self.blocks * self.speed.token + words * self.speed.word)

    def av_step(self, texts: int) -> float:
        return self.judge(texts, _FORWARD_AND_BACKWARD)

    def explain(self, texts: float) -> float:
        """The AV's sampling: a token of each row after another, to the cap."""
        going = _USUAL_SHARE * texts  # rows that have not ended, on the whole
        # A step of few rows takes as long as one of more; from some on it grows with them.
        block = max(self.speed.step, going * self.speed.token)
        return self.cap * (self.blocks * block + going * self.speed.word)

    def explain_and_read(self, texts: float) -> float:
        return self.explain(texts) + self.read(texts)

    def measure_av(self, texts: float) -> float:
        """The AV on held-out rows; gold is judged by its own activation and by another."""
        return self.explain_and_read(texts) + self.judge(texts, 2)

    def run(self, rl: Rl) -> float:
        """One run of RL, its held-out measurements included."""
        texts = rl.prompts * rl.samples
        passes = 1 + rl.updates_per_step * _FORWARD_AND_BACKWARD  # one is the anchor's
        # As Policy.shares_prompts, as far as a recipe tells.
        is_shared = not rl.gradient_checkpointing and rl.sharding == "none"
        prompts = rl.prompts if is_shared else texts
        step = self.explain(texts) + self.read(texts)
        step += self.judge(texts, passes, prompts=prompts)
        if rl.train_ar:
            step += self.ar_step(texts)
        measurements = 1 + rl.steps / rl.evaluate.every
        whole = rl.steps * step
        if rl.minutes is not None:
            whole = min(whole, 60 * rl.minutes)
        return whole + measurements * self.explain_and_read(rl.evaluate.rows)
