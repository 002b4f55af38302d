"""A step's samples: one batched generation, true lengths, one batched scoring, rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nla_audit.nla.fve import squared_error
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Explanations, Verbalizer
from nla_audit.train.measure import content_tokens
from nla_audit.train.rewards import Samples

#: Room for samples of one activation in a row's key; no group is larger.
_KEYS_PER_ACTIVATION = 1 << 16


@dataclass(frozen=True)
class Prompts:
    """The activations of a step, each repeated for every sample of its group.

    Attributes:
        activations: ``[prompts × samples, d_model]``, groups together.
        row_keys: ``[prompts × samples]`` what a sample's draws depend on besides the step's seed.
    """

    activations: npt.NDArray[np.float32]
    row_keys: list[int]


def repeated(
    activations: npt.NDArray[np.float32], idx: npt.NDArray[np.int64], samples: int
) -> Prompts:
    """``samples`` copies of each activation, next to each other."""
    keys = idx[:, None] * _KEYS_PER_ACTIVATION + np.arange(samples)
    return Prompts(np.repeat(activations, samples, axis=0), keys.ravel().tolist())


def sample(
    verbalizer: Verbalizer,
    prompts: Prompts,
    *,
    seed: int,
    max_new_tokens: int,
    generation_batch: int | None,
) -> Explanations:
    """Explanations of all rows at temperature 1, in one batch unless told otherwise.

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
    )


def scored(
    reconstructor: Reconstructor, prompts: Prompts, said: Explanations, verbalizer: Verbalizer
) -> Samples:
    """What rewards are computed from."""
    mse, _ = squared_error(
        reconstructor.reconstruct(said.explanations), prompts.activations, reconstructor.mse_scale
    )
    return Samples(
        explanations=said.explanations,
        mse=mse,
        n_tokens=said.generated.lengths,
        content_tokens=content_tokens(verbalizer.tokenizer, said),
        cjk=said.cjk,
    )
