"""Activations of a target model at chosen tokens of documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.nla.architecture import blocks_of, decoder_of
from nla_audit.nla.batching import by_token_budget
from nla_audit.train.log_probs import TOKEN_BUDGETS


class _Enough(Exception):
    """The block we wanted has run; the rest of the model need not."""


@torch.inference_mode()
def extract(
    model: Any,
    documents: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    layer_index: int,
    progress: Callable[[int, int], None],
) -> npt.NDArray[np.float32]:
    """Output of block ``layer_index`` at ``positions`` of token-id ``documents``.

    That is ``hidden_states[layer_index + 1]`` of transformers (before the final norm, also for
    the last block). Blocks behind it are not run.

    Args:
        progress: called with documents done and in all.

    Returns:
        ``[sum of positions, d_model]`` float32, documents in order.
    """
    device = model.get_input_embeddings().weight.device
    block = blocks_of(decoder_of(model))[layer_index]
    caught: list[torch.Tensor] = []

    def catch(_module: Any, _inputs: Any, output: Any) -> None:
        caught.append(output[0] if isinstance(output, tuple) else output)
        raise _Enough

    found: list[npt.NDArray[np.float32] | None] = [None] * len(documents)
    handle = block.register_forward_hook(catch)
    done = 0
    try:
        budget = TOKEN_BUDGETS.get(device.type, 8192)
        for group in by_token_budget([len(ids) for ids in documents], budget):
            longest = max(len(documents[place]) for place in group)
            # Padded on the right, where a causal model's padding reaches nothing.
            ids = torch.zeros((len(group), longest), dtype=torch.int64)
            for row, place in enumerate(group):
                ids[row, : len(documents[place])] = torch.tensor(documents[place])
            try:
                model(input_ids=ids.to(device), use_cache=False)
            except _Enough:
                hidden = caught.pop()
            for row, place in enumerate(group):
                found[place] = hidden[row, list(positions[place])].float().cpu().numpy()
            done += len(group)
            progress(done, len(documents))
    finally:
        handle.remove()
    return np.concatenate([rows for rows in found if rows is not None])
