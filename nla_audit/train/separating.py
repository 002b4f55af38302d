"""Separators: a token that only the AV has, and gold explanations with it between claims."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from nla_audit.errors import UserError
from nla_audit.text.claims import split_claims
from nla_audit.train.dataset import Dataset


def add_separator(model: Any, tokenizer: Any, token: str, *, seed: int) -> None:
    """Give the AV a special ``token`` of its own, in place.

    Its rows of the embedding and of the output matrix are drawn around the mean of the others,
    with their spread: unlike any other token's, and of their size. Adapters leave them as drawn.

    Raises:
        UserError: the tokenizer has the token already.
    """
    from tokenizers import AddedToken

    if token in tokenizer.get_vocab():
        raise UserError(f"rl.grading.token: the tokenizer has {token!r} already; name another")
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)
    place = int(tokenizer.convert_tokens_to_ids(token))
    if place >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(place + 1, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    drawn: set[int] = set()
    for part in (model.get_input_embeddings(), model.get_output_embeddings()):
        if id(part.weight) in drawn:  # tied
            continue
        drawn.add(id(part.weight))
        with torch.no_grad():
            others = part.weight[:place].float()
            noise = torch.randn(others.shape[1], generator=generator).to(others.device)
            part.weight[place] = (others.mean(dim=0) + others.std(dim=0) * noise).to(
                part.weight.dtype
            )


def with_separators(dataset: Dataset, token: str, at_most: int) -> Dataset:
    """The dataset with ``token`` behind each claim of a gold explanation but the last one.

    Args:
        at_most: behind no more claims than so many.
    """
    explanations = [
        None if text is None else _separated(text, token, at_most) for text in dataset.explanations
    ]
    return replace(dataset, explanations=explanations)


def _separated(text: str, token: str, at_most: int) -> str:
    ends = [claim.end for claim in split_claims(text)][:-1][:at_most]
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    return token.join(pieces)


def check_has_separator(tokenizer: Any, token: str | None) -> None:
    """Check that an AV has the token its grading looks for.

    Raises:
        UserError: it has not.
    """
    if token is not None and token not in tokenizer.get_vocab():
        raise UserError(
            f"rl.grading.token: the AV has no token {token!r}; its warm start must have had it "
            "(leave pair.av out), or name the one it has"
        )
