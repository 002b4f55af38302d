"""What ``auto`` means for the precision of a model that nothing was trained into yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from nla_audit.checkpoint.backbone import Placement
from nla_audit.nla.architecture import hidden_size

#: Instructions that multiply matrices in bfloat16, as torch calls them.
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
#: Width from which a step in bfloat16 takes little more than half the time of one in float32.
#: Measured with AVX-512 and three Llama blocks, float32 against bfloat16: 64: 0.9, 128: 1.2,
#: 256: 1.5, 512: 1.8, 1,024: 2.0 times the time; of one token each of 16 rows 0.6, 0.9, 1.2, 1.5
#: and 1.8 times.
_WIDE = 512


def for_untrained(placement: Placement, config: Any) -> Placement:
    """``placement`` with ``auto`` decided for a model of this config, on a CPU.

    A wide model that was saved in float32 is run in bfloat16 where the processor multiplies in
    it. Halves of a pair never are: what was trained in float32 may be lost in bfloat16.
    """
    is_left_open = placement.dtype == "auto" and not placement.load_in_4bit
    if not is_left_open or placement.device_map is not None or placement.chosen_device() != "cpu":
        return placement
    is_wide = hidden_size(config) >= _WIDE
    if is_wide and getattr(config, "dtype", None) == torch.float32 and _multiplies_bfloat16():
        return replace(placement, dtype="bfloat16")
    return placement


def _multiplies_bfloat16() -> bool:
    ask = getattr(torch.cpu, "get_capabilities", None)  # older torch has no such question
    return ask is not None and any(ask().get(name, False) for name in _INSTRUCTIONS)
