"""Prompts read once for all the responses that go on from them, with gradient.

All samples of an activation have the same prompt, vector included, and all prompts are the same up
to their marker. So a step reads the beginning once, the rest of the prompt once for each
activation, and of each response its own tokens only, which look back at the prompt's keys and
values. The gradient takes the same way back: responses add theirs to that of the keys and values,
and when all have, it goes through the prompts, once.

That is the same sum in another order: it differs from passes of whole rows by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import DynamicCache

from nla_audit.nla.batching import distinct_rows
from nla_audit.nla.cache import cache_keyword
from nla_audit.nla.caching import Caching, caching_of
from nla_audit.nla.output_head import last_logits, may_go_without_logits, token_log_probs
from nla_audit.nla.responses import response_log_probs
from nla_audit.nla.rounding import rounding_of
from nla_audit.nla.verbalizer import Verbalizer


class ResponseReading(Protocol):
    """How responses to some activations are read."""

    def log_probs(
        self, rows: npt.NDArray[np.int64], token_ids: torch.Tensor, is_token: torch.Tensor
    ) -> torch.Tensor:
        """Log-probability of each token of the responses to the activations ``rows``.

        As :func:`nla_audit.nla.responses.response_log_probs`.
        """

    def backward(self) -> None:
        """Pass on the gradient that has been kept back; after all responses have given theirs."""


class WholeRows:
    """Each response is read with a prompt of its own.

    Args:
        activations: ``[n, d_model]``, one for each response.
    """

    def __init__(self, verbalizer: Verbalizer, activations: torch.Tensor) -> None:
        self._verbalizer, self._activations = verbalizer, activations

    def log_probs(
        self, rows: npt.NDArray[np.int64], token_ids: torch.Tensor, is_token: torch.Tensor
    ) -> torch.Tensor:
        """See :class:`ResponseReading`."""
        activations = self._activations[torch.from_numpy(rows)]
        return response_log_probs(self._verbalizer, activations, token_ids, is_token)

    def backward(self) -> None:
        """Nothing was kept back."""


class SharedPrompts:
    """Responses to one activation go on from one prompt, read up to its last token but one.

    Args:
        verbalizer: one that :func:`may_share_prompts`.
        activations: ``[n, d_model]``, one for each response; equal ones share a prompt.
        rows: which of them there will be responses to.
    """

    def __init__(
        self, verbalizer: Verbalizer, activations: torch.Tensor, rows: npt.NDArray[np.int64]
    ) -> None:
        self._verbalizer = verbalizer
        of_rows = activations[torch.from_numpy(rows)]
        first, place = distinct_rows(of_rows)
        #: Which prompt each row has.
        self._prompts = np.full(len(activations), -1, dtype=np.int64)
        self._prompts[rows] = place
        #: Keys and values of each block in turn, ``[prompts, heads, tokens, head_dim]``.
        self._read = _keys_and_values(verbalizer, of_rows[torch.from_numpy(first)])
        # The same again, cut off from the passes that made them: here the gradients of many
        # responses are summed, in which bf16 would lose digits.
        self._handed_on = [
            one.detach().to(torch.promote_types(one.dtype, torch.float32)).requires_grad_()
            if one.requires_grad
            else one
            for one in self._read
        ]

    def log_probs(
        self, rows: npt.NDArray[np.int64], token_ids: torch.Tensor, is_token: torch.Tensor
    ) -> torch.Tensor:
        """See :class:`ResponseReading`."""
        model = self._verbalizer.model
        prompts = torch.from_numpy(self._prompts[rows])
        kept = [
            _taken(handed_on, prompts).to(read.dtype)
            for handed_on, read in zip(self._handed_on, self._read, strict=True)
        ]
        last = torch.tensor(self._verbalizer.prompt.ids[-1:], device=token_ids.device)
        # The last token is predicted but predicts nothing we need.
        ids = torch.cat([last.expand(len(token_ids), -1), token_ids[:, :-1]], dim=1)
        without_logits = may_go_without_logits(model, ids, token_ids)
        options = _going_on_from(model, kept)
        return token_log_probs(
            model, ids, token_ids, is_token, without_logits=without_logits, **options
        )

    def backward(self) -> None:
        """See :class:`ResponseReading`."""
        given = [
            (read, handed_on.grad.to(read.dtype))
            for read, handed_on in zip(self._read, self._handed_on, strict=True)
            if handed_on.grad is not None
        ]
        if given:
            tensors, gradients = zip(*given, strict=True)
            torch.autograd.backward(tensors, gradients)


def may_share_prompts(verbalizer: Verbalizer) -> bool:
    """Whether prompts that are read once give the log-probabilities and gradients of whole rows.

    Found out on the model itself, on a few tokens.
    """
    model, prompt = verbalizer.model, verbalizer.prompt
    if prompt.marker + 1 >= len(prompt.ids):
        return False
    if caching_of(model, model.config, prompt.ids) is not Caching.SHARED:
        return False
    trained = [one for one in model.parameters() if one.requires_grad]
    try:
        for one in trained:  # theirs are not asked for: the vector's has to come all the way back
            one.requires_grad_(False)
        whole, shared = (_tried(verbalizer, is_shared=how) for how in (False, True))
    finally:
        for one in trained:
            one.requires_grad_(True)
    bound = rounding_of(model.get_input_embeddings().weight.dtype)
    return all(
        bool((found - wanted).norm() <= bound * wanted.norm())
        for found, wanted in zip(shared, whole, strict=True)
    )


@torch.enable_grad()
def _tried(verbalizer: Verbalizer, *, is_shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of three short responses to two vectors, and the vectors' gradient."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn((2, verbalizer.d_model), generator=generator).to(verbalizer.device)
    vectors.requires_grad_()
    rows = np.arange(3)
    activations = vectors[[0, 1, 0]]
    tokens = torch.tensor(verbalizer.prompt.ids[-3:], device=verbalizer.device).expand(3, -1)
    reading: ResponseReading = (
        SharedPrompts(verbalizer, activations, rows)
        if is_shared
        else WholeRows(verbalizer, activations)
    )
    found = reading.log_probs(rows, tokens, torch.ones_like(tokens, dtype=torch.bool))
    if found.requires_grad:
        # Weighted, so that responses taken for each other are seen.
        (found.sum(dim=1) * torch.tensor([1.0, 2.0, 3.0]).to(found)).sum().backward()
        reading.backward()
    return found.detach(), torch.zeros_like(vectors) if vectors.grad is None else vectors.grad


def _keys_and_values(verbalizer: Verbalizer, activations: torch.Tensor) -> list[torch.Tensor]:
    """Of the prompt but its last token, for ``[n, d_model]`` distinct activations."""
    model, prompt = verbalizer.model, verbalizer.prompt
    ids = torch.tensor(prompt.ids[:-1], device=verbalizer.device)
    beginning, rest = ids[: prompt.marker], ids[prompt.marker :]
    kept: list[torch.Tensor] = []
    if len(beginning) > 0:
        options = _going_on_from(model, kept)
        model(input_ids=beginning[None], **options, **last_logits(model, 1))
        kept = [one.expand(len(activations), -1, -1, -1) for one in _kept(model, options)]
    options = _going_on_from(model, kept)
    with verbalizer.injecting(activations, column=0):
        model(input_ids=rest.expand(len(activations), -1), **options, **last_logits(model, 1))
    return _kept(model, options)


def _going_on_from(model: Any, kept: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Keyword arguments of a pass behind tokens whose keys and values are ``kept``; or ``[]``.

    transformers' own cache, whose layers put tensors together and never write into them, so that
    gradients get through; those of :mod:`nla_audit.nla.cache` do not let them.
    """
    cache = DynamicCache(list(zip(kept[::2], kept[1::2], strict=True)))
    return {str(cache_keyword(model)): cache, "use_cache": True}


def _kept(model: Any, options: dict[str, Any]) -> list[torch.Tensor]:
    layers = options[str(cache_keyword(model))].layers
    return [one for layer in layers for one in (layer.keys, layer.values)]


def _taken(tensor: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``tensor[rows]``, whose gradient is summed in the same order each time.

    torch has two ways to take rows, and on either kind of device one of them sums in whatever
    order threads come; a run that goes on after a kill has to get the same bits.
    """
    if tensor.device.type == "cpu":
        return tensor.index_select(0, rows)
    return tensor[rows.to(tensor.device)]
