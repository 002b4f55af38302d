"""The step of one token with a cache of fixed shapes, in which no keys are repeated.

Where several query heads share keys, transformers repeats keys and values for them as soon as
there is a mask, which costs more than all else once the cache is long. For one token they can as
well be several queries of one head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from nla_audit.nla.architecture import text_config
from nla_audit.nla.cache import cache_keyword
from nla_audit.nla.fixed_cache import FixedCache
from nla_audit.nla.output_head import last_logits

_NAME = "nla_audit_one_token"
#: What transformers hands to attention and nothing is done with here.
_OTHER_KINDS = ("softcap", "position_bias", "s_aux")


def _attention(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """In the place of transformers' for sdpa: ``[rows, heads, 1, width]`` queries."""
    if any(kwargs.get(name) is not None for name in _OTHER_KINDS):
        raise NotImplementedError
    rows, heads, _, width = query.shape
    shared = key.shape[1]
    output = scaled_dot_product_attention(
        query.reshape(rows, shared, heads // shared, width),
        key,
        value,
        attn_mask=attention_mask,
        scale=scaling,
    )
    return output.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def sharing_keys(model: Any) -> Iterator[None]:
    """Within it a model that uses sdpa repeats no keys; only :func:`step` may be called."""
    config = text_config(model.config)
    before = config._attn_implementation
    if before == "sdpa":
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def step(model: Any, cache: FixedCache, ids: torch.Tensor) -> torch.Tensor:
    """Logits ``[rows, vocabulary]`` behind ``ids`` ``[rows, 1]``; the place stays where it is."""
    options = {str(cache_keyword(model)): cache, "use_cache": True}
    return model(input_ids=ids, **options, **last_logits(model, 1)).logits[:, -1]
