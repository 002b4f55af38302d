"""The checks that a checkpoint must pass, on loading and in ``nla-audit inspect`` alike.

Each is handed what it needs and a :data:`~nla_audit.nla.refusal.Refuse`, which is told in one line
what cannot be right and what to do. What cannot work at all raises, whoever asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from nla_audit.checkpoint.formats import Checkpoint
from nla_audit.checkpoint.health import scan
from nla_audit.checkpoint.tensors import is_beside_the_text, likeliest_renaming
from nla_audit.errors import UserError
from nla_audit.nla.architecture import (
    decoder_of,
    final_norm_name,
    hidden_size,
    number_of_blocks,
    text_config,
)
from nla_audit.nla.injection import Injection
from nla_audit.nla.refusal import Refuse
from nla_audit.nla.sidecar import Sidecar
from nla_audit.wording import count, verb

#: Floating-point types as safetensors writes them: F32, BF16, F8_E4M3 …
_FLOATING = re.compile(r"B?F\d")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def check_role(checkpoint: Checkpoint, role: str, refuse: Refuse) -> None:
    """An AV must not be loaded as an AR, nor the other way round."""
    if checkpoint.role is not None and checkpoint.role != role:
        refuse(
            f"{checkpoint.path}: this is an {checkpoint.role.upper()}, given as the "
            f"{role.upper()}; swap the two"
        )


def check_width(sidecar: Sidecar, config: Any, path: Path) -> None:
    """Sidecar and model must be of one width.

    Raises:
        UserError: they are not, and no activation would fit both.
    """
    if sidecar.d_model != hidden_size(config):
        raise UserError(
            f"{path}: the sidecar ({sidecar.path}) says d_model {sidecar.d_model}, "
            f"the model has {hidden_size(config)}; they do not belong together"
        )


def check_ar_layer(sidecar: Sidecar, blocks: int, path: Path, refuse: Refuse) -> None:
    """An AR for layer K has K + 1 blocks."""
    layer = sidecar.layer_index
    if layer is not None and blocks != layer + 1:
        refuse(
            f"{path}: an AR for layer {layer} has {layer + 1} blocks, this one has {blocks}; it "
            "was made for another layer"
        )


def check_injection(injection: Injection, config: Any, path: Path) -> None:
    """The block to add at must exist, and later tokens must be able to see what is added.

    The last blocks of Gemma-3n and Gemma-4 take their keys and values from earlier blocks.

    Raises:
        UserError: it does not, or they cannot.
    """
    if injection.block is not None and injection.block >= number_of_blocks(config):
        raise UserError(
            f"{path}: injection at block {injection.block}, but the AV has only "
            f"{number_of_blocks(config)} blocks; say which with --injection add:BLOCK"
        )
    shared = getattr(text_config(config), "num_kv_shared_layers", 0) or 0
    last = number_of_blocks(config) - shared - 2
    if shared and injection.block is not None and injection.block > last:
        raise UserError(
            f"{path}: injection at block {injection.block}: no later block has keys of its own, so "
            f"that no later token would see the vector; the last block to add at is {last}"
        )


def check_blocks(names: Iterable[str], blocks: int, path: Path, refuse: Refuse) -> None:
    """The files must hold weights for every block; cheap, before anything is built.

    Args:
        names: of the tensors in the files.
        blocks: how many the config describes.
    """
    found = {int(match[1]) for name in names if (match := _BLOCK.search(name))}
    lacking = blocks - sum(number < blocks for number in found)
    if found and lacking:
        first = next(number for number in range(blocks) if number not in found)
        refuse(
            f"{path}: no weights for {lacking:,} of {blocks:,} blocks (first {first}); fetch the "
            "checkpoint again"
        )


def check_tokens(ids: Iterable[int], model: Any, tokenizer: Path, refuse: Refuse) -> None:
    """The model must have a row of its embeddings for each token of the prompt.

    Args:
        tokenizer: the folder it was read from.

    Raises:
        UserError: it has not: tokens were added, and their rows were not saved.
    """
    rows, most = model.get_input_embeddings().weight.shape[0], max(ids)
    if most >= rows:
        refuse(
            f"{tokenizer}: the prompt holds token {most}, but the model has rows for {rows} tokens "
            "only: save the rows of added tokens with the adapter (modules_to_save), or use the "
            "base's tokenizer"
        )


def check_types(types: Mapping[str, str], model: Any, path: Path, refuse: Refuse) -> None:
    """Weights that compute must be saved as floating-point numbers.

    Args:
        types: name → type of the tensors in the files.
    """
    needed = {name for name, weight in model.named_parameters() if weight.is_floating_point()}
    wrong = sorted(name for name in needed & types.keys() if not _FLOATING.match(types[name]))
    if wrong and getattr(model.config, "quantization_config", None) is None:
        refuse(
            f"{path}: {count(len(wrong), 'weight')} {verb(len(wrong), 'is', 'are')} saved as "
            f"{types[wrong[0]]}, not as floating-point numbers (first {wrong[0]}); save the "
            "checkpoint again"
        )


def check_all_loaded(
    model: Any,
    missing: Iterable[str],
    unexpected: Iterable[str],
    path: Path,
    *,
    role: str,
    blocks_in_files: int,
    refuse: Refuse,
) -> None:
    """Every weight that is used must come from the checkpoint, and all of it must be used.

    transformers fills what is missing with random numbers and drops what fits nowhere. An AR uses
    neither the output matrix nor, unless kept, the final norm, and published ones leave them out;
    eyes and ears of a multimodal model are no part of its text decoder.

    Args:
        missing: names of weights that no file held.
        unexpected: names in the files that are no weight of the model.
        blocks_in_files: how many blocks the files are for; more than the model has where it was
            shortened on purpose.
    """
    unused: tuple[str, ...] = ()
    if role == "ar":
        names = {id(module): name for name, module in model.named_modules()}
        decoder = decoder_of(model)
        parts = (model.get_output_embeddings(), getattr(decoder, final_norm_name(decoder)))
        unused = tuple(f"{names[id(part)]}." for part in parts if id(part) in names)
    needed = sorted(name for name in missing if not name.startswith(unused or ("\0",)))
    left_out = range(number_of_blocks(model.config), blocks_in_files)
    extra = sorted(
        name
        for name in unexpected
        if not is_beside_the_text(name)
        and not ((match := _BLOCK.search(name)) and int(match[1]) in left_out)
    )
    renaming = likeliest_renaming(extra, needed)
    advice = "fetch the checkpoint again" if renaming is None else renaming
    if needed:
        refuse(
            f"{path}: {count(len(needed), 'weight')} of the model "
            f"{verb(len(needed), 'is', 'are')} in none of its files (first "
            f"{needed[0]}), and would be random; {advice}"
        )
    if extra:
        refuse(
            f"{path}: {count(len(extra), 'tensor')} of its files "
            f"{verb(len(extra), 'is no weight', 'are no weights')} of the model that "
            f"config.json describes (first {extra[0]}), and would be ignored; {advice}"
        )


def check_weights(tensors: Iterable[tuple[str, torch.Tensor]], path: Path, refuse: Refuse) -> None:
    """No weight may be NaN, infinite or absurdly large."""
    problem = scan(tensors).problem()
    if problem is not None:
        refuse(f"{path}: {problem}")
