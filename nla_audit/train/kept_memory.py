"""What a forward pass keeps for the backward pass, found by a pass over tensors without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nla_audit.nla.architecture import decoder_of, hidden_size, number_of_blocks
from nla_audit.train.adapters import RL_ADAPTER, add_lora
from nla_audit.train.recipe_optimizer import Lora

#: Rows and tokens of the pass; what it keeps grows with both alike.
_ROWS, _TOKENS = 2, 32


def kept_bytes_per_token(model: Any, lora: Lora | None, *, gradient_checkpointing: bool) -> float:
    """Bytes that training keeps for each token of a micro-batch, the output matrix left out.

    Args:
        model: a causal language model on the meta device; adapters are added to it.
        lora: adapters that are trained, or ``None`` for all weights.
        gradient_checkpointing: keep the blocks' inputs and one block's insides.
    """
    if lora is not None:
        with torch.device("meta"):
            add_lora(model, lora, RL_ADAPTER, seed=0)
    ids = torch.zeros(_ROWS, _TOKENS, dtype=torch.int64, device=model.device)
    # Given one, transformers makes no mask of its own, for which it would look at data.
    mask = torch.ones(_ROWS, 1, _TOKENS, _TOKENS, dtype=torch.bool, device=model.device)
    decoder = decoder_of(model)
    kept = kept_bytes(model, lambda: decoder(input_ids=ids, attention_mask=mask, use_cache=False))
    whole = kept / (_ROWS * _TOKENS)
    if not gradient_checkpointing:
        return whole
    blocks = number_of_blocks(model.config)
    return whole / blocks + blocks * hidden_size(model.config) * model.dtype.itemsize


def kept_bytes(model: Any, work: Callable[[], Any]) -> int:
    """Bytes that autograd saves during ``work``, each storage once; weights left out."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(storage.nbytes() for storage in kept.values())
