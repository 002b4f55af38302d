"""A key-value cache whose shapes and addresses stay the same from token to token.

A compiled step, and a CUDA graph all the more, holds for the shapes and addresses it was made
with. So attention is shown whole buffers, masked behind the present token, and which token that
is stands in a tensor.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

from nla_audit.nla.architecture import number_of_blocks
from nla_audit.nla.cache import BufferedLayer, RowCache


class FixedLayer(BufferedLayer):
    """Keys and values of one block, in the first rows of buffers that are never given back.

    Args:
        capacity: tokens that a row has room for.
        place: ``[1]``, where the present token goes; the same tensor for all blocks.
    """

    #: transformers then always makes a mask: whether it needs one stands in ``place``.
    is_compileable = True

    def __init__(self, capacity: int, place: torch.Tensor) -> None:
        super().__init__(capacity)
        self.place = place
        self._buffers: list[torch.Tensor] = []

    def _allocate(self, key_like: torch.Tensor, value_like: torch.Tensor, rows: int) -> None:
        if not self._buffers or len(self._buffers[0]) < rows:
            # Zeros: what is masked has no weight, but NaN times nothing is NaN.
            self._buffers = [
                like.new_zeros((rows, like.shape[1], self.capacity, like.shape[3]))
                for like in (key_like, value_like)
            ]
        self._key_buffer, self._value_buffer = (buffer[:rows] for buffer in self._buffers)
        self.is_initialized = True

    def _show(self, length: int) -> None:
        self.keys, self.values = self._key_buffer, self._value_buffer
        for shown in (self.keys, self.values):
            # Other inputs of a CUDA graph are copied before every token.
            torch._dynamo.mark_static_address(shown, guard=False)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write those of the present token in place; returns the whole buffers."""
        self._key_buffer.index_copy_(2, self.place, key_states)
        self._value_buffer.index_copy_(2, self.place, value_states)
        return self._key_buffer, self._value_buffer

    def get_seq_length(self) -> Any:
        """Tokens before the present one, in a tensor without dimensions."""
        return self.place[0]

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        """All of the buffers, from their beginning."""
        return self.capacity, 0


class FixedCache(RowCache):
    """A :class:`FixedLayer` for each block.

    ``place`` ``[1]`` says where the present token goes; whoever runs the model moves it on.
    """

    layers: list[FixedLayer]  # type: ignore[assignment]  # no others are in it

    def __init__(self, config: Any, capacity: int, device: torch.device) -> None:
        self.capacity = capacity
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        torch._dynamo.mark_static_address(self.place, guard=False)
        layers = [FixedLayer(capacity, self.place) for _ in range(number_of_blocks(config))]
        Cache.__init__(self, layers=layers)  # type: ignore[arg-type]  # a list is invariant

    def start_from(self, prompts: RowCache, rows: torch.Tensor) -> None:
        """Begin with ``rows`` ``[n]`` of ``prompts``, each as often as it is named."""
        self.place.fill_(prompts.get_seq_length())
        for layer, read in zip(self.layers, prompts.layers, strict=True):
            layer.start_from(read, rows)
