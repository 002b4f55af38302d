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


@torch.inference_mode()
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
    first = tokenizer.bos_token_id
    before = [tokenizer.eos_token_id if first is None else first]
    before = [] if before == [None] else before
    longest = longest_input(model.config)
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    ids = [(before + list(one))[:longest] for one in encoded]
    device = model.get_input_embeddings().weight.device
    found = [np.full(len(one) - len(before), np.nan) for one in ids]
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
            length = len(ids[row]) - 1
            found[row][len(found[row]) - length :] = losses[number, :length]
    return found
