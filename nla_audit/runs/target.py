"""The model whose activations an NLA explains, read at one layer.

Layer K is the *output* of block K, counted from 0: ``hidden_states[K + 1]`` of transformers, but
for the last block, where transformers puts the final norm on top and we do not (docs/object.md).
Vectors are raw. Positions count from 0 and include a BOS where the tokenizer puts one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nla_audit.checkpoint.fetch import local_folder
from nla_audit.checkpoint.formats import recognise
from nla_audit.checkpoint.load import Placement, load_first_blocks
from nla_audit.errors import UserError
from nla_audit.nla.architecture import (
    blocks_of,
    decoder_of,
    hidden_size,
    longest_input,
    residual_of,
)


class TargetModel:
    """A language model whose activations are read at one layer.

    Args:
        model: a decoder model of transformers with at least ``layer_index + 1`` blocks.
        tokenizer: its tokenizer.
        layer_index: K; the output of block K is read.
        files: the folders and files it was loaded from, for records.
    """

    def __init__(
        self, model: Any, tokenizer: Any, layer_index: int, *, files: Sequence[Path] = ()
    ) -> None:
        self.model = model
        self.decoder = decoder_of(model)
        self.block = blocks_of(self.decoder)[layer_index]
        self.tokenizer = tokenizer
        tokenizer.truncation_side = "right"
        self.layer_index = layer_index
        self.d_model = hidden_size(model.config)
        self.files = tuple(files)
        self._special = frozenset(tokenizer.all_special_ids)

    @property
    def device(self) -> torch.device:
        """Where the tokens go."""
        return self.model.get_input_embeddings().weight.device

    @property
    def longest_text(self) -> int:
        """The most tokens the model reads."""
        return longest_input(self.model.config)

    def token_ids(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text with the special tokens of its tokenizer, cut on the right.

        They are cut to ``max_tokens``, or to what the model reads, if that is less.
        """
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=True,
            truncation=True,
            max_length=min(max_tokens, self.longest_text),
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def candidates(self, ids: Sequence[int], minimum_position: int) -> list[int]:
        """Positions that may be read: not before the minimum, and no special token."""
        return [
            place for place in range(minimum_position, len(ids)) if ids[place] not in self._special
        ]

    def text_up_to(self, ids: Sequence[int], position: int) -> str:
        """What the model has read at ``position``, that token included, without special tokens."""
        return self.tokenizer.decode(
            list(ids[: position + 1]),
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )

    @torch.inference_mode()
    def activations(
        self, ids: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> npt.NDArray[np.float32]:
        """The output of block K at some positions of one batch of token ids.

        Args:
            ids: token ids of each text; padded here, on the right, where in a causal model
                padding reaches nothing.
            positions: positions to read in each text.

        Returns:
            ``[n, d_model]`` float32, text by text, for ``n`` positions in all.
        """
        longest = max(map(len, ids))
        padded = torch.zeros((len(ids), longest), dtype=torch.int64)
        for row, one in enumerate(ids):
            padded[row, : len(one)] = torch.tensor(one)
        outputs: list[torch.Tensor] = []

        def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            outputs.append(residual_of(output, module))

        hook = self.block.register_forward_hook(keep)
        try:
            self.decoder(input_ids=padded.to(self.device), use_cache=False)
        finally:
            hook.remove()
        (hidden,) = outputs
        rows = torch.tensor([row for row, some in enumerate(positions) for _ in some])
        places = torch.tensor([place for some in positions for place in some])
        return hidden[rows.to(hidden.device), places.to(hidden.device)].float().cpu().numpy()


def load_target(
    reference: str | Path,
    *,
    layer_index: int,
    placement: Placement | None = None,
    force: bool = False,
) -> TargetModel:
    """Load a target model up to the block that is read.

    Args:
        reference: a full checkpoint: a folder or ``owner/name[@revision][/subfolder]``.
        layer_index: K.
        force: read an AV or AR as if it were a target.

    Raises:
        UserError: no full checkpoint, half of an NLA, no such layer, or it cannot be loaded.
    """
    folder = local_folder(reference)
    checkpoint = recognise(folder)
    if checkpoint.layout != "full":
        raise UserError(
            f"{reference}: a {checkpoint.layout_name}, not a whole model: name the "
            "model whose activations are to be explained"
        )
    if checkpoint.role is not None and not force:
        raise UserError(
            f"{reference}: this is an {checkpoint.role.upper()}; activations come from the model "
            "that it was made from: name that (--force to read this one)"
        )
    model, tokenizer = load_first_blocks(folder, layer_index=layer_index, placement=placement)
    return TargetModel(model, tokenizer, layer_index, files=[folder])
