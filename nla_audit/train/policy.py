"""The AV as a policy: what of it is trained, and the warm start it is anchored to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.distributed.device_mesh import DeviceMesh

from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.adapters import RL_ADAPTER, add_lora, without_adapter
from nla_audit.train.log_probs import MicroBatch
from nla_audit.train.readings import ResponseReading, SharedPrompts, WholeRows, may_share_prompts
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.sharding import shard


class Policy:
    """An AV in training.

    The anchor is the AV *as it is given here*, the warm start: with LoRA it is the model with
    only the new adapter switched off (an adapter that is the warm start itself stays on), without
    LoRA it is a frozen copy. A run that starts from another may be given its anchor.

    Args:
        verbalizer: the warm start; its model is changed in place.
        lora: adapters to train, or ``None`` to train all weights.
        seed: of the adapters' first values.
        gradient_checkpointing: recompute activations in the backward pass.
        mesh: the processes that share the weights; ``None`` keeps them whole.
        anchor: another AV to be anchored to, which is frozen.
    """

    def __init__(
        self,
        verbalizer: Verbalizer,
        lora: Lora | None,
        *,
        seed: int,
        gradient_checkpointing: bool = False,
        mesh: DeviceMesh | None = None,
        anchor: Verbalizer | None = None,
    ) -> None:
        self.verbalizer = verbalizer
        self._checkpointing = gradient_checkpointing
        self._is_sharded = mesh is not None
        self._warm = anchor
        if anchor is not None:
            anchor.model.requires_grad_(False).eval()
        if lora is not None:
            add_lora(verbalizer.model, lora, RL_ADAPTER, seed=seed)
        else:
            # bf16 weights would lose updates this small.
            verbalizer.model.float()
            if anchor is None:
                self._warm = _frozen_copy(verbalizer)
            else:
                anchor.model.float()
            verbalizer.model.requires_grad_(True)
        if gradient_checkpointing:
            recompute_activations(verbalizer.model)
        if mesh is not None:
            for one in (verbalizer, self._warm):
                if one is not None:
                    shard(one.model, mesh)
        # Only now: sharding puts other parameters in the place of these.
        self.parameters = {
            name: parameter
            for name, parameter in verbalizer.model.named_parameters()
            if parameter.requires_grad
        }

    @cached_property
    def shares_prompts(self) -> bool:
        """Whether responses to one activation go on from one prompt.

        Not where activations are recomputed: transformers then keeps no keys and values. Nor where
        weights are divided among processes, which all have to make the same passes.
        """
        if self._checkpointing or self._is_sharded:
            return False
        return may_share_prompts(self.verbalizer)

    @contextmanager
    def reading(
        self, activations: torch.Tensor, batches: Sequence[MicroBatch]
    ) -> Iterator[ResponseReading]:
        """Read responses as the policy, with gradient.

        Args:
            activations: ``[n, d_model]`` of the whole step.
            batches: what will be read of it.
        """
        with self._training_mode():
            yield self._read_by(self.verbalizer, activations, batches)

    @contextmanager
    def warm_reading(
        self, activations: torch.Tensor, batches: Sequence[MicroBatch]
    ) -> Iterator[ResponseReading]:
        """Read responses as the anchor, without gradient; arguments as for :meth:`reading`."""
        with torch.no_grad():
            if self._warm is not None:
                yield self._read_by(self._warm, activations, batches)
                return
            with without_adapter(self.verbalizer.model, RL_ADAPTER):
                yield self._read_by(self.verbalizer, activations, batches)

    def _read_by(
        self, verbalizer: Verbalizer, activations: torch.Tensor, batches: Sequence[MicroBatch]
    ) -> ResponseReading:
        if not self.shares_prompts:
            return WholeRows(verbalizer, activations)
        rows = np.concatenate([batch.rows for batch in batches])
        return SharedPrompts(verbalizer, activations, rows)

    @contextmanager
    def _training_mode(self) -> Iterator[None]:
        """transformers checkpoints gradients in training mode only; there is no dropout."""
        self.verbalizer.model.train(self._checkpointing)
        try:
            yield
        finally:
            self.verbalizer.model.eval()


def _frozen_copy(verbalizer: Verbalizer) -> Verbalizer:
    model = copy.deepcopy(verbalizer.model).requires_grad_(False).eval()
    return Verbalizer(
        model,
        verbalizer.tokenizer,
        verbalizer.sidecar,
        injection=verbalizer.injection,
        name=f"{verbalizer.name} (anchor)",
    )


def recompute_activations(model: Any) -> None:
    """Keep no activations of the forward pass; older transformers name it otherwise."""
    enable = getattr(model, "activation_checkpointing_enable", None)
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
