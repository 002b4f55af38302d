"""The decode loop: one prompt for all rows, one injected vector for each.

All rows have the same prompt, so no row is ever padded: the part before the marker is computed
once, the rest once for each activation, and their cache repeated; rows run in step, and finished
rows leave the batch.

Sampling inverts the cumulative distribution with one uniform number per row and token, drawn
from the row's own generator. What a row says therefore does not depend on which rows share its
batch, up to rounding in the model itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.nla.batching import distinct_rows
from nla_audit.nla.cache import cache_from, cache_keyword, prefix_cache
from nla_audit.nla.caching import Caching, caching_of, keep_rows, own_cache
from nla_audit.nla.compiled import CompiledSteps
from nla_audit.nla.injection import Injection, injecting
from nla_audit.nla.output_head import last_logits
from nla_audit.nla.prompts import AvPrompt
from nla_audit.nla.sampling import next_tokens

#: Marks "no token here" in padded arrays. No tokenizer has it, so padding can never be taken
#: for an end token.
NO_TOKEN = -1

#: Rows leave the batch once this share of it has finished; dropping them copies the cache, so
#: doing it for every single row costs more than it saves.
_FINISHED_SHARE = 1 / 16


@dataclass(frozen=True)
class Generated:
    """What a batch of rows generated.

    Attributes:
        token_ids: ``[n, longest]`` int64, :data:`NO_TOKEN` behind each row's last token.
        log_probs: ``[n, longest]`` float32, log-probability of each token under the distribution
            it was sampled from (greedy: under temperature 1); NaN behind the last token.
        lengths: ``[n]`` tokens, up to and including the first end token.
        ended: ``[n]`` whether an end token was produced (``False``: the cap was hit).
    """

    token_ids: npt.NDArray[np.int64]
    log_probs: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]
    ended: npt.NDArray[np.bool_]


def padded(responses: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """``[n, longest]`` with ``NO_TOKEN`` behind each response."""
    longest = max((len(ids) for ids in responses), default=0)
    out = np.full((len(responses), longest), NO_TOKEN, dtype=np.int64)
    for row, ids in enumerate(responses):
        out[row, : len(ids)] = ids
    return out


def uniforms(seed: int, row_keys: Sequence[int], draws: int) -> torch.Tensor:
    """``[rows, draws]`` float64 in [0, 1), each row from a generator of its own.

    ``row_keys`` identify rows wherever they stand: the same key gives the same numbers.
    """
    rows = [np.random.default_rng([seed, key]).random(draws) for key in row_keys]
    return torch.from_numpy(np.stack(rows))


@torch.inference_mode()
def first_logits(
    model: Any, prompt: AvPrompt, injection: Injection, activations: torch.Tensor
) -> torch.Tensor:
    """Logits ``[n, vocabulary]`` at the first generated position, for ``[n, d_model]``."""
    return _Rows(model, prompt, injection, activations, new_tokens=0).logits


class _Rows:
    """Rows in step, run in the fastest way that holds for the model.

    ``logits`` ``[rows, vocabulary]`` are those of the next token.
    """

    logits: torch.Tensor

    def __init__(
        self,
        model: Any,
        prompt: AvPrompt,
        injection: Injection,
        activations: torch.Tensor,
        *,
        new_tokens: int,
        steps: CompiledSteps | None = None,
    ) -> None:
        self._model, self._injection, self._steps = model, injection, steps
        self._activations, self._marker = activations, prompt.marker
        self._caching = caching_of(model, model.config, prompt.ids)
        device = model.get_input_embeddings().weight.device
        ids = torch.tensor(prompt.ids, device=device)
        self._cache: Any = None
        if self._caching is Caching.SHARED:
            self._read_shared(ids, new_tokens)
            return
        if self._caching is Caching.OWN:
            self._cache = own_cache(model.config)
        #: All tokens of each row; only without a cache are they needed, and kept, after this.
        self._ids = ids.expand(len(activations), -1)
        with injecting(model, injection, activations, prompt.marker):
            self._forward(self._ids)

    def _read_shared(self, ids: torch.Tensor, new_tokens: int) -> None:
        """Read the prompt up to the marker once, and the rest once for each distinct activation."""
        config, marker, capacity = self._model.config, self._marker, len(ids) + new_tokens
        first, place = distinct_rows(self._activations)
        beginning = prefix_cache(self._model, config, ids[:marker])
        if len(first) == len(place) and self._steps is None:
            distinct = self._activations
            self._cache = cache_from(beginning, config, len(first), capacity)
        else:
            distinct = self._activations[torch.from_numpy(first)]
            self._cache = cache_from(beginning, config, len(first), capacity=len(ids))
        with injecting(self._model, self._injection, distinct, 0):
            self._forward(ids[marker:].expand(len(first), -1))
        if distinct is not self._activations:
            rows = torch.from_numpy(place)
            if self._steps is not None:
                self._steps.start(self._cache, rows, new_tokens)
                self._cache = None
            else:
                self._cache = cache_from(self._cache, config, rows, capacity)
            self.logits = self.logits[rows]

    def append(self, tokens: torch.Tensor) -> None:
        """Go on by one token ``[rows]``."""
        if self._steps is not None:
            self.logits = self._steps.next_logits(tokens)
        elif self._caching is Caching.NONE:
            self._ids = torch.cat([self._ids, tokens[:, None]], dim=1)
            with injecting(self._model, self._injection, self._activations, self._marker):
                self._forward(self._ids)
        else:
            self._forward(tokens[:, None])

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but ``rows`` ``[kept]`` (ascending)."""
        if self._steps is not None:
            self._steps.keep(rows)
        elif self._caching is Caching.SHARED:
            self._cache.keep_rows(rows)
        elif self._caching is Caching.OWN:
            keep_rows(self._cache, rows)
        else:
            self._ids, self._activations = self._ids[rows], self._activations[rows]

    def is_worth_dropping(self, finished: int, rows: int) -> bool:
        """Whether rows should leave that have ``finished``, of so many ``rows`` in the batch."""
        if self._steps is not None:
            return self._steps.may_shrink(rows - finished)
        return finished >= max(1, _FINISHED_SHARE * rows)

    def _forward(self, ids: torch.Tensor) -> None:
        options: dict[str, Any] = {"use_cache": self._cache is not None}
        if self._cache is not None:
            options[str(cache_keyword(self._model))] = self._cache
        output = self._model(input_ids=ids, **options, **last_logits(self._model, 1))
        self.logits = output.logits[:, -1]


