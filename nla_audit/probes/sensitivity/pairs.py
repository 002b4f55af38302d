"""A loaded pair, and a target model, as this probe uses them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nla_audit.checkpoint.load import Pair
from nla_audit.errors import UserError
from nla_audit.nla.batching import Notice, by_token_budget, halving
from nla_audit.nla.reconstructor import TOKEN_BUDGETS, Reconstructor
from nla_audit.nla.segments import segment_ends
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.probes.sensitivity.reading import Said, Subject
from nla_audit.progress import Progress, silent
from nla_audit.runs.target import TargetModel

Floats = NDArray[np.float64]

_OTHER_TOKEN_BUDGET = 16384
_LOST = "no explanation in the answer"


@dataclass(frozen=True)
class Generation:
    """How the AV is asked.

    Attributes:
        seed: of the sampling.
        temperature: 1 samples from its own distribution, 0 is greedy.
        max_new_tokens: cap; an explanation that hits it has failed.
        batch_size: texts at once.
        token_budget: tokens the AR reads at once; ``None``: by device.
        separator: the token by which an AV that was trained to ends segments.
    """

    seed: int
    temperature: float
    max_new_tokens: int
    batch_size: int
    token_budget: int | None
    separator: str


def subject_of(
    pair: Pair,
    model: str,
    ar: str,
    length_penalty: float | None,
    how: Generation,
    *,
    notice: Notice = warnings.warn,
) -> Subject:
    """The pair under the name ``model``.

    Raises:
        UserError: half of it is missing.
    """
    if pair.verbalizer is None or pair.reconstructor is None:
        raise UserError(f"{model}: explaining and reading needs both halves, an AV and an AR")
    verbalizer: Verbalizer = pair.verbalizer
    reconstructor: Reconstructor = pair.reconstructor
    tokenizer = verbalizer.tokenizer

    def speak(vectors: Floats, keys: Sequence[int]) -> Said:
        said = verbalizer.generate(
            vectors,
            max_new_tokens=how.max_new_tokens,
            temperature=how.temperature,
            seed=how.seed,
            row_keys=keys,
            batch_size=how.batch_size,
            notice=notice,
        )
        return Said(
            said.explanations,
            said.generated.lengths.tolist(),
            verbalizer.content_tokens(said),
            [None if text is not None else _LOST for text in said.explanations],
            segment_ends(verbalizer, said, how.separator),
        )

    def read(texts: Sequence[str | None]) -> Floats:
        found = reconstructor.reconstruct(texts, token_budget=how.token_budget, notice=notice)
        return found.astype(np.float64)

    def tokens_in(text: str) -> int:
        # A space before a word is part of the word's token, which is not counted yet.
        return len(tokenizer(text.rstrip(), add_special_tokens=False)["input_ids"])

    return Subject(model, length_penalty, ar, speak, read, tokens_in)


def last_activations(
    target: TargetModel,
    texts: Sequence[str],
    *,
    max_tokens: int = 2048,
    token_budget: int | None = None,
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> Floats:
    """``[n, d_model]`` raw activations at the last token of each text that is no special one.

    Raises:
        UserError: a text without such a token.
    """
    ids = target.token_ids(texts, max_tokens)
    places = [target.candidates(one, 0)[-1:] for one in ids]
    empty = next((number for number, place in enumerate(places) if not place), None)
    if empty is not None:
        raise UserError(f"text {empty} of the contrast set is empty: {texts[empty]!r}")
    budget = token_budget or TOKEN_BUDGETS.get(target.device.type, _OTHER_TOKEN_BUDGET)
    out = np.full((len(texts), target.d_model), np.nan)

    def work(rows: Sequence[int]) -> NDArray[Any]:
        return target.activations([ids[row] for row in rows], [places[row] for row in rows])

    done = 0
    for group in by_token_budget([len(one) for one in ids], budget):
        out[group] = np.concatenate(halving(group, work, notice))
        done += len(group)
        progress("reading contrasted texts", done, len(texts))
    return out
