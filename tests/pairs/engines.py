"""Engines that are none: plain transformers, one row at a time, from prompt embeddings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from nla_audit.checkpoint.adapters import add_adapters
from nla_audit.errors import UserError
from nla_audit.nla.block_entrance import AtBlock, BlockEntrance, marked
from nla_audit.nla.generation import NO_TOKEN, Generated
from nla_audit.nla.refusal import refuse_wrong
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_engine import needed_len
from nla_audit.nla.vllm_settings import VllmSettings


class StandIn:
    """What another engine does, without one.

    Args:
        model: of transformers; need not be the AV's.
        dies_at: call of :meth:`generate` that it dies in, counted from 1.
        version: what it says of itself.
    """

    name = "the stand-in"

    def __init__(self, model: Any, *, dies_at: int | None = None, version: str = "1") -> None:
        self.calls = 0
        self._model, self._dies_at, self._version = model, dies_at, version

    def record(self) -> dict[str, Any]:
        return {"name": "stand-in", "version": self._version}

    @torch.inference_mode()
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
        self.calls += 1
        if self.calls == self._dies_at:
            raise UserError("the stand-in died")
        entrance = None
        if at_block is not None:
            entrance = BlockEntrance(self._model, at_block.block, prompts[0, at_block.column])
            prompts = marked(prompts, at_block)
        token_ids = np.full((len(prompts), max_new_tokens), NO_TOKEN)
        log_probs = np.full(token_ids.shape, np.nan, dtype=np.float32)
        for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            states, draws = prompt[None], torch.Generator().manual_seed(seed)
            for step in range(max_new_tokens if caps is None else caps[row]):
                logits = self._model(inputs_embeds=states).logits[0, -1].float()
                chances = (logits / (temperature or 1)).log_softmax(dim=-1)
                token = int(
                    torch.multinomial(chances.exp(), 1, generator=draws)
                    if temperature
                    else chances.argmax()
                )
                token_ids[row, step], log_probs[row, step] = token, chances[token]
                if token in end_ids:
                    break
                said = self._model.get_input_embeddings()(torch.tensor([[token]]))
                states = torch.cat([states, said], dim=1)
        if entrance is not None:
            entrance.remove()
        lengths = (token_ids != NO_TOKEN).sum(axis=1)
        last = token_ids[np.arange(len(prompts)), lengths - 1]
        return Generated(token_ids, log_probs, lengths, np.isin(last, list(end_ids)))


class VllmStandIn(StandIn):
    """In the place of a :class:`~nla_audit.nla.vllm_engine.VllmEngine`: it reads the same folders.

    Attributes:
        started: ranks that each was started with room for; a test empties it.
        running: those that were not closed; a test empties it.
    """

    started: ClassVar[list[int]] = []
    running: ClassVar[list[VllmStandIn]] = []

    def __init__(
        self,
        verbalizer: Verbalizer,
        folder: Path,
        settings: VllmSettings,
        *,
        trust_remote_code: bool = False,
        lora_rank: int = 0,
    ) -> None:
        super().__init__(_read(folder))
        self._models = [self._model]
        self.lora_rank, self.max_model_len = lora_rank, needed_len(verbalizer, settings)
        self.takes_blocks = verbalizer.injection.kind == "add"
        self.started.append(lora_rank)
        self.running.append(self)

    def reload(self, folder: Path) -> None:
        self._models[0] = _read(folder)

    def take_adapter(self, folder: Path) -> int:
        model = add_adapters(
            copy.deepcopy(self._models[0]), [folder], refuse=refuse_wrong, notice=lambda _: None
        )
        assert max(len(one) for name, one in model.named_parameters() if "lora_A" in name) <= (
            self.lora_rank
        )
        self._models.append(model)
        return len(self._models) - 1

    def generate(self, prompts: torch.Tensor, *, adapter: int = 0, **how: Any) -> Generated:
        assert self.takes_blocks or how["at_block"] is None
        self._model = self._models[adapter]
        return super().generate(prompts, **how)

    def close(self) -> None:
        self._models.clear()
        self.running.remove(self)


def _read(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()
