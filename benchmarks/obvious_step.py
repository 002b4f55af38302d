"""A step of RL as one would first write it, in plain transformers and torch.

As nanoNLA's single-GPU trainer did it at first: the samples of one prompt at a time through
transformers' ``generate``, one explanation at a time through the AR, and log-probabilities of two
samples at a time, prompt and padding included, under the policy and then under its anchor. The
objective is that of :mod:`nla_audit.train.grpo`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from nla_audit.nla.prompts import read_explanation
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.adapters import RL_ADAPTER, without_adapter
from nla_audit.train.clock import Clock
from nla_audit.train.policy import Policy
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.reconstruction import direction_mse
from nla_audit.train.rewards import FAILED_MSE
from nla_audit.train.update import Trainer

#: Samples of one forward and backward pass.
_PAIR = 2
_LENGTH_PENALTY = 0.01


@dataclass
class Sample:
    """One response: its tokens ``[tokens]``, what they were drawn with, what it is worth."""

    vector: torch.Tensor
    ids: torch.Tensor
    log_probs: torch.Tensor
    text: str | None
    reward: float = 0.0
    advantage: float = 0.0


def obvious_step(
    policy: Policy,
    trainer: Trainer,
    reconstructor: Reconstructor,
    *,
    vectors: np.ndarray,
    settings: Rl,
    step: int,
) -> tuple[dict[str, float], float]:
    """A whole step on ``vectors`` ``[prompts, d_model]``.

    Returns:
        Seconds by phase, and how many tokens a response has on average.
    """
    verbalizer = policy.verbalizer
    clock = Clock(verbalizer.device)
    samples: list[Sample] = []
    torch.manual_seed(step)
    for vector in torch.from_numpy(vectors).to(verbalizer.device):
        with clock.phase("generate"):
            group = _sampled(verbalizer, vector, settings)
        with clock.phase("score"):
            for one in group:
                one.reward = _reward(reconstructor, one)
        rewards = np.array([one.reward for one in group])
        for one in group:
            one.advantage = (one.reward - rewards.mean()) / (rewards.std() + 1e-6)
        samples += group
    for start in range(0, len(samples), _PAIR):
        pair = samples[start : start + _PAIR]
        with clock.phase("reference"), torch.no_grad():
            warm = _anchored(policy, pair)
        with clock.phase("update"):
            found = _log_probs(verbalizer, pair)
            losses = [_loss(*row, settings) for row in zip(pair, found, warm, strict=True)]
            (torch.stack(losses).sum() / len(samples)).backward()
    with clock.phase("update"):
        trainer.step(step)
    return clock.seconds, float(np.mean([len(one.ids) for one in samples]))


@torch.no_grad()
def _sampled(verbalizer: Verbalizer, vector: torch.Tensor, settings: Rl) -> list[Sample]:
    """The samples of one activation, with the log-probability of each of their tokens."""
    count, length = settings.samples, len(verbalizer.prompt.ids)
    prompt = torch.tensor(verbalizer.prompt.ids, device=vector.device).expand(count, -1)
    how = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=sorted(verbalizer.end_ids),
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    with _injecting_once(verbalizer, vector.expand(count, -1)):
        out: Any = verbalizer.model.generate(
            prompt, attention_mask=torch.ones_like(prompt), generation_config=how
        )
    logits = torch.stack(out.logits, dim=1)  # [samples, tokens, vocabulary]
    found = []
    for row, tokens in enumerate(out.sequences[:, length:]):
        ends = [place for place, token in enumerate(tokens) if int(token) in verbalizer.end_ids]
        ids = tokens[: ends[0] + 1] if ends else tokens
        log_probs = logits[row, : len(ids)].float().log_softmax(-1)
        chosen = log_probs.gather(1, ids[:, None]).squeeze(1)
        said = verbalizer.tokenizer.decode(ids, skip_special_tokens=True)
        found.append(Sample(vector, ids, chosen, read_explanation(said, ended=bool(ends))))
    return found


@contextmanager
def _injecting_once(verbalizer: Verbalizer, vectors: torch.Tensor) -> Iterator[None]:
    """Inject into the pass over the prompt only; those over single tokens have no marker."""
    injecting = ExitStack()

    def before(_model: Any, _arguments: Any, named: dict[str, Any]) -> None:
        if named["input_ids"].shape[1] > 1:
            injecting.enter_context(verbalizer.injecting(vectors))

    def after(*_: Any) -> None:
        injecting.close()

    model = verbalizer.model
    handles = (
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _reward(reconstructor: Reconstructor, sample: Sample) -> float:
    """One pass of the AR over one explanation."""
    error = FAILED_MSE
    if sample.text is not None:
        (read,) = reconstructor.prompt_ids([sample.text])
        ids = torch.tensor([read], device=sample.vector.device)
        output = reconstructor.decoder(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
        )
        predicted = output.last_hidden_state[0, -1].float() @ reconstructor.head.T
        error = float(direction_mse(predicted, sample.vector, reconstructor.mse_scale))
    return -error - _LENGTH_PENALTY * len(sample.ids)


def _anchored(policy: Policy, pair: list[Sample]) -> list[torch.Tensor]:
    """As :func:`_log_probs`, of the warm start."""
    if policy._warm is not None:
        return _log_probs(policy._warm, pair)
    with without_adapter(policy.verbalizer.model, RL_ADAPTER):
        return _log_probs(policy.verbalizer, pair)


def _log_probs(verbalizer: Verbalizer, pair: list[Sample]) -> list[torch.Tensor]:
    """Log-probabilities ``[tokens]`` of each response, from whole rows padded on the right."""
    prompt = verbalizer.prompt.ids
    length, longest = len(prompt), max(len(one.ids) for one in pair)
    ids = torch.zeros((len(pair), length + longest), dtype=torch.int64, device=pair[0].ids.device)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(pair):
        ids[row, :length] = torch.tensor(prompt)
        ids[row, length : length + len(one.ids)] = one.ids
        mask[row, : length + len(one.ids)] = 1
    with verbalizer.injecting(torch.stack([one.vector for one in pair])):
        logits = verbalizer.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    log_probs = logits.float().log_softmax(-1)
    return [
        log_probs[row, length - 1 : length - 1 + len(one.ids)]
        .gather(1, one.ids[:, None])
        .squeeze(1)
        for row, one in enumerate(pair)
    ]


def _loss(
    sample: Sample, log_probs: torch.Tensor, warm: torch.Tensor, settings: Rl
) -> torch.Tensor:
    """Of one response, a mean over its tokens."""
    ratio = (log_probs - sample.log_probs).exp()
    bounded = ratio.clamp(1 - settings.clip, 1 + settings.clip)
    surrogate = torch.minimum(ratio * sample.advantage, bounded * sample.advantage)
    difference = warm - log_probs
    return (settings.kl * (difference.exp() - difference - 1) - surrogate).mean()
