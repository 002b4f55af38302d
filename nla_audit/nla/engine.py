"""Another engine than our own decode loop, which goes on from a prompt that has the vector in it.

An engine reads the AV's weights by itself, in code of its own: what it computes from them is
compared with what transformers does before anything is kept. From then on nothing of the AV is
needed here but its embeddings, and the rest is let go. Vectors that are added at a block are the
engine's to add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from nla_audit.errors import UserError
from nla_audit.nla.architecture import text_config
from nla_audit.nla.block_entrance import AtBlock
from nla_audit.nla.generation import NO_TOKEN, Generated
from nla_audit.nla.injection import addition_index
from nla_audit.nla.responses import response_log_probs
from nla_audit.nla.rounding import has_32_bits

if TYPE_CHECKING:
    from nla_audit.nla.verbalizer import Verbalizer

#: Answers that are compared before an engine is trusted, and how much of each. They are sampled,
#: for an answer's likeliest tokens are much the same in another AV.
COMPARED_ROWS, COMPARED_TOKENS = 4, 16
#: Mean absolute difference of log-probabilities (nats) that rounding explains, by whether weights
#: have 32 bits. A model that is read wrongly is off by the order of 1.
_ROUNDING = {True: 0.01, False: 0.1}


class Engine(Protocol):
    """Generates for one AV.

    Attributes:
        name: what messages call it.
    """

    name: str

    def record(self) -> dict[str, Any]:
        """All that decides what it generates from given embeddings, besides the weights."""

    def generate(
        self,
        prompts: torch.Tensor,
        *,
        at_block: AtBlock | None,
        end_ids: frozenset[int],
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        caps: Sequence[int] | None = None,
    ) -> Generated:
        """Go on from ``[n, tokens, d_model]``, the embeddings of prompts.

        Args:
            at_block: ``n`` vectors that are added at a block, where they are not in ``prompts``.
            end_ids, max_new_tokens, temperature, caps: as in
                :func:`nla_audit.nla.generation.generate`, and nothing else changes the
                distribution that is sampled from.
            seeds: ``[n]`` below 2⁶³; a row's sampling depends on its own alone.

        Raises:
            UserError: the engine died.
        """


def row_seeds(seed: int, row_keys: Sequence[int]) -> list[int]:
    """``[rows]`` below 2⁶³; the same seed and key give the same number wherever a row stands."""
    return [int(np.random.default_rng([seed, key]).integers(2**63)) for key in row_keys]


@torch.inference_mode()
def prompt_embeddings(verbalizer: Verbalizer, activations: torch.Tensor) -> torch.Tensor:
    """``[n, tokens, d_model]``: what enters the first block for ``[n, d_model]``.

    The vectors are in it where they enter by embeddings; else see :func:`vectors_at_block`.
    """
    ids = torch.tensor(verbalizer.prompt.ids, device=verbalizer.device)
    with verbalizer.injecting(activations):
        return verbalizer.model.get_input_embeddings()(ids.expand(len(activations), -1))


def vectors_at_block(verbalizer: Verbalizer, activations: torch.Tensor) -> AtBlock | None:
    """``[n, d_model]``, where the AV's vectors are added at a block; else ``None``."""
    if verbalizer.injection.kind != "add":
        return None
    block = addition_index(verbalizer.injection)
    return AtBlock(block, verbalizer.prompt.marker, activations)


def hand_over(verbalizer: Verbalizer, start: Callable[[], Engine]) -> None:
    """Have another engine generate for ``verbalizer`` from now on, in place.

    Args:
        start: starts the engine, on the weights that ``verbalizer`` was loaded from.

    Raises:
        UserError: something besides prompt and vectors enters the AV; the engine cannot be
            started, or computes something else than transformers.
    """
    refuse_other_ways_in(verbalizer)
    engine = start()
    refuse_difference(verbalizer, engine)
    verbalizer.engine = engine
    _let_go(verbalizer.model)


def refuse_other_ways_in(verbalizer: Verbalizer) -> None:
    """Refuse an AV that the prompt's embeddings and vectors are not enough for.

    Raises:
        UserError: something else enters besides.
    """
    if getattr(text_config(verbalizer.model.config), "hidden_size_per_layer_input", 0):
        raise UserError(
            f"{verbalizer.name}: every block of this model is given embeddings of its own, and "
            "another engine takes those of the prompt only: use engine own"
        )


def refuse_difference(verbalizer: Verbalizer, engine: Engine) -> None:
    """Refuse an engine whose log-probabilities of what it says are not those of the model here.

    Raises:
        UserError: it says by how much they differ.
    """
    vectors = torch.randn(
        COMPARED_ROWS, verbalizer.d_model, generator=torch.Generator().manual_seed(0)
    ).to(verbalizer.device)
    said = engine.generate(
        prompt_embeddings(verbalizer, vectors),
        at_block=vectors_at_block(verbalizer, vectors),
        end_ids=verbalizer.end_ids,
        max_new_tokens=COMPARED_TOKENS,
        temperature=1.0,
        seeds=row_seeds(0, range(COMPARED_ROWS)),
    )
    is_token = said.token_ids != NO_TOKEN
    ids = torch.from_numpy(said.token_ids).to(verbalizer.device).clamp_min(0)
    with torch.inference_mode():
        wanted = response_log_probs(verbalizer, vectors, ids)
    difference = float(np.abs(said.log_probs - wanted.cpu().numpy())[is_token].mean())
    if not difference <= _ROUNDING[has_32_bits(verbalizer.model.dtype)]:  # nor where it is NaN
        raise UserError(
            f"{engine.name} computes something else than {verbalizer.name}'s weights say: "
            f"log-probabilities are {difference:.2g} nats off on average, which is no rounding: "
            "were the files changed, or does it read this kind of model wrongly? use engine own"
        )


def _let_go(model: Any) -> None:
    """Free all weights but the embeddings, in place."""
    kept = {id(one) for one in model.get_input_embeddings().parameters()}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in kept:
                empty = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
                module.register_parameter(name, empty)
