"""Responses divided into passes that fit in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.nla.batching import by_token_budget, distinct_rows
from nla_audit.nla.generation import NO_TOKEN
from nla_audit.nla.prompts import AvPrompt

#: Tokens of a forward and backward pass, padding included, by type of device.
TOKEN_BUDGETS = {"cpu": 4096, "cuda": 16384}
_OTHER_TOKEN_BUDGET = 8192


def default_token_budget(device_type: str) -> int:
    """Tokens of a pass where a recipe does not say."""
    return TOKEN_BUDGETS.get(device_type, _OTHER_TOKEN_BUDGET)


@dataclass(frozen=True)
class MicroBatch:
    """Some responses of a step.

    Attributes:
        rows: their places in the step.
        token_ids: ``[rows, longest]`` int64, 0 behind each response's last token.
        is_token: ``[rows, longest]``.
        reading: those of one number follow each other, and may go on from prompts that are read
            once for all of them.
    """

    rows: npt.NDArray[np.int64]
    token_ids: torch.Tensor
    is_token: torch.Tensor
    reading: int = 0


def micro_batches(
    responses: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    prompt_length: int,
    budget: int | None,
    device: torch.device,
    *,
    is_used: npt.NDArray[np.bool_] | None = None,
) -> list[MicroBatch]:
    """Divide ``[n, longest]`` responses so that no pass holds more than ``budget`` tokens.

    Responses of like length go together and padding is cut off; the prompt's tokens count.

    Args:
        is_used: ``[n]`` which of them are in a batch at all; by default every one.
    """
    limit = budget or default_token_budget(device.type)
    used = np.arange(len(lengths)) if is_used is None else np.flatnonzero(is_used)
    groups = by_token_budget([int(lengths[row]) + prompt_length for row in used], limit)
    batches = []
    for group in groups:
        rows = used[sorted(group)]
        ids = torch.from_numpy(responses[rows, : int(lengths[rows].max())])
        is_token = ids != NO_TOKEN
        batches.append(
            MicroBatch(rows, torch.where(is_token, ids, 0).to(device), is_token.to(device))
        )
    return batches


def shared_micro_batches(
    activations: torch.Tensor,
    responses: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    prompt: AvPrompt,
    budget: int | None,
    *,
    is_used: npt.NDArray[np.bool_] | None = None,
) -> list[MicroBatch]:
    """As :func:`micro_batches`, where responses to one activation go on from one prompt.

    What is read at once still is no more than ``budget`` tokens: the prompts of a reading, which
    take half of them at most, and those of one micro-batch. Besides, each response of a micro-batch
    holds a copy of its prompt's keys and values.

    Args:
        activations: ``[n, d_model]``, one for each response; the batches are on their device.
    """
    device = activations.device
    limit = budget or default_token_budget(device.type)
    used = np.arange(len(lengths)) if is_used is None else np.flatnonzero(is_used)
    first, prompt_of = distinct_rows(activations[torch.from_numpy(used)])
    # Up to the marker all prompts are one; the last token is read with each response.
    beginning, rest = prompt.marker, len(prompt.ids) - 1 - prompt.marker
    at_once = max(1, (limit // 2 - beginning) // rest)
    batches: list[MicroBatch] = []
    for reading, start in enumerate(range(0, len(first), at_once)):
        prompts = range(start, min(start + at_once, len(first)))
        is_in_reading = np.zeros(len(lengths), dtype=bool)
        is_in_reading[used[(prompt_of >= prompts.start) & (prompt_of < prompts.stop)]] = True
        left = max(1, limit - beginning - rest * len(prompts))
        found = micro_batches(responses, lengths, 0, left, device, is_used=is_in_reading)
        batches += [replace(batch, reading=reading) for batch in found]
    return batches


def without_tokens(device: torch.device) -> MicroBatch:
    """A pass that changes nothing, for a process that has fewer of them than the others.

    Where weights are divided among processes, a pass needs all of them.
    """
    ids = torch.zeros((1, 1), dtype=torch.int64, device=device)
    return MicroBatch(np.zeros(1, dtype=np.int64), ids, ids.bool())
