"""Whether a config describes about as much model as there are weights, before it is built.

What is merely missing is found by name once a model is built
(:mod:`nla_audit.checkpoint.check`). Here only what would take endless time or memory to build
counts.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from nla_audit.errors import UserError
from nla_audit.files import full_disk
from nla_audit.nla.architecture import model_class, number_of_blocks

_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks?)\.(\d+)\.")
#: An AR leaves out its output matrix, which is no larger than its embedding.
_TIMES_THE_WEIGHTS = 3
#: As many times the blocks that have weights are built, to name those that lack them.
_TIMES_THE_BLOCKS = 4


def check_size(
    folder: Path, config: Any, *, kind: Any = None, trust_remote_code: bool = False
) -> None:
    """Check blocks and parameters of ``config`` against the safetensors in ``folder``.

    Args:
        kind: which of transformers' auto classes makes the model, if it is known.

    Raises:
        UserError: there are far more of them than the files hold, a tensor has another size, a
            file is damaged, or transformers cannot make such a model.
    """
    blocks = number_of_blocks(config)
    sizes, weights = _held(folder)
    numbers = [int(match[1]) for name in sizes if (match := _BLOCK.search(name))]
    held = max(numbers, default=-1) + 1
    if held and blocks > _TIMES_THE_BLOCKS * held:
        raise UserError(
            f"{folder}: config.json describes {blocks:,} blocks, its weights hold {held:,}; fetch "
            "the checkpoint again"
        )
    shapes = _parameters(folder, config, kind, trust_remote_code)
    declared = sum(size for _, _, size in shapes)
    if declared > _TIMES_THE_WEIGHTS * weights:
        name, shape, _ = max(shapes, key=lambda parameter: parameter[2])
        raise UserError(
            f"{folder}: config.json describes {declared:,} weights (the largest {name}, "
            f"{' × '.join(map(str, shape))}), its files hold {weights:,}; fetch the checkpoint "
            "again"
        )
    # Quantised tensors have shapes of their own.
    if getattr(config, "quantization_config", None) is None:
        for name, shape, size in shapes:
            if sizes.get(name, size) != size:
                raise UserError(
                    f"{folder}: config.json and the weights disagree about sizes: {name} would be "
                    f"{' × '.join(map(str, shape))}, its file holds {sizes[name]:,} numbers; fetch "
                    "the checkpoint again"
                )


def _parameters(
    folder: Path, config: Any, kind: Any, trust_remote_code: bool
) -> list[tuple[str, tuple[int, ...], int]]:
    """Name, shape and size of each parameter of the model; no memory is taken for them."""
    try:
        with torch.device("meta"):
            maker: Any = kind or model_class(config)
            model = maker.from_config(config, trust_remote_code=trust_remote_code)
    except ImportError as error:  # wrappers that see or hear may need a library of their own
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder}: a library is missing: {reason}") from None
    except Exception as error:  # a stranger's config makes it fail in any way
        if full_disk(error) is not None:  # torch writes temporary files when it is first used
            raise
        line = (str(error).strip().split("\n", 1)[0] or type(error).__name__)[:200]
        raise UserError(
            f"{folder}: transformers cannot build what config.json describes "
            f"({type(error).__name__}: {line}); fetch the checkpoint again"
        ) from None
    return [(name, tuple(each.shape), each.numel()) for name, each in model.named_parameters()]


def _held(folder: Path) -> tuple[dict[str, int], int]:
    """How many numbers each tensor in ``folder`` holds, and the most weights that they can be.

    A whole number may hold several quantised weights; it counts as so many two-bit ones.
    """
    sizes, weights = {}, 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(path), framework="numpy") as file:
                for name in sorted(file.keys()):
                    tensor = file.get_slice(name)
                    whole = re.fullmatch(r"[IU](\d+)", tensor.get_dtype())
                    packed = int(whole[1]) // 2 if whole else 1
                    sizes[name] = math.prod(tensor.get_shape())
                    weights += sizes[name] * packed
        except (OSError, SafetensorError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise UserError(f"{path}: cannot read ({reason}); fetch it again") from None
    return sizes, weights
