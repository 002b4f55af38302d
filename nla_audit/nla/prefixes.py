"""The first tokens of a text, as text: what a reader has after so many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nla_audit.errors import UserError

_BATCH = 4096


@dataclass(frozen=True)
class Prefixes:
    """The beginnings of one text.

    Attributes:
        texts: one for each length asked for; the whole text where it is no longer than that.
        tokens: of the whole text.
    """

    texts: tuple[str, ...]
    tokens: int


def prefixes_of(tokenizer: Any, texts: Sequence[str], lengths: Sequence[int]) -> list[Prefixes]:
    """Cut each text after its first ``lengths`` tokens.

    Cut in the text at the end of a token, never decoded from ids: what remains is exactly a part
    of the text, and a character of several tokens is never split. White space at the cut goes,
    as it does at the end of an explanation.

    Args:
        tokenizer: counts the tokens; special tokens are not counted.
        lengths: in tokens, 0 or more.

    Raises:
        UserError: a tokenizer that does not know where in a text its tokens are.
    """
    return [
        Prefixes(tuple(first_tokens(text, ends, length) for length in lengths), len(ends))
        for text, ends in zip(texts, token_ends(tokenizer, texts), strict=True)
    ]


def token_ends(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Where in each text its tokens end, in characters; special tokens are not counted.

    Raises:
        UserError: a tokenizer that does not know.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{tokenizer.name_or_path}: prefixes need a tokenizer with a tokenizer.json, which "
            "knows where in a text each token is"
        )
    found: list[list[int]] = []
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        encoded = tokenizer(batch, add_special_tokens=False, return_offsets_mapping=True)
        found += [[end for _, end in spans] for spans in encoded["offset_mapping"]]
    return found


def first_tokens(text: str, ends: Sequence[int], length: int) -> str:
    """A text's first ``length`` tokens, as :func:`prefixes_of` cuts them.

    Args:
        ends: of all its tokens, from :func:`token_ends`.
    """
    if length >= len(ends):
        return text
    return text[: ends[length - 1] if length else 0].strip()
