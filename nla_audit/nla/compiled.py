"""The step of one token, compiled: fewer, larger kernels, and on a GPU replayed as a CUDA graph.

With few rows a GPU computes a token sooner than Python can ask for it, kernel by kernel. A graph
is asked for once, but holds for one shape and its addresses only. So rows run in one of a few
sizes: those that have ended stay until the rest fit into half the size. What it computes is
compared with the same step uncompiled, the first times that a size is run.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import FunctionType
from typing import Any

import torch

from nla_audit.errors import UserError
from nla_audit.nla.cache import RowCache
from nla_audit.nla.caching import Caching, agrees_with_fixed, caching_of
from nla_audit.nla.fixed_cache import FixedCache
from nla_audit.nla.one_token import sharing_keys, step
from nla_audit.nla.rounding import rounding_of

#: Rows that are run at least; sizes are this times powers of two.
_FEWEST_ROWS = 8
#: Room for tokens comes in multiples of this, so that a few more of them need no other graph.
_ROOM = 64
#: Times that a size is compared: CUDA graphs are recorded at the second, replayed at the third.
_COMPARED = 3
#: Characters of what a compiler says that are shown.
_SHOWN = 200
_INSTEAD = "leave out decoding: compiled"


class CompiledSteps:
    """Runs one model token by token. It keeps the buffers of its largest batch for good.

    Args:
        model: a causal language model, whole on one device, as it will be run: with its adapters.
        prompt: tokens of a prompt, of which a few are tried.
        name: what messages call it.
        compiler: arguments of ``torch.compile``; by default inductor, with CUDA graphs on a GPU.

    Raises:
        UserError: there is no compiler, or the model keeps more than keys and values of its
            tokens, or does something else where their buffers have a fixed size.
    """

    def __init__(
        self,
        model: Any,
        prompt: Sequence[int],
        name: str,
        compiler: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._name = model, name
        self._device = model.get_input_embeddings().weight.device
        if compiler is None:
            check_compiler(self._device)
            compiler = {"mode": "reduce-overhead"} if self._device.type == "cuda" else {}
        if len({one.device for one in model.parameters()}) > 1:
            raise UserError(f"{name} is spread over several devices: {_INSTEAD}")
        if caching_of(model, model.config, prompt) is not Caching.SHARED:
            raise UserError(
                f"{type(model).__name__} keeps more than keys and values of its tokens, and cannot "
                f"be run with shapes that stay the same: {_INSTEAD}"
            )
        if not agrees_with_fixed(model, model.config, prompt):
            raise UserError(
                f"{type(model).__name__} does not compute the same with a cache of fixed size: "
                f"{_INSTEAD}"
            )
        # torch counts recompilations by code object, and gives up after eight: each gets its own.
        own = FunctionType(step.__code__.replace(), step.__globals__)
        self._compiled = torch.compile(own, fullgraph=True, **compiler)
        self._cache: FixedCache | None = None
        self._rows, self._size = 0, 0
        #: Times by size and capacity.
        self._compared: Counter[tuple[int, int]] = Counter()

    def start(self, prompts: RowCache, rows: torch.Tensor, new_tokens: int) -> None:
        """Begin with ``rows`` ``[n]`` of the prompts that were read."""
        capacity = prompts.get_seq_length() + new_tokens
        capacity += -capacity % _ROOM
        if self._cache is None or self._cache.capacity != capacity:
            self._cache = None  # before the next one takes memory
            self._cache = FixedCache(self._model.config, capacity, self._device)
        try:
            self._cache.start_from(prompts, self._filled_up(rows))
        except torch.OutOfMemoryError:
            self._cache = None  # fewer rows are tried next, which need not be part of these
            raise

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but ``rows`` ``[kept]`` (ascending)."""
        assert self._cache is not None
        self._cache.keep_rows(self._filled_up(rows))

    def may_shrink(self, running: int) -> bool:
        """Whether so many rows fit into a smaller size."""
        return _size_for(running) < self._size

    def next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Go on by one token ``[rows]``; returns the logits ``[rows, vocabulary]`` behind it.

        They are overwritten by the next call.

        Raises:
            UserError: the model cannot be compiled, or computes something else then.
        """
        try:
            return self._go_on(tokens)
        except torch.OutOfMemoryError:
            self._cache = None  # as in start
            raise

    def _go_on(self, tokens: torch.Tensor) -> torch.Tensor:
        assert self._cache is not None
        ids = self._filled_up(tokens)[:, None]
        shape = self._size, self._cache.capacity
        is_new = self._compared[shape] < _COMPARED
        if self._device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        try:
            with sharing_keys(self._model):
                logits = self._compiled(self._model, self._cache, ids)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # how a model fails to be compiled is anyone's guess
            if not is_new:
                raise
            reason = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
            raise UserError(f"{self._name} cannot be compiled ({reason}): {_INSTEAD}") from error
        if is_new:
            self._compare(logits, ids)
            self._compared[shape] += 1
        self._cache.place.add_(1)
        return logits[: self._rows]

    def _compare(self, logits: torch.Tensor, ids: torch.Tensor) -> None:
        assert self._cache is not None
        # The place has not moved on, so that the same keys and values are written once more.
        with sharing_keys(self._model):
            wanted = step(self._model, self._cache, ids).double()
        difference = (logits.double() - wanted).norm(dim=-1)
        if not bool((difference <= rounding_of(logits.dtype) * wanted.norm(dim=-1)).all()):
            raise UserError(
                f"{self._name} computes something else once it is compiled "
                f"(torch {torch.__version__}): {_INSTEAD}"
            )

    def _filled_up(self, rows: torch.Tensor) -> torch.Tensor:
        """``[n]`` with its last number repeated up to the size for so many rows."""
        self._rows, self._size = len(rows), _size_for(len(rows))
        return torch.cat([rows, rows[-1:].expand(self._size - len(rows))])


def _size_for(rows: int) -> int:
    """Rows that are run for so many."""
    size = _FEWEST_ROWS
    while size < rows:
        size *= 2
    return size


def check_compiler(device: torch.device) -> None:
    """Refuse to go on without what inductor needs.

    Raises:
        UserError: there is no C++ compiler, or no Triton for a GPU.
    """
    if device.type == "cuda" and find_spec("triton") is None:
        raise UserError(
            f"decoding: compiled needs Triton on a GPU: pip install triton, or {_INSTEAD}"
        )
    names = ("CC", "gcc", "clang") if device.type == "cuda" else ("CXX", "g++", "clang++")
    if not any(shutil.which(os.environ.get(name, name)) for name in names):
        raise UserError(
            f"decoding: compiled needs a C++ compiler ({names[1]}; or {names[0]} set to one): "
            f"install one, or {_INSTEAD}"
        )
