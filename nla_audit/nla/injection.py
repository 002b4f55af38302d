"""Put an activation into the AV's forward pass, at the marker token.

Two ways are in use (docs/formats.md):

- *replacement* (the release): the marker's embedding is replaced by the vector, rescaled to
  ``injection_scale``;
- *norm-matched addition* (nanoNLA and the sweep): at the output of decoder block 1,
  ``h′ = h + ‖h‖ · v / ‖v‖``. No file says so; a sidecar without ``injection_scale`` is the only
  sign, so a user can override it.

Both are forward hooks on real modules of the model. The embedding is therefore whatever the
model's own embedding module returns (Gemma multiplies by √d there), and models that refuse
``inputs_embeds`` work as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from nla_audit.errors import UserError
from nla_audit.nla.architecture import blocks_of, decoder_of, residual_of
from nla_audit.nla.sidecar import Sidecar
from nla_audit.strangers import shown
from nla_audit.wording import count

#: The block whose output nanoNLA adds to (docs/formats.md).
DEFAULT_ADDITION_BLOCK = 1

_SMALLEST_NORM = 1e-12
#: Beyond this, float32 overflows when squared; the largest in use is 80,000.
_LARGEST_SCALE = 1e15
_MOST_BLOCKS = 100_000


@dataclass(frozen=True)
class Injection:
    """How a vector enters the AV.

    Attributes:
        kind: ``"replace"`` the marker's embedding, or ``"add"`` at the output of a block.
        scale: for replacement, the L2 norm to rescale to; ``None`` injects the raw vector.
        block: for addition, the index of the block.
    """

    kind: Literal["replace", "add"]
    scale: float | None = None
    block: int | None = None

    def __str__(self) -> str:
        if self.kind == "add":
            return f"add:{self.block}"
        return f"replace:{'raw' if self.scale is None else format(self.scale, 'g')}"


def injection_of(sidecar: Sidecar) -> Injection:
    """What the sidecar says, or implies by saying nothing."""
    if sidecar.injection_text is not None:
        return parse_injection(sidecar.injection_text)
    if sidecar.inject_unscaled:
        return Injection("replace", scale=None)
    if sidecar.injection_scale is not None:
        return Injection("replace", scale=sidecar.injection_scale)
    return Injection("add", block=DEFAULT_ADDITION_BLOCK)


def parse_injection(text: str) -> Injection:
    """Read a user's override: ``replace:150``, ``replace:raw`` or ``add:1``.

    Raises:
        UserError: anything else.
    """
    kind, _, value = text.partition(":")
    if kind == "replace" and value == "raw":
        return Injection("replace", scale=None)
    try:
        if kind == "replace" and 0 < float(value) < _LARGEST_SCALE:
            return Injection("replace", scale=float(value))
        if kind == "add" and 0 <= int(value) < _MOST_BLOCKS:
            return Injection("add", block=int(value))
    except ValueError:
        pass
    raise UserError(f"injection {shown(text)}: expected replace:SCALE, replace:raw or add:BLOCK")


@contextmanager
def injecting(
    model: nn.Module, injection: Injection, activations: torch.Tensor, column: int
) -> Iterator[None]:
    """Inject ``activations`` at ``column`` of every forward pass inside the ``with``.

    Args:
        model: the causal language model.
        injection: how.
        activations: ``[batch, d_model]``, one for each row of the forward pass.
        column: position of the marker within the tokens of the forward pass.

    Raises:
        UserError: the model has no such block.
    """
    module = _module(model, injection)

    def hook(block: nn.Module, _arguments: Any, output: Any) -> Any:
        whole = output[0] if isinstance(output, tuple) else output
        hidden, changed = residual_of(whole, block), whole.clone()
        vectors = activations.to(device=hidden.device)
        residual_of(changed, block)[:, column] = injected(hidden[:, column], vectors, injection)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _module(model: Any, injection: Injection) -> nn.Module:
    if injection.kind == "replace":
        return model.get_input_embeddings()
    return addition_block(model, addition_index(injection))


def addition_index(injection: Injection) -> int:
    """Index of the block at whose output vectors are added."""
    return DEFAULT_ADDITION_BLOCK if injection.block is None else injection.block


def addition_block(model: nn.Module, index: int) -> nn.Module:
    """The block of ``model`` at whose output vectors are added.

    Raises:
        UserError: the model has no such block.
    """
    blocks = blocks_of(decoder_of(model))
    if index >= len(blocks):
        raise UserError(
            f"injection at block {index}: the AV has only {count(len(blocks), 'block')}"
        )
    return blocks[index]


def injected(hidden: torch.Tensor, activations: torch.Tensor, injection: Injection) -> torch.Tensor:
    """The marker's hidden state ``[batch, d_model]`` after injection, norms taken in float32."""
    vectors = activations.float()
    if injection.kind == "replace" and injection.scale is None:
        return vectors.to(hidden.dtype)
    directions = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)
    if injection.kind == "replace":
        assert injection.scale is not None
        return (directions * injection.scale).to(hidden.dtype)
    norms = hidden.float().norm(dim=-1, keepdim=True)
    return (hidden.float() + norms * directions).to(hidden.dtype)
