"""A key-value cache that starts from a shared prefix, never copies to grow, and drops rows.

transformers' own dynamic cache concatenates at every token, which copies the whole cache each
time. Here each block's keys and values live in a buffer that is allocated once.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from nla_audit.nla.architecture import number_of_blocks
from nla_audit.nla.output_head import last_logits


class BufferedLayer(DynamicLayer):
    """Keys and values of one block, in buffers of ``[rows, heads, capacity, head_dim]``.

    Sliding-window blocks keep all their keys too; transformers' masks see to the window.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self._allocate(key_states, value_states, rows=key_states.shape[0])

    def _allocate(self, key_like: torch.Tensor, value_like: torch.Tensor, rows: int) -> None:
        self._key_buffer = _buffer(key_like, rows, self.capacity)
        self._value_buffer = _buffer(value_like, rows, self.capacity)
        self._show(0)
        self.is_initialized = True

    def _show(self, length: int) -> None:
        self.keys = self._key_buffer[:, :, :length]
        self.values = self._value_buffer[:, :, :length]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append in place; returns all keys and values so far (views)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self._show(end)
        return self._key_buffer[:, :, :end], self._value_buffer[:, :, :end]

    def start_from(self, prefix: BufferedLayer, rows: torch.Tensor) -> None:
        """Begin with ``rows`` ``[n]`` of ``prefix``, each as often as it is named."""
        assert prefix.keys is not None
        assert prefix.values is not None
        self.dtype, self.device = prefix.keys.dtype, prefix.keys.device
        self._allocate(prefix.keys, prefix.values, len(rows))
        length, rows = prefix.get_seq_length(), rows.to(self.device)
        self._key_buffer[:, :, :length] = prefix.keys[rows]
        self._value_buffer[:, :, :length] = prefix.values[rows]
        self._show(length)

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Keep only ``rows`` ``[kept]`` (ascending), in the same buffer."""
        length = self.get_seq_length()
        self._key_buffer = _front(self._key_buffer, rows, length)
        self._value_buffer = _front(self._value_buffer, rows, length)
        self._show(length)


def _buffer(like: torch.Tensor, rows: int, capacity: int) -> torch.Tensor:
    return like.new_empty((rows, like.shape[1], capacity, like.shape[3]))


def _front(buffer: torch.Tensor, rows: torch.Tensor, length: int) -> torch.Tensor:
    """Move ``rows`` to the front of ``buffer`` and return that part of it."""
    buffer[: len(rows), :, :length] = buffer[rows, :, :length]
    return buffer[: len(rows)]


class RowCache(Cache):
    """A :class:`BufferedLayer` for each block; all rows have the same number of tokens."""

    layers: list[BufferedLayer]  # type: ignore[assignment]  # no others are in it

    def __init__(self, config: Any, capacity: int) -> None:
        super().__init__(layers=[BufferedLayer(capacity) for _ in range(number_of_blocks(config))])

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Drop all rows but ``rows`` ``[kept]`` (ascending)."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keep_rows(rows)


def cache_keyword(model: nn.Module) -> str | None:
    """What the forward pass of ``model`` calls its cache; ``None``: it takes none of this kind.

    transformers renamed the argument in the course of its version 5.
    """
    names = inspect.signature(type(model).forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in names), None)


@torch.inference_mode()
def prefix_cache(model: nn.Module, config: Any, ids: torch.Tensor) -> RowCache | None:
    """Keys and values of the shared prefix ``ids`` ``[prefix]``, as a cache of one row.

    ``None`` for an empty prefix.
    """
    if len(ids) == 0:
        return None
    cache = RowCache(config, capacity=len(ids))
    name = cache_keyword(model)
    assert name is not None
    model(input_ids=ids.unsqueeze(0), use_cache=True, **{name: cache}, **last_logits(model, 1))
    return cache


def cache_from(
    prefix: RowCache | None, config: Any, rows: int | torch.Tensor, capacity: int
) -> RowCache:
    """A cache that begins with ``prefix`` and has room for ``capacity`` tokens.

    Args:
        rows: of the new cache, all with the one row of ``prefix``; or ``[n]`` which row of
            ``prefix`` each begins with.
    """
    cache = RowCache(config, capacity)
    if isinstance(rows, int):
        rows = torch.zeros(rows, dtype=torch.int64)
    if prefix is not None:
        for layer, shared in zip(cache.layers, prefix.layers, strict=True):
            if shared.is_initialized:
                layer.start_from(shared, rows)
    return cache
