"""The AV: activations in, explanations out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.errors import UserError
from nla_audit.nla import generation
from nla_audit.nla.architecture import hidden_size, longest_input
from nla_audit.nla.batching import Notice, halving
from nla_audit.nla.caching import caching_of
from nla_audit.nla.compiled import CompiledSteps
from nla_audit.nla.engine import Engine, prompt_embeddings, row_seeds, vectors_at_block
from nla_audit.nla.generation import NO_TOKEN, Generated
from nla_audit.nla.injection import Injection, injecting, injection_of
from nla_audit.nla.output_head import with_contiguous_states
from nla_audit.nla.prompts import (
    AnswerDecoder,
    av_prompt,
    cjk_share,
    content_tokens,
    end_token_ids,
    opens_thought,
    read_explanation,
)
from nla_audit.nla.refusal import Refuse, refuse_wrong
from nla_audit.nla.sidecar import Sidecar
from nla_audit.nla.threads import threads_for
from nla_audit.nla.transform import ActivationTransform
from nla_audit.wording import count

DEFAULT_MAX_NEW_TOKENS = 160
DEFAULT_BATCH_SIZE = 256


@dataclass(frozen=True)
class Explanations:
    """What the AV said about ``n`` activations.

    Attributes:
        responses: the whole answers, special tokens other than the tags left out.
        explanations: the text between the tags, stripped; ``""`` where it is empty, ``None``
            where the answer failed (no closed tags, or the token cap was hit).
        generated: token ids, log-probabilities, true lengths.
        cjk: ``[n]`` share of CJK characters in the response.
    """

    responses: list[str]
    explanations: list[str | None]
    generated: Generated
    cjk: npt.NDArray[np.float64]


class Verbalizer:
    """An AV with its prompt and its way of injection.

    Args:
        model: a causal language model of transformers (with LoRA layers injected or not).
        tokenizer: its tokenizer.
        sidecar: prompt template and pinned tokens; checked against the tokenizer.
        injection: overrides what the sidecar says.
        name: what messages and tables call it.
        files: the folders and files it was loaded from, for records.
        transform: what its activations went through before it was trained on them.
        refuse: what to do where the prompt cannot be that of training.

    Raises:
        UserError: the prompt cannot be what the AV was trained with.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sidecar: Sidecar,
        *,
        injection: Injection | None = None,
        name: str = "av",
        files: Sequence[Path] = (),
        transform: ActivationTransform | None = None,
        refuse: Refuse = refuse_wrong,
    ) -> None:
        self.files = tuple(files)
        #: Activations are passed to all methods as they are after this transform;
        #: :func:`nla_audit.runs.fit.fitted` applies it to a table's.
        self.transform = transform
        self.model = with_contiguous_states(model)
        self.tokenizer = tokenizer
        self.sidecar = sidecar
        self.injection = injection if injection is not None else injection_of(sidecar)
        self.name = name
        self.prompt = av_prompt(tokenizer, sidecar, refuse=refuse)
        self.end_ids = end_token_ids(tokenizer, model)
        self.decode = AnswerDecoder(tokenizer)
        self.d_model = hidden_size(model.config)
        #: Who generates in the place of our own loop (:func:`nla_audit.nla.engine.hand_over`).
        self.engine: Engine | None = None
        #: The steps of our own loop, where they are compiled (:meth:`compile`).
        self.steps: CompiledSteps | None = None
        self._said_how = False

    @property
    def device(self) -> torch.device:
        """Where the prompt's tokens go."""
        return self.model.get_input_embeddings().weight.device

    def compile(self, compiler: Mapping[str, Any] | None = None) -> None:
        """Have our own loop run compiled steps of fixed shapes from now on, in place.

        Args:
            compiler: see :class:`~nla_audit.nla.compiled.CompiledSteps`.

        Raises:
            UserError: the model cannot be run so, or there is no compiler.
        """
        self.steps = CompiledSteps(self.model, self.prompt.ids, self.name, compiler)

    @contextmanager
    def injecting(self, activations: torch.Tensor, *, column: int | None = None) -> Iterator[None]:
        """Inject ``[batch, d_model]`` into forward passes of :attr:`model` inside the ``with``.

        ``column`` is the marker's place in the tokens passed; by default its place in the whole
        prompt. Gradients flow. For training; generation does this by itself.
        """
        place = self.prompt.marker if column is None else column
        with injecting(self.model, self.injection, activations, place):
            yield

    def first_logits(self, activations: npt.ArrayLike) -> torch.Tensor:
        """Logits ``[n, vocabulary]`` of the first token, for ``[n, d_model]``."""
        vectors = self._vectors(activations)
        return generation.first_logits(self.model, self.prompt, self.injection, vectors)

    def generate(
        self,
        activations: npt.ArrayLike,
        *,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        temperature: float = 1.0,
        seed: int = 0,
        row_keys: Sequence[int] | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        caps: Sequence[int] | None = None,
        notice: Notice = warnings.warn,
    ) -> Explanations:
        """Explain ``[n, d_model]`` activations.

        Args:
            max_new_tokens: cap on a response; a response that hits it has failed.
            temperature: 0 is greedy; 1 samples from the model's own distribution.
            seed: with ``row_keys`` decides all sampling; another engine draws other numbers.
            row_keys: ``[n]`` whole numbers that identify the rows; the same key and seed give the
                same draws whatever the batch size and order. By default the row's position.
            batch_size: rows at once; halved, with a notice, where memory runs out. Another engine
                is handed so many, and decides itself how many it runs at once.
            caps: ``[n]`` a row's own cap, 1 or more, where it is below ``max_new_tokens``.
            notice: called with a sentence when that happens.

        Raises:
            UserError: activations of the wrong width, or rows that are zero or not finite (the
                first one is named); a cap below 1 or beyond what the AV reads, or a batch size
                below 1; another engine died.
        """
        if max_new_tokens < 1 or batch_size < 1 or temperature < 0:
            raise UserError("max_new_tokens and batch_size must be at least 1, temperature ≥ 0")
        self._check_room(max_new_tokens)
        vectors = self._vectors(activations)
        keys = list(range(len(vectors))) if row_keys is None else list(row_keys)
        if len(keys) != len(vectors):
            raise UserError(
                f"{count(len(keys), 'row key')} for {count(len(vectors), 'activation')}"
            )

        self._say_how(notice)

        def explain(rows: Sequence[int]) -> Generated:
            own_keys = [keys[row] for row in rows]
            own_caps = None if caps is None else [caps[row] for row in rows]
            own_vectors = vectors[list(rows)]
            if self.engine is not None:
                return self.engine.generate(
                    prompt_embeddings(self, own_vectors),
                    at_block=vectors_at_block(self, own_vectors),
                    end_ids=self.end_ids,
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    seeds=row_seeds(seed, own_keys),
                    caps=own_caps,
                )
            draws = None
            if temperature > 0:
                draws = generation.uniforms(seed, own_keys, max_new_tokens)
            return generation.generate(
                self.model,
                self.prompt,
                self.injection,
                own_vectors,
                end_ids=self.end_ids,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                draws=draws,
                caps=None if own_caps is None else torch.tensor(own_caps),
                steps=self.steps,
            )

        parts: list[Generated] = []
        for start in range(0, len(vectors), batch_size):
            rows = range(start, min(start + batch_size, len(vectors)))
            with threads_for(vectors.shape[1], self.device):
                parts.extend(halving(rows, explain, notice))
        return self.read(_joined(parts))

    def _check_room(self, max_new_tokens: int) -> None:
        """Behind its last position a model has none to read, or none that it was trained on."""
        longest, prompt = longest_input(self.model.config), len(self.prompt.ids)
        if prompt + max_new_tokens > longest:
            raise UserError(
                f"{self.name}: reads {longest:,} tokens at most, of which its prompt takes "
                f"{prompt:,}: an answer of {max_new_tokens:,} has no room; lower the cap on new "
                "tokens (--max-new-tokens)"
            )

    def _say_how(self, notice: Notice) -> None:
        """Once: tell where the model cannot be run in the fast way, or thinks first."""
        if self.engine is None:
            line = caching_of(self.model, self.model.config, self.prompt.ids).notice(self.model)
            if line is not None and not self._said_how:
                notice(line)
        if not self._said_how and opens_thought(self.tokenizer, self.prompt):
            notice(
                f"{self.name}: the chat template opens a thought (<think>) before each answer; "
                "explanations are read behind it, or in it where it is not closed"
            )
        self._said_how = True

    def read(self, generated: Generated) -> Explanations:
        """Turn token ids into responses and explanations."""
        rows = [tokens[tokens != NO_TOKEN].tolist() for tokens in generated.token_ids]
        responses = self.decode(rows)
        return Explanations(
            responses=responses,
            explanations=[
                read_explanation(response, ended=bool(ended))
                for response, ended in zip(responses, generated.ended, strict=True)
            ],
            generated=generated,
            cjk=np.array([cjk_share(response) for response in responses], dtype=np.float64),
        )

    def content_tokens(self, said: Explanations) -> list[int | None]:
        """``[n]`` tokens that hold each explanation, ``None`` where it failed.

        The rest of the true length is tags and end token.
        """
        return [
            None if text is None else content_tokens(self.decode, ids[:length].tolist(), text)
            for ids, length, text in zip(
                said.generated.token_ids, said.generated.lengths, said.explanations, strict=True
            )
        ]

    def _vectors(self, activations: npt.ArrayLike) -> torch.Tensor:
        """``[n, d_model]`` float32 on the model's device, checked."""
        rows = np.asarray(activations, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.d_model:
            raise UserError(
                f"activations have shape {list(rows.shape)}, {self.name} needs [n, {self.d_model}]"
            )
        bad = ~np.isfinite(rows).all(axis=1) | ~(rows != 0).any(axis=1)
        if bad.any():
            raise UserError(
                f"activation {int(bad.argmax())} is zero or not finite "
                f"({int(bad.sum())} such rows); leave those rows out"
            )
        return torch.from_numpy(rows).to(self.device)


def _joined(parts: Sequence[Generated]) -> Generated:
    """Batches one below the other, padded to the longest row of all."""
    longest = max((part.token_ids.shape[1] for part in parts), default=0)

    def stacked(arrays: Sequence[npt.NDArray[Any]], fill: float, kind: Any) -> npt.NDArray[Any]:
        rows = sum(len(array) for array in arrays)
        out = np.full((rows, longest), fill, dtype=kind)
        start = 0
        for array in arrays:
            out[start : start + len(array), : array.shape[1]] = array
            start += len(array)
        return out

    return Generated(
        token_ids=stacked([part.token_ids for part in parts], NO_TOKEN, np.int64),
        log_probs=stacked([part.log_probs for part in parts], np.nan, np.float32),
        lengths=np.concatenate([part.lengths for part in parts] or [np.zeros(0, np.int64)]),
        ended=np.concatenate([part.ended for part in parts] or [np.zeros(0, np.bool_)]),
    )
