"""Vectors that are added at a block of a model that takes nothing but embeddings.

Another engine runs a model of its own, many prompts at once and in an order of its own, and is
handed embeddings. So a vector travels in the place of the embedding of its token, as its
direction at a length that no embedding has (:func:`marked`). In the model (:class:`BlockEntrance`)
such a row is known by its length, wherever the engine puts it: the token's own embedding takes its
place, and the direction waits for the block.

No state goes beside the rows: whether a prompt is read alone or with others, in parts or again,
each vector comes in with its row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any

import torch
from torch import nn

from nla_audit.errors import UserError
from nla_audit.nla.injection import Injection, addition_block, injected

#: The largest value of a marked row is in [2^(n-1), 2^n); embeddings' are in the tens. float16 ends
#: at 2^16; elsewhere squares still must not overflow.
_EXPONENT = {torch.float16: 15}
_EXPONENT_ELSEWHERE = 40

Forward = Callable[..., Any]


@dataclass(frozen=True)
class AtBlock:
    """Vectors that are added at the output of a block, one to a token of each prompt.

    Attributes:
        block: its index.
        column: place of the token within the prompt.
        vectors: ``[n, d_model]``, of any length: only the direction counts.
    """

    block: int
    column: int
    vectors: torch.Tensor


def marked(embeddings: torch.Tensor, at_block: AtBlock) -> torch.Tensor:
    """Embeddings with the vectors' directions in the place of those of their token.

    They are scaled by powers of two: a vector that was computed in the model's own precision is
    the same again on the other side.

    Args:
        embeddings: ``[n, tokens, d_model]``.

    Returns:
        The same shape and precision.
    """
    vectors = at_block.vectors.double()
    _, exponent = torch.frexp(vectors.abs().amax(dim=-1, keepdim=True))
    out = embeddings.clone()
    rows = torch.ldexp(vectors, _exponent(out.dtype) - exponent)
    out[:, at_block.column] = rows.to(device=out.device, dtype=out.dtype)
    return out


def _exponent(dtype: torch.dtype) -> int:
    return _EXPONENT.get(dtype, _EXPONENT_ELSEWHERE)


def _is_marked(rows: torch.Tensor) -> torch.Tensor:
    """Which of ``[n, d_model]`` are directions."""
    return rows.abs().amax(dim=-1) >= 2.0 ** (_exponent(rows.dtype) - 1)


class BlockEntrance:
    """Has a model add what comes in as marked rows, until it is removed.

    A block may return its residual stream alone. Those of vLLM return two tensors: most families
    mean two addends of the stream, which the norm of the next block adds; in others (Cohere's) the
    first is the whole stream, and nobody reads the second. Nothing says which, so the rows that are
    written are right either way: the first by itself, and the sum.

    Args:
        model: takes ``inputs_embeds`` ``[..., d_model]``, and runs its blocks on all of them.
        block: index of the block at whose output the vectors are added.
        embedding: ``[d_model]``, what the marked rows are the place of.

    Raises:
        UserError: the model has no such block, or takes no embeddings.
    """

    def __init__(self, model: nn.Module, block: int, embedding: torch.Tensor) -> None:
        self._injection = Injection("add", block=block)
        at = addition_block(model, block)
        if "inputs_embeds" not in signature(model.forward).parameters:
            raise UserError(f"{type(model).__name__} takes no embeddings")
        self._embedding = embedding
        #: Of the forward pass that runs in this thread, until the block has them: how many rows
        #: there are, which of them are marked, and these.
        self._entered = threading.local()
        self._wrapped = [_Wrapped(model, self._model_forward), _Wrapped(at, self._block_forward)]

    def remove(self) -> None:
        """Leave the model as it was."""
        for wrapped in self._wrapped:
            wrapped.unwrap()

    def _model_forward(self, forward: Forward, *arguments: Any, **named: Any) -> Any:
        self._entered.found = None
        embeddings = named.get("inputs_embeds")
        if embeddings is not None:
            rows = _rows(embeddings)
            places = _is_marked(rows).nonzero().squeeze(1)
            if len(places) > 0:
                self._entered.found = len(rows), places, rows[places]
                # Not in place: the engine may hand over its own buffer.
                own = _with_rows(embeddings, places, self._embedding.to(rows))
                named["inputs_embeds"] = own
        output = forward(*arguments, **named)
        if self._entered.found is not None:
            raise RuntimeError(f"vectors came in, and block {self._injection.block} did not run")
        return output

    def _block_forward(self, forward: Forward, *arguments: Any, **named: Any) -> Any:
        output = forward(*arguments, **named)
        found = getattr(self._entered, "found", None)
        if found is None:
            return output
        self._entered.found = None
        count, places, vectors = found
        parts = list(output) if isinstance(output, tuple) else [output]
        rows = _rows(parts[0])
        if len(rows) != count:
            raise RuntimeError(f"{count} rows entered the model, and {len(rows)} the block")
        first = rows[places]
        alone = injected(first, vectors, self._injection)
        if _are_two_streams(parts):
            both = injected(first + _rows(parts[1])[places], vectors, self._injection)
            rest = (both.float() - alone.float()).to(parts[1].dtype)
            parts[1] = _with_rows(parts[1], places, rest)
        parts[0] = _with_rows(parts[0], places, alone)
        return tuple(parts) if isinstance(output, tuple) else parts[0]


class _Wrapped:
    """A module whose ``forward`` goes through a function that is given it.

    Hooks would do, but modules that are called in a way of their own may leave them out, as those
    that vLLM can compile do.
    """

    def __init__(self, module: nn.Module, around: Callable[..., Any]) -> None:
        self._module, forward = module, module.forward
        self._before = vars(module).get("forward")

        @wraps(forward)
        def through(*arguments: Any, **named: Any) -> Any:
            return around(forward, *arguments, **named)

        setattr(module, "forward", through)  # noqa: B010  # a method, for mypy

    def unwrap(self) -> None:
        """Leave the module as it was."""
        delattr(self._module, "forward")
        if self._before is not None:
            setattr(self._module, "forward", self._before)  # noqa: B010


def _are_two_streams(parts: list[Any]) -> bool:
    """Whether what a block returned is two tensors of all rows."""
    return (
        len(parts) == 2 and isinstance(parts[1], torch.Tensor) and parts[1].shape == parts[0].shape
    )


def _rows(whole: torch.Tensor) -> torch.Tensor:
    """``[rows, d_model]`` of ``[..., d_model]``."""
    return whole.reshape(-1, whole.shape[-1])


def _with_rows(whole: torch.Tensor, places: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A copy of ``whole`` ``[..., d_model]`` with other ``rows`` at ``places``."""
    changed = _rows(whole).clone()
    changed[places] = rows
    return changed.view(whole.shape)
