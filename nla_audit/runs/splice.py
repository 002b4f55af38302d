"""Put vectors in the place of an activation, and see what the target model says next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.nla.architecture import residual_of
from nla_audit.nla.output_head import last_logits
from nla_audit.nla.reconstructor import TOKEN_BUDGETS
from nla_audit.runs.target import TargetModel

_OTHER_TOKEN_BUDGET = 16384


@dataclass(frozen=True)
class Spliced:
    """What came of it at one token.

    Attributes:
        activation: `[d_model]`, what the block gives at the last token by itself.
        kl: `[k]`, from the next-token distribution without a splice to that with each vector, nats.
        same_top: `[k]`, whether the likeliest next token is the same.
    """

    activation: npt.NDArray[np.float32]
    kl: npt.NDArray[np.float64]
    same_top: npt.NDArray[np.bool_]


@torch.inference_mode()
def splice_last(
    target: TargetModel, ids: Sequence[int], vectors: npt.NDArray[np.float32]
) -> Spliced:
    """Replace the output of the target's block at the last token of ``ids``.

    In a causal model nothing but what follows can tell, so that the next-token distribution at
    that token holds all of the change.

    Args:
        target: with all its blocks, not only those up to the one that is read.
        vectors: `[k, d_model]`, raw.
    """
    unchanged, activation = _next_token(target, ids, None)
    budget = TOKEN_BUDGETS.get(target.device.type, _OTHER_TOKEN_BUDGET)
    together = max(1, budget // len(ids))
    kl, same = [], []
    for start in range(0, len(vectors), together):
        changed, _ = _next_token(target, ids, torch.tensor(vectors[start : start + together]))
        kl.append((unchanged.exp() * (unchanged - changed)).sum(dim=-1).double().cpu())
        same.append((changed.argmax(dim=-1) == unchanged.argmax(dim=-1)).cpu())
    return Spliced(activation.float().cpu().numpy(), torch.cat(kl).numpy(), torch.cat(same).numpy())


def _next_token(
    target: TargetModel, ids: Sequence[int], vectors: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities `[k or 1, vocabulary]`, and the block's output `[d_model]` before."""
    found: list[torch.Tensor] = []

    def replace(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        hidden = residual_of(output, module)
        found.append(hidden[0, -1].clone())
        if vectors is not None:
            hidden[:, -1] = vectors.to(hidden)  # a view of what the next block reads

    rows = 1 if vectors is None else len(vectors)
    batch = torch.tensor([list(ids)] * rows, device=target.device)
    hook = target.block.register_forward_hook(replace)
    try:
        output = target.model(input_ids=batch, use_cache=False, **last_logits(target.model, 1))
    finally:
        hook.remove()
    return output.logits[:, -1].float().log_softmax(dim=-1), found[0]
