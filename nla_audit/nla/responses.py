"""Log-probabilities of given responses under an AV, with gradient, for any number at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from nla_audit.nla.output_head import may_go_without_logits, token_log_probs

if TYPE_CHECKING:
    from nla_audit.nla.verbalizer import Verbalizer


def response_log_probs(
    verbalizer: Verbalizer,
    activations: torch.Tensor,
    token_ids: torch.Tensor,
    is_token: torch.Tensor | None = None,
) -> torch.Tensor:
    """Log-probability of each token of each response at temperature 1, ``[n, tokens]``.

    All rows share the prompt and responses are padded on the right, where a causal model's
    padding reaches nothing; so there is no attention mask and every position is exact.

    Args:
        activations: ``[n, d_model]``, injected at the marker.
        token_ids: ``[n, tokens]``; any id where there is no token.
        is_token: ``[n, tokens]``; where it is false, the result has no meaning. By default all are.
    """
    prompt = torch.tensor(verbalizer.prompt.ids, device=token_ids.device)
    # The last token is predicted but predicts nothing we need.
    ids = torch.cat([prompt.expand(len(token_ids), -1), token_ids[:, :-1]], dim=1)
    wanted = torch.ones_like(token_ids, dtype=torch.bool) if is_token is None else is_token
    model = verbalizer.model
    without_logits = may_go_without_logits(model, ids, token_ids)
    with verbalizer.injecting(activations):
        return token_log_probs(model, ids, token_ids, wanted, without_logits=without_logits)
