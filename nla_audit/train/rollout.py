"""A step's samples: one batched generation, true lengths, one batched scoring, rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nla_audit.nla.fve import squared_error
from nla_audit.nla.prompts import opening_tokens
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Explanations, Verbalizer
from nla_audit.text.claims import split_claims
from nla_audit.train.grading import Ends, Stopping
from nla_audit.train.lengths import (
    Charge,
    MeanGuess,
    says_nothing,
    segment_lengths,
    with_floor,
)
from nla_audit.train.measure import Measured, content_tokens
from nla_audit.train.responses import Responses
from nla_audit.train.rewards import Graded, Samples

#: Room for samples of one activation in a row's key; no group is larger.
_KEYS_PER_ACTIVATION = 1 << 16


@dataclass(frozen=True)
class Prompts:
    """The activations of a step, each repeated for every sample of its group.

    Attributes:
        activations: ``[prompts × samples, d_model]``, groups together.
        row_keys: ``[prompts × samples]`` what a sample's draws depend on besides the step's seed.
        group: samples of each activation.
        sources: ``[prompts × samples]`` text up to the activation's token, where it is known.
    """

    activations: npt.NDArray[np.float32]
    row_keys: list[int]
    group: int
    sources: list[str | None]


def repeated(
    activations: npt.NDArray[np.float32],
    idx: npt.NDArray[np.int64],
    samples: int,
    sources: Sequence[str | None] | None = None,
) -> Prompts:
    """``samples`` copies of each activation, next to each other."""
    keys = idx[:, None] * _KEYS_PER_ACTIVATION + np.arange(samples)
    texts = [None] * len(idx) if sources is None else sources
    return Prompts(
        np.repeat(activations, samples, axis=0),
        keys.ravel().tolist(),
        samples,
        [text for text in texts for _ in range(samples)],
    )


def sample(
    verbalizer: Verbalizer,
    prompts: Prompts,
    *,
    seed: int,
    max_new_tokens: int,
    generation_batch: int | None,
    caps: list[int] | None = None,
) -> Explanations:
    """Explanations of all rows at temperature 1, in one batch unless told otherwise.

    ``caps`` are the rows' own, where sampling stops before ``max_new_tokens``.

    The log-probabilities they come with are those of the distribution sampled from, which is
    what the ratio of the objective needs; nothing has to be computed again.
    """
    return verbalizer.generate(
        prompts.activations,
        seed=seed,
        row_keys=prompts.row_keys,
        max_new_tokens=max_new_tokens,
        temperature=1.0,
        batch_size=generation_batch or max(1, len(prompts.activations)),
        caps=caps,
    )


def responses_of(
    verbalizer: Verbalizer,
    prompts: Prompts,
    stopping: Stopping,
    *,
    seed: int,
    max_new_tokens: int,
    generation_batch: int | None,
) -> Responses:
    """Sampled responses of all rows, stopped where the grading says for each group.

    The opening tag is not counted; a stop at or beyond ``max_new_tokens`` is none.
    """
    caps = None
    if stopping.tokens is not None:
        opening = opening_tokens(verbalizer.tokenizer)
        group = len(prompts.activations) // len(stopping.tokens)
        caps = [opening + most for most in stopping.tokens for _ in range(group)]
    said = sample(
        verbalizer,
        prompts,
        seed=seed,
        max_new_tokens=max_new_tokens,
        generation_batch=generation_batch,
        caps=caps,
    )
    if stopping.claims is not None:
        whole = Responses(said, verbalizer.decode, verbalizer.tokenizer)
        group = len(whole) // len(stopping.claims)
        most = [claims for claims in stopping.claims for _ in range(group)]
        caps = [_behind_claim(whole, row, claims) for row, claims in enumerate(most)]
    if caps is not None:
        # At the general cap a response has failed; only below it was it stopped on purpose.
        caps = [cap if cap < max_new_tokens else max_new_tokens + 1 for cap in caps]
    return Responses(said, verbalizer.decode, verbalizer.tokenizer, caps)


def _behind_claim(responses: Responses, row: int, claims: int) -> int:
    """Tokens up to the end of a response's claim number ``claims``; all, where it has no more."""
    length = int(responses.lengths[row])
    (text,) = responses.texts([(row, length)])
    found = split_claims(text or "")
    return length if len(found) <= claims else responses.reaching(row, found[claims - 1].end)


def scored(
    reconstructor: Reconstructor,
    prompts: Prompts,
    responses: Responses,
    ends: Ends,
    *,
    tokenizer: Any,
    charge: Charge,
    guess: MeanGuess | None = None,
) -> Samples:
    """What rewards are computed from: the text up to each graded end is read.

    Args:
        guess: what a response must beat, or it is charged as the longest of its group.
    """
    said, (count, most) = responses.said, ends.stops.shape
    mse = np.full((count, most), np.nan)
    rows, columns = np.nonzero(ends.is_reached)
    mse[rows, columns], _ = squared_error(
        reconstructor.reconstruct(
            [ends.texts[row][end] for row, end in zip(rows, columns, strict=True)]
        ),
        prompts.activations[rows],
        reconstructor.mse_scale,
    )
    content = content_tokens(tokenizer, said)
    lengths = segment_lengths(responses, ends, content, charge)
    nothing = None
    if guess is not None:
        nothing = says_nothing(said.explanations, mse[:, -1], guess.mse(prompts.activations))
        lengths = with_floor(lengths, nothing, prompts.group)
    return Samples(
        explanations=said.explanations,
        mse=mse[:, -1],
        n_tokens=said.generated.lengths,
        content_tokens=content,
        cjk=said.cjk,
        graded=Graded(ends, mse, lengths),
        says_nothing=nothing,
    )


def samples_of(measured: Measured, scores: Mapping[str, npt.NDArray[np.float64]]) -> Samples:
    """What rewards of whole texts are computed from; nothing of them is graded by parts.

    Args:
        scores: by judge.
    """
    said = measured.explanations
    return Samples(
        explanations=said.explanations,
        mse=measured.scores.mse,
        n_tokens=said.generated.lengths,
        content_tokens=measured.content_tokens,
        cjk=said.cjk,
        scores=scores,
    )
