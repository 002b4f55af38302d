"""A loaded AV, handed over to vLLM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nla_audit.checkpoint.backbone import Placement
from nla_audit.checkpoint.save import save_model
from nla_audit.errors import UserError
from nla_audit.nla.engine import hand_over
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_engine import VllmEngine
from nla_audit.nla.vllm_settings import VllmSettings


def placement_beside_vllm(placement: Placement) -> Placement:
    """Where the AV lies here until vLLM has it: in main memory, for the devices are vLLM's.

    Raises:
        UserError: weights that vLLM would not have are asked for.
    """
    if placement.load_in_4bit:
        raise UserError(
            "--load-in-4bit is not for vLLM: leave it out, or quantise the checkpoint itself"
        )
    return replace(placement, device="cpu", device_map=None)


def hand_to_vllm(
    verbalizer: Verbalizer,
    folder: Path,
    settings: VllmSettings,
    *,
    has_adapters: bool,
    trust_remote_code: bool,
) -> None:
    """Have vLLM generate for ``verbalizer`` from now on, in place.

    Args:
        folder: the whole model that ``verbalizer`` was loaded from.
        settings: how vLLM is to run.
        has_adapters: whether there are LoRA layers on it; vLLM is then given the merged model,
            from a temporary folder.
        trust_remote_code: run model code that comes with the checkpoint.

    Raises:
        UserError: as :class:`~nla_audit.nla.vllm_engine.VllmEngine` and
            :func:`~nla_audit.nla.engine.hand_over`.
    """
    with TemporaryDirectory(prefix="nla-audit-") as name:

        def start() -> VllmEngine:
            whole = folder
            if has_adapters:
                whole = Path(name)
                save_model(verbalizer.model, whole)
            return VllmEngine(verbalizer, whole, settings, trust_remote_code=trust_remote_code)

        hand_over(verbalizer, start)
