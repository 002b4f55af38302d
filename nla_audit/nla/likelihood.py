"""How likely a base model finds texts, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence

from nla_audit.nla.architecture import longest_input
from nla_audit.nla.batching import by_token_budget
from nla_audit.nla.output_head import may_go_without_logits, token_log_probs

#: Of a pass, padding included: a model whose logits are scaled gives them all at once.
_TOKEN_BUDGET = 1024


def token_losses(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    """Negative log-likelihood of each token of each text, in nats.

    A text is read behind the model's token for the beginning of one, or for the end where it has
    no other; a tokenizer with neither leaves the first token without a value (NaN). Tokens beyond
    what the model reads are left out.

    Args:
        model: a causal language model of transformers.
        tokenizer: its own.
        texts: ``[n]``; an empty one has no tokens.
    """
    before = _before(tokenizer)
    longest = longest_input(model.config)
    ids = [(before + one)[:longest] for one in _encoded(tokenizer, texts)]
    return _of_last(_losses(model, ids), [len(one) - len(before) for one in ids])


def continuation_losses(
    model: Any,
    tokenizer: Any,
    prefixes: Sequence[str],
    continuations: Sequence[str],
    *,
    most_tokens: int,
) -> list[npt.NDArray[np.float64]]:
    """Negative log-likelihood of each token of each continuation behind its prefix, in nats.

    Both are cut into tokens apart, so that a continuation's are the same behind any prefix. A
    prefix that leaves too little room loses its beginning.

    Args:
        model, tokenizer: as for :func:`token_losses`, and so are NaN.
        prefixes: ``[n]``, may be empty.
        continuations: ``[n]``, of which the first ``most_tokens`` tokens count.
    """
    before = _before(tokenizer)
    longest = longest_input(model.config)
    ids, lengths = [], []
    for prefix, following in zip(
        _encoded(tokenizer, prefixes), _encoded(tokenizer, continuations), strict=True
    ):
        end = following[: min(most_tokens, longest - len(before))]
        room = longest - len(before) - len(end)
        ids.append(before + (prefix[-room:] if room else []) + end)
        lengths.append(len(end))
    return _of_last(_losses(model, ids), lengths)


def _before(tokenizer: Any) -> list[int]:
    first = tokenizer.bos_token_id
    first = tokenizer.eos_token_id if first is None else first
    return [] if first is None else [first]


def _encoded(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    return [list(one) for one in encoded]


def _of_last(
    losses: Sequence[npt.NDArray[np.float64]], lengths: Sequence[int]
) -> list[npt.NDArray[np.float64]]:
    """Of each row its last losses; NaN in front where it has fewer, having nothing before them."""
    found = []
    for own, length in zip(losses, lengths, strict=True):
        row = np.full(length, np.nan)
        known = min(length, len(own))
        row[length - known :] = own[len(own) - known :]
        found.append(row)
    return found


@torch.inference_mode()
def _losses(model: Any, ids: Sequence[Sequence[int]]) -> list[npt.NDArray[np.float64]]:
    """Of each token but the first of each row."""
    device = model.get_input_embeddings().weight.device
    found = [np.empty(max(len(one) - 1, 0)) for one in ids]
    read = [row for row, one in enumerate(ids) if len(one) > 1]
    for group in by_token_budget([len(ids[row]) for row in read], _TOKEN_BUDGET):
        rows = [read[place] for place in group]
        # Padded on the right, where in a causal model padding reaches nothing.
        padded = pad_sequence([torch.tensor(ids[row]) for row in rows], batch_first=True).to(device)
        lengths = torch.tensor([len(ids[row]) for row in rows], device=device)
        seen, following = padded[:, :-1], padded[:, 1:]
        is_token = torch.arange(1, padded.shape[1], device=device) < lengths[:, None]
        log_probs = token_log_probs(
            model,
            seen,
            following,
            is_token,
            without_logits=may_go_without_logits(model, seen, following),
        )
        losses = -log_probs.cpu().double().numpy()
        for number, row in enumerate(rows):
            found[row][:] = losses[number, : len(found[row])]
    return found
