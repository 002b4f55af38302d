"""How long a recipe will take on this machine, from how fast it runs the target's blocks now.

Two blocks of the target with random weights and its output matrix are timed for a moment. All of a
course is passes through these, with few exceptions (reading files, the optimiser, the audit): what
is left out makes it somewhat longer than is said here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from nla_audit.errors import UserError, first_line
from nla_audit.nla.architecture import decoder_of, hidden_size, model_class, number_of_blocks
from nla_audit.train.estimate import frozen_dtype, target_config
from nla_audit.train.layout import Layout
from nla_audit.train.pair import layer_of, placement_of
from nla_audit.train.recipe import Data, Recipe, path_of
from nla_audit.train.runs import Run
from nla_audit.train.seeds import Use, stream
from nla_audit.train.texts import cut_into_passages, read_texts

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
    """Seconds of each stage; ``activations`` is ``None`` where the texts cannot be read."""

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
    torch.set_num_threads(recipe.threads or os.cpu_count() or 1)
    whole = any(run.rl.lora is None for run in layout.runs)
    dtype = torch.float32 if whole else frozen_dtype(recipe, config)
    device = placement_of(recipe.target).chosen_device()
    try:
        speed = measure_speed(config, dtype, device)
    except Exception as error:  # anyone's code, on any device
        raise UserError(f"the target's blocks cannot be timed: {first_line(error)}") from None
    return duration(layout, config, speed)


def measure_speed(config: Any, dtype: torch.dtype, device: str) -> Speed:
    """Time two blocks of a model of this config, and its output matrix."""
    small = deepcopy(config)
    inner = small.get_text_config(decoder=True)
    inner.num_hidden_layers = _BLOCKS
    if getattr(inner, "layer_types", None):
        inner.layer_types = inner.layer_types[:_BLOCKS]
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
    return Speed(whole / (_ROWS * _TOKENS * _BLOCKS), step / _BLOCKS, words / _TOKENS)


def _seconds(work: Callable[[], Any], device: str) -> float:
    def once() -> float:
        began = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    return median(once() for _ in range(_TIMES))


def duration(layout: Layout, config: Any, speed: Speed) -> Duration:
    """Seconds of each stage but the audit."""
    recipe = layout.recipe
    work = _Work(recipe, number_of_blocks(config), layer_of(recipe.target, config) + 1, speed)
    runs, settings, half = layout.runs, recipe.evaluation, recipe.warm_start
    warm = 0.0
    if recipe.pair.av is None:
        measured = half.evaluation_rows
        warm += half.ar.steps * work.ar_step(half.ar.batch_size)
        warm += half.ar.steps / half.evaluate_every * work.read(measured)
        warm += half.av.steps * work.av_step(half.av.batch_size)
        warm += half.av.steps / half.evaluate_every * work.explain_and_read(measured)
    models = 1 + len(runs)
    return Duration(
        activations=_activations(layout, work),
        warm_start=warm,
        rl=sum(work.run(run) for run in runs) / recipe.rl.processes,
        completions=models * work.explain_and_read(settings.activations * settings.samples),
    )


def _activations(layout: Layout, work: _Work) -> float | None:
    data = layout.recipe.data
    if data.texts is None:
        return 0.0 if data.table is not None else None
    try:
        tokens = _tokens_to_read(layout, data)
    except UserError:
        return None
    return tokens * work.ar_blocks * work.speed.token


def _tokens_to_read(layout: Layout, data: Data) -> float:
    texts = read_texts(path_of(str(data.texts), layout.folder))
    if data.passages is not None:
        texts = cut_into_passages(texts, data.passages, stream(layout.recipe.seed, Use.PASSAGES))
    most = data.context_tokens
    return sum(min(len(text) / _CHARACTERS_PER_TOKEN, most) for text in texts.texts)


class _Work:
    """Seconds of the passes that a course is made of.

    Args:
        blocks: of the AV.
        ar_blocks: of the AR.
    """

    def __init__(self, recipe: Recipe, blocks: int, ar_blocks: int, speed: Speed) -> None:
        self.recipe, self.blocks, self.ar_blocks, self.speed = recipe, blocks, ar_blocks, speed
        pair = recipe.pair
        self.av_prompt = len(pair.av_template) / _CHARACTERS_PER_TOKEN + _CHAT_TOKENS
        self.ar_prompt = len(pair.ar_template) / _CHARACTERS_PER_TOKEN
        self.explanation = _USUAL_SHARE * recipe.rl.max_new_tokens

    def read(self, texts: float, passes: float = 1) -> float:
        """The AR on some explanations."""
        tokens = texts * (self.ar_prompt + self.explanation)
        return passes * tokens * self.ar_blocks * self.speed.token

    def ar_step(self, texts: int) -> float:
        return self.read(texts, _FORWARD_AND_BACKWARD)

    def judge(self, texts: float, passes: float = 1) -> float:
        """The AV's log-probabilities of some explanations."""
        tokens = texts * (self.av_prompt + self.explanation)
        words = texts * self.explanation
        return passes * (tokens * self.blocks * self.speed.token + words * self.speed.word)

    def av_step(self, texts: int) -> float:
        return self.judge(texts, _FORWARD_AND_BACKWARD)

    def explain(self, texts: float) -> float:
        """The AV's sampling: a token of each row after another, to the cap."""
        steps = self.recipe.rl.max_new_tokens
        going = _USUAL_SHARE * texts  # rows that have not ended, on the whole
        # A step of few rows takes as long as one of more; from some on it grows with them.
        block = max(self.speed.step, going * self.speed.token)
        return steps * (self.blocks * block + going * self.speed.word)

    def explain_and_read(self, texts: float) -> float:
        return self.explain(texts) + self.read(texts)

    def run(self, run: Run) -> float:
        """One run of RL, its held-out measurements included."""
        rl = run.rl
        texts = rl.prompts * rl.samples
        passes = 1 + rl.updates_per_step * _FORWARD_AND_BACKWARD  # one is the anchor's
        step = self.explain(texts) + self.read(texts) + self.judge(texts, passes)
        if rl.train_ar:
            step += self.ar_step(texts)
        measurements = 1 + rl.steps / rl.evaluate.every
        whole = rl.steps * step
        if rl.minutes is not None:
            whole = min(whole, 60 * rl.minutes)
        return whole + measurements * self.explain_and_read(rl.evaluate.rows)
