"""The output matrix: run only where logits are needed, and never copied."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

_MARK = "_nla_audit_contiguous"


def last_logits(model: nn.Module, tokens: int) -> dict[str, int]:
    """Keyword arguments that spare logits before the last ``tokens``, where a model can do so.

    A caller still cuts what it gets: a model may return them all.
    """
    names = inspect.signature(type(model).forward).parameters
    return {"logits_to_keep": tokens} if "logits_to_keep" in names else {}


def with_contiguous_states(model: Any) -> Any:
    """``model``, whose output matrix is handed states that lie together in memory.

    The last states of several rows are a slice with gaps, and for one of those torch multiplies
    row by row with a copy of the matrix each: with a large vocabulary many times the cost of the
    product itself.
    """
    head = model.get_output_embeddings()
    if head is not None and not hasattr(head, _MARK):
        head.register_forward_pre_hook(_contiguous)
        setattr(head, _MARK, True)
    return model


def _contiguous(_head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.contiguous() if isinstance(one, torch.Tensor) else one for one in inputs)
