"""Log-probabilities of given tokens, from the states before the output matrix.

Under a large vocabulary the logits of a batch are its largest tensor by far: those of 512 tokens
and 262,144 words are half a gigabyte in float32, and torch's own operations keep several of that
size for the backward pass. Here the logits of a few tokens exist at a time, and none are kept.

The log-probability of token ``y`` under logits ``z = W h`` is ``z_y − log Σ_v exp z_v``, its
gradient with respect to the state ``h`` is ``(e_y − p) W``, with ``p`` the probabilities and
``e_y`` 1 at ``y`` and 0 elsewhere. That is computed while the logits are at hand, and whatever is
made of the log-probability later only scales it. So an output matrix that is not trained costs one
product forward and one backward, as it must. One that is trained needs ``p`` once more, from logits
that are computed again.

Fused kernels for a GPU (Liger's, cut cross-entropy) give the loss summed or by token under one
objective; the ratio of a policy gradient needs the log-probabilities themselves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from nla_audit.nla.slices import parts, row_parts

#: Logits that exist at once, by type of device. Every chunk of tokens reads the whole matrix.
_CHUNK = {"cpu": 2**25, "cuda": 2**28}
_OTHER_CHUNK = 2**26


def chosen_log_probs(
    states: torch.Tensor,
    weight: torch.Tensor,
    tokens: torch.Tensor,
    *,
    softcap: float | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """Log-probability of each of ``tokens`` at temperature 1, ``[n]`` float32, with gradient.

    Args:
        states: ``[n, d_model]``.
        weight: the output matrix ``[vocabulary, d_model]``.
        tokens: ``[n]``.
        softcap: c, where the model's logits are ``c · tanh(z / c)``.
        chunk: tokens whose logits exist at once, by default as many as suit the device.
    """
    chunk = chunk or default_chunk(states.device.type, len(weight))
    return _ChosenLogProbs.apply(
        states, weight, tokens, _How(softcap, chunk, torch.is_grad_enabled())
    )


def default_chunk(device_type: str, vocabulary: int) -> int:
    """Tokens whose logits exist at once."""
    return max(1, _CHUNK.get(device_type, _OTHER_CHUNK) // vocabulary)


class _How(NamedTuple):
    softcap: float | None
    chunk: int
    is_grad_enabled: bool  # within a function of autograd's it never is


class _ChosenLogProbs(torch.autograd.Function):
    """Either the gradient with respect to the states is computed ahead, or all is kept for later.

    Ahead if only the states have one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        tokens: torch.Tensor,
        how: _How,
    ) -> torch.Tensor:
        ctx.how = how
        ctx.is_weight_trained = how.is_grad_enabled and ctx.needs_input_grad[1]
        is_ahead = how.is_grad_enabled and ctx.needs_input_grad[0] and not ctx.is_weight_trained
        log_probs = states.new_empty(len(states), dtype=torch.float32)
        gradient = torch.empty_like(states) if is_ahead else None
        for part in parts(len(states), how.chunk):
            logits = linear(states[part], weight)
            log_probs[part], totals = _into_slopes(logits, tokens[part], how.softcap, is_ahead)
            if gradient is not None:
                gradient[part] = (logits @ weight) / totals
        if ctx.is_weight_trained:
            ctx.save_for_backward(states, weight, tokens)
        elif gradient is not None:
            ctx.save_for_backward(gradient)
        return log_probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if not ctx.is_weight_trained:
            (ahead,) = ctx.saved_tensors
            return (upstream[:, None] * ahead).to(ahead.dtype), None, None, None
        states, weight, tokens = ctx.saved_tensors
        of_states, of_weight = torch.empty_like(states), torch.zeros_like(weight)
        for part in parts(len(states), ctx.how.chunk):
            logits = linear(states[part], weight)
            _, totals = _into_slopes(logits, tokens[part], ctx.how.softcap, True)
            scale = (upstream[part, None] / totals).to(states.dtype)
            of_states[part] = (logits @ weight) * scale
            of_weight.addmm_(logits.T, states[part] * scale)
        return of_states, of_weight, None, None


def _into_slopes(
    logits: torch.Tensor, tokens: torch.Tensor, softcap: float | None, is_wanted: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities ``[n]``, and in the place of ``logits`` their gradients, if wanted.

    Row i of ``logits`` ``[n, vocabulary]`` becomes the gradient with respect to it times
    ``totals[i]`` (``[n, 1]``): as they stand, the entries of a bf16 tensor keep the digits of
    ``1 − p`` at a token that is nearly certain.
    """
    log_probs = logits.new_empty(len(logits), dtype=torch.float32)
    totals = logits.new_empty((len(logits), 1), dtype=torch.float32)
    for part in row_parts(logits):
        chosen = tokens[part, None]
        # A copy also where the logits are float32 already: they are written over below.
        wide = logits[part].to(torch.float32, copy=True)
        damping = None
        if softcap is not None:
            wide.div_(softcap).tanh_()
            damping = 1 - wide.square() if is_wanted else None
            wide.mul_(softcap)
        wide.sub_(wide.amax(dim=1, keepdim=True))
        above = wide.gather(1, chosen)
        weights = wide.exp_()
        totals[part] = weights.sum(dim=1, keepdim=True)
        log_probs[part] = (above - totals[part].log()).squeeze(1)
        if is_wanted:
            own = weights.gather(1, chosen)
            slopes = weights.neg_().scatter_(1, chosen, totals[part] - own)
            logits[part] = slopes if damping is None else slopes.mul_(damping)
    return log_probs, totals
