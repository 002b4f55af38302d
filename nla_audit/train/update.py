"""One optimiser step: gradients accumulated over micro-batches, guarded, then applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import nn

from nla_audit.nla.adamw import adamw
from nla_audit.train.averaging import Average
from nla_audit.train.grpo import Floats, Settings, token_terms, weighted_loss
from nla_audit.train.log_probs import MicroBatch
from nla_audit.train.policy import Policy
from nla_audit.train.readings import ResponseReading
from nla_audit.train.recipe_optimizer import Optimizer
from nla_audit.train.sharding import gradient_norm, whole_tensor


@dataclass(frozen=True)
class Experience:
    """What a step sampled and what it was worth.

    Attributes:
        activations: ``[n, d_model]`` injected into each response's prompt.
        old_log_probs: ``[n, longest]``, recorded while sampling; NaN behind the last token.
        credit: ``[n, longest]`` of each token; see :mod:`nla_audit.train.credit`.
        weights: ``[n]``, of the length normalisation.
        batches: the responses, divided.
    """

    activations: torch.Tensor
    old_log_probs: torch.Tensor
    credit: Floats
    weights: Floats
    batches: Sequence[MicroBatch]

    def readings(self) -> list[list[MicroBatch]]:
        """The micro-batches, those of a reading together."""
        return [list(own) for _, own in groupby(self.batches, lambda batch: batch.reading)]


@dataclass(frozen=True)
class PolicyMeasures:
    """Sums over the real tokens of a step (or of one process's share of it).

    Attributes:
        loss: as trained; the weights are in it.
        kl: k3 in nats, summed.
        clipped: tokens whose gradient the clip took away.
        moved: |log-probability now − when sampled| in nats, summed.
        tokens: how many there are.
    """

    loss: float
    kl: float
    clipped: int
    moved: float
    tokens: int

    def __add__(self, other: PolicyMeasures) -> PolicyMeasures:
        return PolicyMeasures(
            self.loss + other.loss,
            self.kl + other.kl,
            self.clipped + other.clipped,
            self.moved + other.moved,
            self.tokens + other.tokens,
        )


def warm_log_probs(policy: Policy, experience: Experience) -> list[torch.Tensor]:
    """The reference pass, in the same micro-batches as the update."""
    found: list[torch.Tensor] = []
    for batches in experience.readings():
        with policy.warm_reading(experience.activations, batches) as reading:
            found += [
                reading.log_probs(batch.rows, batch.token_ids, batch.is_token) for batch in batches
            ]
    return found


def accumulate_gradients(
    policy: Policy,
    experience: Experience,
    warm: Sequence[torch.Tensor],
    settings: Settings,
) -> PolicyMeasures:
    """Add the gradient of the whole step's loss to ``policy.parameters``.

    The same for any division into micro-batches, because each response's weight is known before.
    """
    measures = PolicyMeasures(0.0, 0.0, 0, 0.0, 0)
    references = iter(warm)
    for batches in experience.readings():
        with policy.reading(experience.activations, batches) as reading:
            for batch in batches:
                measures += _add_gradient(reading, experience, batch, next(references), settings)
            reading.backward()
    return measures


def _add_gradient(
    reading: ResponseReading,
    experience: Experience,
    batch: MicroBatch,
    warm_log_prob: torch.Tensor,
    settings: Settings,
) -> PolicyMeasures:
    """That of one micro-batch's loss."""
    log_probs = reading.log_probs(batch.rows, batch.token_ids, batch.is_token)
    longest = batch.token_ids.shape[1]
    old = experience.old_log_probs[torch.from_numpy(batch.rows), :longest].to(log_probs)
    terms = token_terms(
        log_probs,
        # Behind the last token: any number, so that no NaN gets into the gradient.
        torch.where(batch.is_token, old, log_probs.detach()),
        warm_log_prob,
        torch.from_numpy(experience.credit[batch.rows, :longest]).to(log_probs),
        settings,
    )
    weights = torch.from_numpy(experience.weights[batch.rows]).to(log_probs)
    loss = weighted_loss(terms, batch.is_token, weights)
    loss.backward()
    moves = torch.where(batch.is_token, log_probs.detach() - old, 0.0)
    return PolicyMeasures(
        loss=float(loss.detach()),
        kl=float(torch.where(batch.is_token, terms.kl.detach(), 0.0).sum()),
        clipped=int((terms.is_clipped & batch.is_token).sum()),
        moved=float(moves.abs().sum()),
        tokens=int(batch.is_token.sum()),
    )


class Trainer:
    """AdamW with a schedule, clipping, and the guard against non-finite gradients.

    One degenerate prediction can give an infinite gradient, and one optimiser step with it ruins
    every weight and the optimiser's own averages (docs/failures.md). So gradients are checked
    before the step; a step that has any that is not finite changes nothing.

    Args:
        parameters: what is trained, by name.
        steps: how many there will be, for a rate that decays.
        average_decay: of a running average of the parameters, where one is wanted.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        settings: Optimizer,
        *,
        steps: int,
        average_decay: float | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self.settings = settings
        self.steps = steps
        self.average = None if average_decay is None else Average(parameters, average_decay)
        self.optimizer = adamw(
            self.parameters.values(),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )

    def zero_grad(self) -> None:
        """Forget gradients."""
        self.optimizer.zero_grad()

    def step(self, number: int) -> float | None:
        """Apply the accumulated gradients as step ``number`` (from 0).

        Returns:
            The gradient's L2 norm before clipping; ``None`` where it is not finite, and then
            nothing has changed.
        """
        norm = gradient_norm(self.parameters.values())
        if not np.isfinite(norm):
            self.zero_grad()
            return None
        if norm > self.settings.max_grad_norm:
            scale = self.settings.max_grad_norm / norm
            for parameter in self.parameters.values():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        rate = learning_rate(self.settings, number, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        self.zero_grad()
        return norm


def trained_tensors(
    trainers: Mapping[str, Trainer], *, is_wanted: bool = True, with_optimizer: bool = False
) -> dict[str, torch.Tensor]:
    """Whole copies on the CPU of what ``trainers`` train, as ``PART/PARAMETER/weight``, and of
    its running average, where there is one, as ``…/average``.

    Args:
        is_wanted: whether this process wants them. Where weights are divided all processes must
            call this, to put them together; those that do not want them get nothing.
        with_optimizer: the optimiser's averages too, under their names for ``weight``.
    """
    tensors: dict[str, torch.Tensor] = {}
    for part, trainer in trainers.items():
        for name, parameter in trainer.parameters.items():
            state = trainer.optimizer.state.get(parameter, {}) if with_optimizer else {}
            if trainer.average is not None:
                state = {**state, "average": trainer.average.tensors[name]}
            for field, value in {"weight": parameter, **state}.items():
                tensor = whole_tensor(value)
                if is_wanted:
                    tensors[f"{part}/{name}/{field}"] = tensor.cpu().contiguous()
    return tensors


def learning_rate(settings: Optimizer, step: int, steps: int) -> float:
    """Rate of step ``step`` (from 0) of ``steps``."""
    rate = settings.learning_rate
    if step < settings.warmup_steps:
        rate *= (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "cosine":
        rate *= 0.1 + 0.9 * 0.5 * (1 + float(np.cos(np.pi * min(step, steps) / max(1, steps))))
    return rate
