"""The checks that a checkpoint must pass, on loading and in ``nla-audit inspect`` alike.

Each is handed what it needs and a :data:`~nla_audit.nla.refusal.Refuse`, which is told in one line
what cannot be right and what to do. What cannot work at all raises, whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from nla_audit.errors import UserError
from nla_audit.nla.architecture import (
    decoder_of,
    final_norm_name,
    hidden_size,
    number_of_blocks,
)
from nla_audit.nla.formats import Checkpoint
from nla_audit.nla.health import head_health, scan
from nla_audit.nla.injection import Injection
from nla_audit.nla.refusal import Refuse
from nla_audit.nla.sidecar import Sidecar


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
    """The block to add at must exist.

    Raises:
        UserError: it does not.
    """
    if injection.block is not None and injection.block >= number_of_blocks(config):
        raise UserError(
            f"{path}: injection at block {injection.block}, but the AV has only "
            f"{number_of_blocks(config)} blocks; say which with --injection add:BLOCK"
        )


def check_all_loaded(
    model: Any, missing: Iterable[str], path: Path, *, role: str, refuse: Refuse
) -> None:
    """Every weight that is used must come from the checkpoint.

    transformers fills what is missing with random numbers. An AR uses neither the output matrix
    nor, unless kept, the final norm, and published ones leave them out.

    Args:
        missing: names of weights that no file held.
    """
    unused: tuple[str, ...] = ()
    if role == "ar":
        names = {id(module): name for name, module in model.named_modules()}
        decoder = decoder_of(model)
        parts = (model.get_output_embeddings(), getattr(decoder, final_norm_name(decoder)))
        unused = tuple(f"{names[id(part)]}." for part in parts if id(part) in names)
    needed = sorted(name for name in missing if not name.startswith(unused or ("\0",)))
    if needed:
        refuse(
            f"{path}: {len(needed)} weights of the model are in none of its files (first "
            f"{needed[0]}), and would be random; fetch the checkpoint again"
        )


def check_weights(tensors: Iterable[tuple[str, torch.Tensor]], path: Path, refuse: Refuse) -> None:
    """No weight may be NaN, infinite or absurdly large."""
    problem = scan(tensors).problem()
    if problem is not None:
        refuse(f"{path}: {problem}")


def check_head(head: torch.Tensor, path: Path, refuse: Refuse) -> None:
    """No weight of an AR's head may be NaN, infinite or absurdly large."""
    problem = head_health(head).problem()
    if problem is not None:
        refuse(f"{path}: {problem}")
