"""The next token of each row, from its logits and one uniform number.

The cumulative distribution is inverted in float64, so that the draw decides up to its last digits.
Of a large vocabulary that is done twice over a few hundred numbers instead of once over all of
them: which block of the vocabulary, then which token in it.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from nla_audit.nla.slices import row_parts

#: Tokens of a block.
_BLOCK = 1024
_BELOW_ONE = 1 - 2**-53


def next_tokens(
    logits: torch.Tensor, temperature: float, draws: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens ``[rows]`` and their log-probabilities ``[rows]`` float32.

    A row's result depends on nothing in other rows.

    Args:
        logits: ``[rows, vocabulary]``.
        temperature: 0 takes the likeliest token (log-probabilities are then those at
            temperature 1).
        draws: ``[rows]`` float64 in [0, 1), needed unless temperature is 0.
    """
    found = [
        _next_tokens(logits[part], temperature, None if draws is None else draws[part])
        for part in row_parts(logits)
    ]
    tokens, log_probs = zip(*found, strict=True)
    return torch.cat(tokens), torch.cat(log_probs)


def _next_tokens(
    logits: torch.Tensor, temperature: float, draws: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = logits.float() if temperature in (0, 1) else logits.float() / temperature
    blocks = _blocks(scaled)
    by_block = blocks.logsumexp(dim=-1)
    if temperature == 0:
        tokens = scaled.argmax(dim=-1)
    else:
        assert draws is not None
        block, rest = _invert(by_block, draws)
        inside, _ = _invert(blocks[torch.arange(len(blocks), device=blocks.device), block], rest)
        tokens = (block * blocks.shape[-1] + inside).clamp_max(logits.shape[-1] - 1)
    chosen = scaled.gather(1, tokens[:, None]).squeeze(1) - by_block.logsumexp(dim=-1)
    return tokens, chosen


def _blocks(logits: torch.Tensor) -> torch.Tensor:
    """``[rows, blocks, tokens]``, the last block filled up with tokens that cannot be drawn."""
    size = min(_BLOCK, logits.shape[-1])
    missing = -logits.shape[-1] % size
    if missing:
        logits = pad(logits, (0, missing), value=-torch.inf)
    return logits.unflatten(-1, (-1, size))


def _invert(logits: torch.Tensor, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first place of each row whose cumulative probability exceeds the draw.

    Returns:
        The places ``[rows]``, and what is left of each draw: how far into the place's own
        probability it reaches, as a new draw in [0, 1).
    """
    cumulative = logits.double().softmax(dim=-1).cumsum(dim=-1)
    # The sum of the probabilities is 1 only up to rounding.
    targets = (draws * cumulative[:, -1]).unsqueeze(1)
    places = torch.searchsorted(cumulative, targets, right=True)
    places.clamp_max_(logits.shape[-1] - 1)
    upper = cumulative.gather(1, places)
    lower = torch.where(places > 0, cumulative.gather(1, (places - 1).clamp_min(0)), 0.0)
    rest = ((targets - lower) / (upper - lower)).clamp(0.0, _BELOW_ONE)
    return places.squeeze(1), rest.squeeze(1)
