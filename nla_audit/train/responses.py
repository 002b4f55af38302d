"""Sampled responses as a grading sees them: where a text stands in the tokens, and cut ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nla_audit.nla.generation import NO_TOKEN, Generated
from nla_audit.nla.prompts import AnswerDecoder, read_open_explanation
from nla_audit.nla.verbalizer import Explanations

Integers = npt.NDArray[np.int64]


class Responses:
    """``n`` responses.

    Args:
        said: as the AV said them.
        decode: of the AV's ``tokenizer``; it leaves out special tokens, separators among them.
        cut_at: ``[n]`` tokens after which sampling was stopped on purpose. A response that came
            so far has not failed: its text is what it says up to there.
    """

    def __init__(
        self,
        said: Explanations,
        decode: AnswerDecoder,
        tokenizer: Any,
        cut_at: Sequence[int] | None = None,
    ) -> None:
        self._decode, self._tokenizer = decode, tokenizer
        self._ids = [
            ids[:length].tolist()
            for ids, length in zip(said.generated.token_ids, said.generated.lengths, strict=True)
        ]
        if cut_at is not None:
            said = self._cut(said, cut_at)
        self.said = said
        self.lengths: Integers = said.generated.lengths

    def __len__(self) -> int:
        return len(self._ids)

    def token_id(self, token: str) -> int:
        """Of a token of the AV's vocabulary."""
        return int(self._tokenizer.convert_tokens_to_ids(token))

    def ids(self, row: int) -> list[int]:
        """Token ids of a response, up to and including its end token."""
        return self._ids[row]

    def texts(self, places: Sequence[tuple[int, int]]) -> list[str | None]:
        """The explanation up to each place ``(row, tokens)``: what the AR is given to read.

        At a response's end it is the explanation as extracted (``None`` where that failed);
        before, ``None`` where the explanation has not begun.
        """
        inside = [place for place in places if place[1] < self.lengths[place[0]]]
        decoded = self._decode([self._ids[row][:tokens] for row, tokens in inside])
        found = dict(zip(inside, map(read_open_explanation, decoded), strict=True))
        return [found[one] if one in found else self.said.explanations[one[0]] for one in places]

    def start(self, row: int) -> int | None:
        """Tokens before the explanation's first one; ``None`` where there is no explanation."""
        ids = self._ids[row]

        def has_begun(length: int) -> bool:
            (text,) = self._decode([ids[:length]])
            return bool(read_open_explanation(text))

        lengths = range(1, len(ids) + 1)
        place = bisect_left(lengths, True, key=has_begun)
        return place if place < len(ids) else None

    def reaching(self, row: int, characters: int) -> int:
        """The fewest tokens whose text has so many characters; all tokens where none has."""
        ids = self._ids[row]

        def is_reached(length: int) -> bool:
            (text,) = self._decode([ids[:length]])
            return len(read_open_explanation(text) or "") >= characters

        lengths = range(1, len(ids) + 1)
        return min(len(ids), bisect_left(lengths, True, key=is_reached) + 1)

    def _cut(self, said: Explanations, cut_at: Sequence[int]) -> Explanations:
        made = said.generated
        rows = [row for row in range(len(self)) if self._is_cut(made, row, cut_at[row])]
        self._ids = [ids[:most] for ids, most in zip(self._ids, cut_at, strict=True)]
        lengths = np.array([len(ids) for ids in self._ids], dtype=np.int64)
        behind = np.arange(made.token_ids.shape[1])[None, :] >= lengths[:, None]
        generated = replace(
            made,
            token_ids=np.where(behind, NO_TOKEN, made.token_ids),
            log_probs=np.where(behind, np.float32(np.nan), made.log_probs),
            lengths=lengths,
        )
        explanations, responses = list(said.explanations), list(said.responses)
        for row, text in zip(rows, self._decode([self._ids[row] for row in rows]), strict=True):
            responses[row], explanations[row] = text, read_open_explanation(text)
        return replace(said, responses=responses, explanations=explanations, generated=generated)

    @staticmethod
    def _is_cut(made: Generated, row: int, most: int) -> bool:
        """Whether the response was stopped at ``most`` tokens, before it had ended by itself."""
        length = int(made.lengths[row])
        return length > most or (length == most and not made.ended[row])
