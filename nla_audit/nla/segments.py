"""Where the segments of an explanation end, for AVs that were trained to end them by a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nla_audit.nla.verbalizer import Explanations, Verbalizer

#: The token, where nobody says which.
SEPARATOR = "<|prefix_end|>"


def segment_ends(
    verbalizer: Verbalizer, said: Explanations, separator: str, *, at_most: int | None = None
) -> list[list[int] | None]:
    """``[n]`` characters of each explanation up to each end of a segment, the last its own length.

    Args:
        verbalizer: whose decoder leaves separators out.
        said: what it said.
        separator: the token that ends a segment.
        at_most: separators that count; those behind them are tokens like others.

    Returns:
        ``None`` where an explanation failed, and everywhere if the AV does not know the token.
    """
    nothing: list[list[int] | None] = [None] * len(said.explanations)
    if separator not in verbalizer.tokenizer.get_vocab():
        return nothing
    token = verbalizer.tokenizer.convert_tokens_to_ids(separator)
    return [
        None if text is None else _ends(verbalizer, ids[:length].tolist(), text, token, at_most)
        for ids, length, text in zip(
            said.generated.token_ids, said.generated.lengths, said.explanations, strict=True
        )
    ]


def _ends(
    verbalizer: Verbalizer, ids: list[int], text: str, token: int, at_most: int | None
) -> list[int]:
    from nla_audit.nla.prompts import read_open_explanation  # torch: a recipe names the token too

    stops = [place for place, one in enumerate(ids) if one == token][:at_most]
    begun = [read_open_explanation(one) for one in verbalizer.decode([ids[:at] for at in stops])]
    return sorted({len(text), *(len(one) for one in begun if one is not None)})
