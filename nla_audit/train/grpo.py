"""The GRPO objective, as one function of log-probabilities.

For response i of a group, with reward r_i and tokens t:

- credit     A_it of each token, from what is graded at or behind it (:mod:`..credit`); where only
              the whole response is, (r_i − mean of the group) / (std of the group + ε), or
              divided by the std about the groups' means over the step, or not divided;
- ratio      ρ_it = exp(log π(t) − log π_old(t)), with π_old the distribution sampled from;
- surrogate  s_it = min(ρ_it · A_it, clip(ρ_it, 1 − c, 1 + c) · A_it);
- KL (k3)    k_it = exp(δ) − δ − 1 with δ = log π_warm(t) − log π(t), always ≥ 0;
              its value estimates KL(π ‖ warm start), its gradient is that of KL(warm start ‖ π);
- loss       Σ_i w_i Σ_t (β · k_it − s_it).

``w_i`` is the length normalisation: ``sample`` is 1 / (n · length_i) as in the GRPO paper,
``batch`` is 1 / Σ lengths, ``constant`` is 1 / (n · max_new_tokens), under which a response's
weight does not depend on its length. The loss is a sum over responses with weights known before
the first backward pass, so micro-batches of any division add up to exactly the same gradient.

Groups without advantages may be left out of the sum and of n; they add their KL otherwise.

Sources: Shao et al. 2024 (GRPO, k3), Liu et al. 2025 (constant normalisation), Yu et al. 2025
(normalisation over the batch; groups without advantages drawn again).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

LengthNormalization = Literal["sample", "batch", "constant"]
AdvantageKind = Literal["standardized", "centered", "batch_standardized"]

Floats = npt.NDArray[np.float64]

#: Keeps the division defined where all rewards of a group are equal (their advantage is 0).
STD_FLOOR = 1e-6


@dataclass(frozen=True)
class Settings:
    """Constants of the objective; see :class:`nla_audit.train.recipe_rl.Rl`."""

    clip: float
    kl: float


@dataclass(frozen=True)
class TokenTerms:
    """Per-token parts of the objective, each ``[n, tokens]``; meaningless where there is no token.

    Attributes:
        loss: β · k3 − surrogate.
        kl: k3 estimate of KL to the warm start, in nats.
        is_clipped: whether the clip took the gradient away.
    """

    loss: torch.Tensor
    kl: torch.Tensor
    is_clipped: torch.Tensor


def is_flat(rewards: Floats, group: int) -> npt.NDArray[np.bool_]:
    """``[groups]`` whether all rewards of a group are equal."""
    grouped = np.asarray(rewards, dtype=np.float64).reshape(-1, group)
    return np.asarray(grouped.max(axis=1) == grouped.min(axis=1))


def response_weights(
    lengths: npt.NDArray[np.int64], how: LengthNormalization, max_new_tokens: int
) -> Floats:
    """``w_i`` of each of ``[n]`` responses of the whole step; lengths are true lengths."""
    counts = np.asarray(lengths, dtype=np.float64)
    if how == "sample":
        return 1.0 / (len(counts) * counts)
    if how == "batch":
        return np.full(len(counts), 1.0 / counts.sum())
    return np.full(len(counts), 1.0 / (len(counts) * max_new_tokens))


def token_terms(
    log_probs: torch.Tensor,
    old_log_probs: torch.Tensor,
    warm_log_probs: torch.Tensor,
    credit: torch.Tensor,
    settings: Settings,
) -> TokenTerms:
    """The objective at each token.

    Args:
        log_probs: ``[n, tokens]`` under the policy, with gradient.
        old_log_probs: ``[n, tokens]`` recorded while sampling.
        warm_log_probs: ``[n, tokens]`` under the warm start.
        credit: ``[n, tokens]``.
    """
    ratio = (log_probs - old_log_probs).exp()
    free = ratio * credit
    bounded = ratio.clamp(1 - settings.clip, 1 + settings.clip) * credit
    difference = warm_log_probs - log_probs
    kl = difference.exp() - difference - 1
    return TokenTerms(
        loss=settings.kl * kl - torch.minimum(free, bounded),
        kl=kl,
        is_clipped=bounded < free,
    )


def weighted_loss(terms: TokenTerms, is_token: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Scalar Σ_i w_i Σ_t loss_it over real tokens; masks ``[n, tokens]``, weights ``[n]``."""
    # `where`, not multiplication: a NaN behind a response's last token must not spread.
    losses = torch.where(is_token, terms.loss, 0.0)
    return (losses.sum(dim=1) * weights).sum()