@torch.inference_mode()
def generate(
    model: Any,
    prompt: AvPrompt,
    injection: Injection,
    activations: torch.Tensor,
    *,
    end_ids: frozenset[int],
    max_new_tokens: int,
    temperature: float,
    draws: torch.Tensor | None,
    caps: torch.Tensor | None = None,
    steps: CompiledSteps | None = None,
) -> Generated:
    """Generate for one batch.

    Args:
        activations: ``[n, d_model]``.
        end_ids: all tokens that end an answer.
        temperature: 0 takes the likeliest token; otherwise logits are divided by it. Nothing
            else (top-p, top-k, penalties) is ever applied, whatever a generation config says.
        draws: ``[n, max_new_tokens]`` uniform numbers, needed unless temperature is 0.
        caps: ``[n]`` a row's own cap, where it is below ``max_new_tokens``.
        steps: those of ``model``, where they are compiled.
    """
    rows = len(activations)
    batch = _Rows(model, prompt, injection, activations, new_tokens=max_new_tokens, steps=steps)
    device = batch.logits.device
    draws = draws.to(device) if draws is not None else None
    caps = caps.to(device) if caps is not None else None
    ends = torch.tensor(sorted(end_ids), device=device)
    token_ids = torch.full((rows, max_new_tokens), NO_TOKEN, dtype=torch.int64, device=device)
    log_probs = torch.full((rows, max_new_tokens), torch.nan, device=device)
    # `active` are the rows still in the batch, `is_running` which of those have not ended.
    active = torch.arange(rows, device=device)
    is_running = torch.ones(rows, dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        tokens, chosen = next_tokens(
            batch.logits, temperature, None if draws is None else draws[active, step]
        )
        writing = active[is_running]
        token_ids[writing, step] = tokens[is_running]
        log_probs[writing, step] = chosen[is_running]
        is_running &= ~torch.isin(tokens, ends)
        if caps is not None:
            is_running &= caps[active] > step + 1
        running = int(is_running.sum())
        if running == 0 or step + 1 == max_new_tokens:
            break
        if batch.is_worth_dropping(len(active) - running, len(active)):
            kept = is_running.nonzero().squeeze(1)
            batch.keep(kept)
            active, tokens, is_running = active[kept], tokens[kept], is_running[kept]
        batch.append(tokens)
    return _collect(token_ids, log_probs, ends)


def _collect(token_ids: torch.Tensor, log_probs: torch.Tensor, ends: torch.Tensor) -> Generated:
    is_token = token_ids != NO_TOKEN
    lengths = is_token.sum(dim=1)
    longest = int(lengths.max())
    last = token_ids.gather(1, (lengths - 1)[:, None]).squeeze(1)
    return Generated(
        token_ids=token_ids[:, :longest].cpu().numpy(),
        log_probs=log_probs[:, :longest].cpu().numpy(),
        lengths=lengths.cpu().numpy(),
        ended=torch.isin(last, ends).cpu().numpy(),
    )
