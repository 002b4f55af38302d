"""How a model may be run token by token: found out on the model itself, never from its name.

The fast way (:mod:`nla_audit.nla.cache`) computes a shared beginning once and repeats its keys and
values. Blocks that keep something else (a recurrent state, a convolution's last inputs, keys of
another block) cannot be run so. A short passage, read with and without the cache, decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from nla_audit.nla.architecture import text_config
from nla_audit.nla.cache import cache_from, cache_keyword, prefix_cache
from nla_audit.nla.fixed_cache import FixedCache
from nla_audit.nla.one_token import sharing_keys, step
from nla_audit.nla.rounding import rounding_of

_SHORTEST_PASSAGE = 4
_LONGEST_PASSAGE = 8


class Caching(Enum):
    """What may be kept between the tokens of a text."""

    SHARED = "shared beginning"
    OWN = "transformers' own cache"
    NONE = "nothing"

    def notice(self, model: nn.Module) -> str | None:
        """One line for the user where the fast way does not hold."""
        if self is Caching.SHARED:
            return None
        return (
            f"{type(model).__name__} keeps more than keys and values of its tokens: prompts are "
            "not shared between rows, which is slower and gives the same results"
        )


_known: WeakKeyDictionary[nn.Module, Caching] = WeakKeyDictionary()


def caching_of(model: nn.Module, config: Any, ids: Sequence[int]) -> Caching:
    """The fastest way that gives what plain forward passes give.

    Args:
        model: a causal language model or its decoder, in evaluation mode.
        ids: tokens of a prompt, of which a few are tried. The answer is kept for ``model``.
    """
    if model not in _known:
        _known[model] = _found_out(model, config, ids)
    return _known[model]


@torch.inference_mode()
def _found_out(model: Any, config: Any, ids: Sequence[int]) -> Caching:
    if cache_keyword(model) is None:
        return Caching.NONE
    rows = _two_rows(model, ids)
    wanted = _last_states(model(input_ids=rows, use_cache=False))
    if _only_keys_and_values(config) and _agrees(_with_shared, model, config, rows, wanted):
        return Caching.SHARED
    if _agrees(_with_own, model, config, rows, wanted):
        return Caching.OWN
    return Caching.NONE


@torch.inference_mode()
def agrees_with_fixed(model: Any, config: Any, ids: Sequence[int]) -> bool:
    """Whether a model that shares beginnings also gives the same with a cache of fixed shapes.

    Args:
        model, config, ids: as for :func:`caching_of`.
    """
    rows = _two_rows(model, ids)
    wanted = _last_states(model(input_ids=rows, use_cache=False))
    return _agrees(_with_fixed, model, config, rows, wanted)


def _two_rows(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Two rows that differ, so that rows taken for each other are seen."""
    passage = list(ids[-_LONGEST_PASSAGE:])
    passage += [passage[-1]] * (_SHORTEST_PASSAGE - len(passage))
    row = torch.tensor(passage, device=model.get_input_embeddings().weight.device)
    rows = torch.stack([row, row.flip(0)])
    rows[:, 0] = row[0]
    return rows


def _only_keys_and_values(config: Any) -> bool:
    """Whether transformers itself keeps keys and values of each block, and nothing else."""
    try:
        layers = DynamicCache(config=text_config(config)).layers
    except Exception:  # a stranger's config, for which transformers has no cache
        return False
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def _agrees(way: Any, model: Any, config: Any, rows: torch.Tensor, wanted: torch.Tensor) -> bool:
    try:
        found = way(model, config, rows)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # how a model fails on a cache that is not its own is anyone's guess
        return False
    if found.shape != wanted.shape:
        return False
    bound = rounding_of(wanted.dtype)
    difference = (found.double() - wanted.double()).norm(dim=-1)
    return bool((difference <= bound * wanted.double().norm(dim=-1)).all())


def _with_shared(model: Any, config: Any, rows: torch.Tensor) -> torch.Tensor:
    prefix = prefix_cache(model, config, rows[0, :1])
    cache = cache_from(prefix, config, len(rows), capacity=rows.shape[1])
    name = cache_keyword(model)
    assert name is not None
    model(input_ids=rows[:, 1:-1], use_cache=True, **{name: cache})
    return _last_states(model(input_ids=rows[:, -1:], use_cache=True, **{name: cache}))


def _with_fixed(model: Any, config: Any, rows: torch.Tensor) -> torch.Tensor:
    length = rows.shape[1]
    begun = cache_from(None, config, len(rows), capacity=length)
    name = cache_keyword(model)
    assert name is not None
    model(input_ids=rows[:, :-2], use_cache=True, **{name: begun})
    # Room behind the last token, as there is in use.
    cache = FixedCache(config, 2 * length, rows.device)
    cache.start_from(begun, torch.arange(len(rows)))
    with sharing_keys(model):
        for column in (length - 2, length - 1):
            states = step(model, cache, rows[:, column : column + 1])
            cache.place.add_(1)
    return states


def _with_own(model: Any, config: Any, rows: torch.Tensor) -> torch.Tensor:
    name = cache_keyword(model)
    assert name is not None
    cache = own_cache(config)
    swapped = torch.tensor([1, 0], device=rows.device)
    model(input_ids=rows[:, :-2], use_cache=True, **{name: cache})
    keep_rows(cache, swapped)
    rows = rows[swapped]
    model(input_ids=rows[:, -2:-1], use_cache=True, **{name: cache})
    states = _last_states(model(input_ids=rows[:, -1:], use_cache=True, **{name: cache}))
    return states[swapped]


def _last_states(output: Any) -> torch.Tensor:
    """Logits, or the decoder's states, at the last token ``[rows, width]``."""
    states = getattr(output, "logits", None)
    return (output.last_hidden_state if states is None else states)[:, -1]


def own_cache(config: Any) -> Cache:
    """transformers' own cache for a model of this config."""
    return DynamicCache(config=text_config(config))


def keep_rows(cache: Any, rows: torch.Tensor) -> None:
    """Keep only ``rows`` ``[kept]`` of transformers' own cache."""
    cache.reorder_cache(rows)
