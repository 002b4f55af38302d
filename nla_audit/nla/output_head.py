"""The output matrix: run only where logits are needed, and never copied."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nla_audit.nla.architecture import text_config
from nla_audit.nla.chosen_tokens import chosen_log_probs
from nla_audit.nla.rounding import rounding_of

#: Vocabularies from here on are worth computing log-probabilities without their logits.
LARGE_VOCABULARY = 2**15
_SOFTCAP = "final_logit_softcapping"
_MARK = "_nla_audit_contiguous"


def last_logits(model: nn.Module, tokens: int) -> dict[str, int]:
    """Keyword arguments that spare logits before the last ``tokens``, where a model can do so.

    A caller still cuts what it gets: a model may return them all.
    """
    names = inspect.signature(type(model).forward).parameters
    return {"logits_to_keep": tokens} if "logits_to_keep" in names else {}


def with_contiguous_states(model: Any) -> Any:
    """``model``, whose output matrix is handed states that lie together in memory.

    The last states of several rows are a slice with gaps, and for one of those torch multiplies
    row by row with a copy of the matrix each: with a large vocabulary many times the cost of the
    product itself.
    """
    head = model.get_output_embeddings()
    if head is not None and not hasattr(head, _MARK):
        head.register_forward_pre_hook(_contiguous)
        setattr(head, _MARK, True)
    return model


def _contiguous(_head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.contiguous() if isinstance(one, torch.Tensor) else one for one in inputs)


def token_log_probs(
    model: Any,
    ids: torch.Tensor,
    tokens: torch.Tensor,
    is_token: torch.Tensor,
    *,
    without_logits: bool,
    **options: Any,
) -> torch.Tensor:
    """Log-probability of ``tokens`` at temperature 1 as the last of each row, with gradient.

    Args:
        model: a causal language model.
        ids: ``[n, all]``, what the model reads; it ends before the last of ``tokens``.
        tokens: ``[n, last]``.
        is_token: ``[n, last]``, where there is one to be predicted.
        without_logits: keep none; see :func:`may_go_without_logits`.
        options: of the forward pass, such as a cache of what stands before ``ids``.

    Returns:
        ``[n, last]`` float32 (float64 for logits that are); of no meaning where there is no token.
    """
    if without_logits:
        with _log_probs_for_logits(model, tokens, is_token):
            return _last_outputs(model, ids, tokens.shape[1], **options).squeeze(-1)
    return _from_logits(_last_outputs(model, ids, tokens.shape[1], **options), tokens)


def _last_outputs(model: Any, ids: torch.Tensor, last: int, **options: Any) -> torch.Tensor:
    given = {"use_cache": False, **last_logits(model, last), **options}
    return model(input_ids=ids, **given).logits[:, -last:]


def _from_logits(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    chosen = wide.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen - wide.logsumexp(dim=-1)


_known: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def may_go_without_logits(model: Any, ids: torch.Tensor, tokens: torch.Tensor) -> bool:
    """Whether the vocabulary is large, and nothing unknown to us is done to its logits.

    Some families scale what the output matrix gives, each by a setting of another name. So it is
    found out on the first row, once for a model; ``ids`` and ``tokens`` as for
    :func:`token_log_probs`.
    """
    # Asked each time: an adapter or a hook may have come to the output matrix since.
    if not _is_plain_and_large(model):
        return False
    if model not in _known:
        _known[model] = _agrees(model, ids[:1], tokens[:1])
    return _known[model]


def _is_plain_and_large(model: Any) -> bool:
    head = model.get_output_embeddings()
    return (
        type(head) is nn.Linear  # an adapter on it would be passed by
        and head.bias is None
        and head.out_features >= LARGE_VOCABULARY
        and head.weight.dtype != torch.float64
        and "forward" not in vars(head)  # accelerate's, which fetches its weights from elsewhere
    )


@torch.no_grad()
def _agrees(model: Any, ids: torch.Tensor, tokens: torch.Tensor) -> bool:
    last = tokens.shape[1]
    wanted = _from_logits(_last_outputs(model, ids, last), tokens)
    with _log_probs_for_logits(model, tokens, torch.ones_like(tokens, dtype=torch.bool)):
        found = _last_outputs(model, ids, last)
    if found.shape != (*tokens.shape, 1):
        return False
    bound = rounding_of(model.get_output_embeddings().weight.dtype)
    return bool((found.squeeze(-1) - wanted).norm() <= bound * wanted.norm())


@contextmanager
def _log_probs_for_logits(
    model: Any, tokens: torch.Tensor, is_token: torch.Tensor
) -> Iterator[None]:
    """Inside, ``model`` returns log-probabilities ``[n, last, 1]`` where its logits would be.

    The output matrix is used within the model's own forward pass, because weights that are divided
    among processes are whole only there.
    """
    head, config = model.get_output_embeddings(), text_config(model.config)
    softcap = getattr(config, _SOFTCAP, None)

    def forward(states: torch.Tensor) -> torch.Tensor:
        last = states[:, -tokens.shape[1] :]
        found = chosen_log_probs(last[is_token], head.weight, tokens[is_token], softcap=softcap)
        log_probs = found.new_zeros(tokens.shape).masked_scatter(is_token, found)
        return log_probs.unsqueeze(-1)

    head.forward = forward
    if softcap is not None:
        vars(config)[_SOFTCAP] = None  # some configs refuse None where it is assigned
    try:
        yield
    finally:
        del head.forward
        if softcap is not None:
            vars(config)[_SOFTCAP] = softcap
