"""The AR: texts in, activations out, and how near they come."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nla_audit.errors import UserError
from nla_audit.nla.architecture import (
    decoder_of,
    final_norm_name,
    hidden_size,
    longest_input,
    number_of_blocks,
)
from nla_audit.nla.batching import Notice, by_token_budget, halving
from nla_audit.nla.cache import RowCache, cache_from, cache_keyword, prefix_cache
from nla_audit.nla.caching import Caching, caching_of
from nla_audit.nla.fve import (
    BaselineName,
    Baselines,
    Floats,
    fraction_of_variance_explained,
    measure_baselines,
)
from nla_audit.nla.prompts import ar_prompt_ids, check_ar_prompt
from nla_audit.nla.refusal import Refuse, refuse_wrong
from nla_audit.nla.scoring import score_rows
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.threads import threads_for
from nla_audit.nla.transform import ActivationTransform
from nla_audit.wording import count

#: Tokens of a batch, padding included, by type of device. On a CPU larger batches only leave
#: the caches (benchmarks/pair_throughput.py); a GPU needs them to be busy.
TOKEN_BUDGETS = {"cpu": 1024, "cuda": 65536}
_OTHER_TOKEN_BUDGET = 16384


@dataclass
class ReadingPlan:
    """Distinct texts and the batches they are read in (:meth:`Reconstructor.plan`).

    Attributes:
        texts: distinct, sorted.
        prompts: token ids of the AR prompt of each text.
        shared: how many tokens all prompts begin with.
        batches: places in ``texts``; texts too long for the model are in none.
        prefix: keys and values of the shared beginning, computed with the first batch.
    """

    texts: list[str]
    prompts: list[list[int]]
    shared: int
    batches: list[list[int]]
    prefix: RowCache | None = None


@dataclass(frozen=True)
class ReconstructionScores:
    """How well ``n`` texts reconstruct ``n`` activations.

    Attributes:
        mse: ``[n]``; NaN where there is no score.
        cosine: ``[n]``.
        fve: ``[n]``, against ``baseline_name``.
        reasons: ``[n]`` why a row has no score, ``None`` where it has one.
        baselines: both baselines.
        baseline_name: the one ``fve`` uses.
    """

    mse: Floats
    cosine: Floats
    fve: Floats
    reasons: list[str | None]
    baselines: Baselines
    baseline_name: BaselineName


class Reconstructor:
    """An AR: the first K + 1 blocks of a language model and a linear head.

    Args:
        model: the truncated causal language model; its final norm is taken out of use unless
            ``keep_final_norm``.
        head: ``[d_model, d_model]``.
        tokenizer: its tokenizer.
        sidecar: prompt template, suffix tokens and MSE scale; checked against the tokenizer.
        keep_final_norm: leave the norm in place (AR-LoRAs whose ``ar_meta.json`` says so).
        name: what messages and tables call it, the name of the ruler.
        files: the folders and files it was loaded from, for records.
        transform: what its activations went through before it was trained on them.
        refuse: what to do where the prompt cannot be that of training.

    Raises:
        UserError: head and model disagree in width, or the prompt cannot be the one of training.
    """

    def __init__(
        self,
        model: Any,
        head: torch.Tensor,
        tokenizer: Any,
        sidecar: Sidecar,
        *,
        keep_final_norm: bool = False,
        name: str = "ar",
        files: Sequence[Path] = (),
        transform: ActivationTransform | None = None,
        refuse: Refuse = refuse_wrong,
    ) -> None:
        self.files = tuple(files)
        #: Activations are passed to all methods, and reconstructed, as they are after this
        #: transform; :func:`nla_audit.runs.fit.fitted` applies it to a table's.
        self.transform = transform
        self.model = model
        self.decoder = decoder_of(model)
        self.tokenizer = tokenizer
        self._said_how = False
        self.sidecar = sidecar
        self.name = name
        self.template = check_ar_prompt(tokenizer, sidecar, refuse=refuse)
        self.d_model = hidden_size(model.config)
        self.mse_scale = sidecar.mse_scale
        #: Extraction layer K: the AR predicts the output of its own last block.
        self.layer_index = number_of_blocks(model.config) - 1
        if tuple(head.shape) != (self.d_model, self.d_model):
            raise UserError(
                f"{name}: the head has shape {list(head.shape)}, "
                f"the model needs [{self.d_model}, {self.d_model}]"
            )
        # In float32 whatever the model's dtype: one small product, and bf16 would cost digits.
        self.head = nn.Parameter(head.detach().to(self.device, torch.float32), requires_grad=False)
        self._norm_name = final_norm_name(self.decoder)
        self.final_norm = getattr(self.decoder, self._norm_name)
        self.keeps_final_norm = keep_final_norm
        if not keep_final_norm:
            setattr(self.decoder, self._norm_name, nn.Identity())

    @property
    def device(self) -> torch.device:
        """Where the prompt's tokens go."""
        return self.model.get_input_embeddings().weight.device

    @contextmanager
    def with_final_norm(self) -> Iterator[None]:
        """Put the final norm back for a while: plain transformers expects to find it saved."""
        in_use = getattr(self.decoder, self._norm_name)
        setattr(self.decoder, self._norm_name, self.final_norm)
        try:
            yield
        finally:
            setattr(self.decoder, self._norm_name, in_use)

    @property
    def longest_prompt(self) -> int:
        """The most tokens a prompt may have."""
        return longest_input(self.model.config)

    def prompt_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the AR prompt of each text."""
        return ar_prompt_ids(self.tokenizer, self.template, texts)

    def reconstruct(
        self,
        texts: Sequence[str | None],
        *,
        token_budget: int | None = None,
        notice: Notice = warnings.warn,
    ) -> npt.NDArray[np.float32]:
        """Reconstruct an activation from each text, before any normalisation.

        Equal texts are read once; the shared beginning of the prompts is computed once.

        Args:
            texts: explanations; ``None`` (failed) and texts too long for the model give NaN.
            token_budget: tokens of a batch; halved, with a notice, where memory runs out.

        Returns:
            ``[n, d_model]`` float32.
        """
        reading = self.plan(texts, token_budget=token_budget)
        vectors = np.full((len(reading.texts), self.d_model), np.nan, dtype=np.float32)
        for batch in reading.batches:
            vectors[batch] = self.read(reading, batch, notice=notice)
        place = {text: row for row, text in enumerate(reading.texts)}
        out = np.full((len(texts), self.d_model), np.nan, dtype=np.float32)
        for row, text in enumerate(texts):
            if text is not None:
                out[row] = vectors[place[text]]
        return out

    def plan(self, texts: Iterable[str | None], *, token_budget: int | None = None) -> ReadingPlan:
        """Plan in which batches the distinct texts among ``texts`` are to be read.

        The plan depends on the set of texts only, not on their order. Arguments as for
        :meth:`reconstruct`.
        """
        distinct = sorted({text for text in texts if text is not None})
        prompts = self.prompt_ids(distinct)
        fitting = [row for row, ids in enumerate(prompts) if len(ids) <= self.longest_prompt]
        if not fitting:
            return ReadingPlan(distinct, prompts, 0, [])
        shared = 0
        caching = caching_of(self.decoder, self.model.config, prompts[fitting[0]])
        if caching is Caching.SHARED:
            shared = _common_beginning([prompts[row] for row in fitting])
        budget = token_budget or TOKEN_BUDGETS.get(self.device.type, _OTHER_TOKEN_BUDGET)
        groups = by_token_budget([len(prompts[row]) - shared for row in fitting], budget)
        batches = [[fitting[place] for place in group] for group in groups]
        return ReadingPlan(distinct, prompts, shared, batches)

    @torch.inference_mode()
    def read(
        self, reading: ReadingPlan, batch: Sequence[int], *, notice: Notice = warnings.warn
    ) -> npt.NDArray[np.float32]:
        """Reconstruct the texts of one of ``reading.batches``; ``[len(batch), d_model]``."""
        self._say_how(reading.prompts[batch[0]], notice)
        shared = reading.shared
        if reading.prefix is None and shared > 0:
            ids = torch.tensor(reading.prompts[batch[0]][:shared], device=self.device)
            reading.prefix = prefix_cache(self.decoder, self.model.config, ids)

        def forward(rows: Sequence[int]) -> npt.NDArray[np.float32]:
            rests = [reading.prompts[row][shared:] for row in rows]
            return self._forward(reading.prefix, shared, rests)

        with threads_for(self.d_model, self.device):
            return np.concatenate(halving(batch, forward, notice))

    def read_each(
        self, reading: ReadingPlan, numbers: Iterable[int], *, notice: Notice = warnings.warn
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """:meth:`read` of each of the batches ``numbers``, with its number."""
        for number in numbers:
            yield number, self.read(reading, reading.batches[number], notice=notice)

    def _say_how(self, ids: Sequence[int], notice: Notice) -> None:
        """Once: tell where the model cannot be run in the fast way."""
        line = caching_of(self.decoder, self.model.config, ids).notice(self.decoder)
        if line is not None and not self._said_how:
            notice(line)
        self._said_how = True

    def score(
        self,
        texts: Sequence[str | None],
        activations: npt.ArrayLike,
        *,
        baselines: Baselines | None = None,
        baseline_name: BaselineName = "raw_variance",
        token_budget: int | None = None,
        notice: Notice = warnings.warn,
    ) -> ReconstructionScores:
        """Score text *i* against activation *i*.

        Args:
            texts: ``[n]`` explanations, ``None`` where failed.
            activations: ``[n, d_model]``, raw.
            baselines: measured on ``activations`` unless given.
            baseline_name: which of them FVE uses.

        Raises:
            UserError: the numbers of texts and activations differ, or the width is wrong.
        """
        targets = np.asarray(activations, dtype=np.float32)
        if targets.ndim != 2 or targets.shape[1] != self.d_model:
            raise UserError(
                f"activations have shape {list(targets.shape)}, "
                f"{self.name} needs [n, {self.d_model}]"
            )
        if len(texts) != len(targets):
            raise UserError(f"{count(len(texts), 'text')} for {count(len(targets), 'activation')}")
        measured = baselines or measure_baselines(targets, self.mse_scale)
        rows = score_rows(
            self, texts, targets, range(len(texts)), token_budget=token_budget, notice=notice
        )
        return ReconstructionScores(
            mse=rows.mse,
            cosine=rows.cosine,
            fve=fraction_of_variance_explained(rows.mse, measured.of(baseline_name)),
            reasons=rows.reasons,
            baselines=measured,
            baseline_name=baseline_name,
        )

    def _forward(
        self, prefix: RowCache | None, shared: int, rests: Sequence[Sequence[int]]
    ) -> npt.NDArray[np.float32]:
        """One batch, padded on the right: in a causal model padding there reaches nothing."""
        longest = max(len(rest) for rest in rests)
        last = torch.tensor([len(rest) - 1 for rest in rests], device=self.device)
        ids = torch.zeros((len(rests), longest), dtype=torch.int64)
        for row, rest in enumerate(rests):
            ids[row, : len(rest)] = torch.tensor(rest)
        options: dict[str, Any] = {"use_cache": prefix is not None}
        if prefix is not None:
            cache = cache_from(prefix, self.model.config, len(rests), capacity=shared + longest)
            options[str(cache_keyword(self.decoder))] = cache
        output = self.decoder(input_ids=ids.to(self.device), **options)
        hidden = output.last_hidden_state
        final = hidden[torch.arange(len(rests), device=hidden.device), last.to(hidden.device)]
        return (final.float().to(self.head.device) @ self.head.T).cpu().numpy()


def _common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, leaving each at least one of its own."""
    limit = min(len(ids) for ids in prompts) - 1
    # The first and the last in lexicographic order differ the earliest.
    first, last = min(map(list, prompts)), max(map(list, prompts))
    for place in range(limit):
        if first[place] != last[place]:
            return place
    return limit
