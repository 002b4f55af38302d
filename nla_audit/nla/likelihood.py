"""How likely a base model finds texts, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.nla.backbone import (
    Placement,
    quiet_transformers,
    read_causal_lm,
    read_config,
    read_tokenizer,
)
from nla_audit.nla.batching import by_token_budget
from nla_audit.nla.hub import local_folder
from nla_audit.nla.refusal import refuse_wrong

_TOKEN_BUDGET = 4096


@torch.inference_mode()
def token_losses(
    reference: str | Path, texts: Sequence[str], *, placement: Placement | None = None
) -> list[npt.NDArray[np.float64]]:
    """Negative log-likelihood of each token of each text, in nats.

    A text is read behind the model's token for the beginning of one, or for the end where it has
    no other; a tokenizer with neither leaves the first token without a value (NaN). Tokens beyond
    what the model reads are left out.

    Args:
        reference: a causal language model: a folder, or owner/name on the Hub.
        texts: ``[n]``; an empty one has no tokens.

    Raises:
        UserError: the model cannot be loaded.
    """
    folder, place = local_folder(reference), placement or Placement()
    config = read_config(folder, place)
    with quiet_transformers():
        model = place.place(read_causal_lm(folder, config, place, role="av", refuse=refuse_wrong))
        tokenizer = read_tokenizer(folder, place)
    first = tokenizer.bos_token_id
    before = [tokenizer.eos_token_id if first is None else first]
    before = [] if before == [None] else before
    longest = int(getattr(config, "max_position_embeddings", 2**31))
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    ids = [(before + list(one))[:longest] for one in encoded]
    device = model.get_input_embeddings().weight.device
    found = [np.full(len(one) - len(before), np.nan) for one in ids]
    read = [row for row, one in enumerate(ids) if len(one) > 1]
    for group in by_token_budget([len(ids[row]) for row in read], _TOKEN_BUDGET):
        rows = [read[place] for place in group]
        width = max(len(ids[row]) for row in rows)
        # Padded on the right, where in a causal model padding reaches nothing.
        padded = torch.zeros((len(rows), width), dtype=torch.int64)
        for number, row in enumerate(rows):
            padded[number, : len(ids[row])] = torch.tensor(ids[row])
        padded = padded.to(device)
        logits = model(input_ids=padded, use_cache=False).logits[:, :-1].float()
        chosen = logits.gather(-1, padded[:, 1:, None]).squeeze(-1)
        losses = (logits.logsumexp(dim=-1) - chosen).cpu().double().numpy()
        for number, row in enumerate(rows):
            length = len(ids[row]) - 1
            found[row][len(found[row]) - length :] = losses[number, :length]
    return found
