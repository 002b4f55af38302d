"""The AV as a policy: what of it is trained, and the warm start it is anchored to."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.adapters import RL_ADAPTER, add_lora, without_adapter
from nla_audit.train.log_probs import response_log_probs
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
        self.lora = lora
        self._checkpointing = gradient_checkpointing
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

    def log_probs(
        self,
        activations: torch.Tensor,
        token_ids: torch.Tensor,
        is_token: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Of the policy, with gradient; see :func:`response_log_probs`."""
        with self._training_mode():
            return response_log_probs(self.verbalizer, activations, token_ids, is_token)

    @torch.no_grad()
    def warm_log_probs(
        self,
        activations: torch.Tensor,
        token_ids: torch.Tensor,
        is_token: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Of the anchor, without gradient."""
        if self._warm is not None:
            return response_log_probs(self._warm, activations, token_ids, is_token)
        with without_adapter(self.verbalizer.model, RL_ADAPTER):
            return response_log_probs(self.verbalizer, activations, token_ids, is_token)

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
