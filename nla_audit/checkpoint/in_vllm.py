"""Loaded AVs, handed over to vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nla_audit.checkpoint.backbone import Placement
from nla_audit.checkpoint.joined_adapter import joined_adapter, refuse_whole_matrices
from nla_audit.checkpoint.save import save_model
from nla_audit.errors import UserError
from nla_audit.nla.engine import Engine, hand_over
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_engine import VllmEngine, WithAdapter, needed_len
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


class VllmHost:
    """vLLM for AVs that are loaded one after the other; one vLLM serves all of the same weights.

    LoRA adapters go to it by request, so that AVs that are adapters of one model share it. An AV
    of other weights has it started again, and the AVs before that can no longer be asked.

    Args:
        settings: how vLLM is to run.

    Attributes:
        settings: the same.
    """

    def __init__(self, settings: VllmSettings) -> None:
        self.settings = settings
        self._folder = TemporaryDirectory(prefix="nla-audit-")
        self._adapters = 0
        self._vllm: VllmEngine | None = None
        self._weights: tuple[object, ...] | None = None

    def take(
        self,
        verbalizer: Verbalizer,
        folder: Path,
        adapters: Sequence[Path],
        *,
        trust_remote_code: bool,
    ) -> None:
        """Have vLLM generate for ``verbalizer`` from now on, in place.

        Args:
            folder: the whole model that ``verbalizer`` was loaded from.
            adapters: the PEFT adapters that are on it.
            trust_remote_code: run model code that comes with the checkpoint.

        Raises:
            UserError: as :class:`~nla_audit.nla.vllm_engine.VllmEngine` and
                :func:`~nla_audit.nla.engine.hand_over`; or the adapters are of a kind that does
                not go by request.
        """

        def merged() -> Engine:
            with TemporaryDirectory(prefix="nla-audit-") as name:
                save_model(verbalizer.model, Path(name))
                return self._serving(verbalizer, Path(name), trust_remote_code=trust_remote_code)

        def by_request() -> Engine:
            refuse_whole_matrices(adapters)
            adapter = joined_adapter(verbalizer.model)
            self._adapters += 1
            place = Path(self._folder.name) / f"adapter-{self._adapters}"
            adapter.save(place)
            vllm = self._serving(
                verbalizer, folder, trust_remote_code=trust_remote_code, lora_rank=adapter.rank
            )
            return WithAdapter(vllm, place)

        def whole() -> Engine:
            return self._serving(verbalizer, folder, trust_remote_code=trust_remote_code)

        if not adapters:
            hand_over(verbalizer, whole)
        else:
            hand_over(verbalizer, merged if self.settings.merges_adapters else by_request)

    def close(self) -> None:
        """End vLLM, and give back what it holds; nothing can be taken from then on."""
        self._end()
        self._folder.cleanup()

    def _end(self) -> None:
        if self._vllm is not None:
            self._vllm.close()
            self._vllm = None

    def _serving(
        self, verbalizer: Verbalizer, folder: Path, *, trust_remote_code: bool, lora_rank: int = 0
    ) -> VllmEngine:
        """A vLLM with the weights in ``folder``: the one that runs, or another in its place."""
        weights = (folder, verbalizer.model.dtype, trust_remote_code)
        if (
            self._vllm is None
            or self._weights != weights
            or self._vllm.lora_rank < lora_rank
            or (verbalizer.injection.kind == "add" and not self._vllm.takes_blocks)
            or self._vllm.max_model_len < needed_len(verbalizer, self.settings)
        ):
            self._end()
            self._vllm = VllmEngine(
                verbalizer,
                folder,
                self.settings,
                trust_remote_code=trust_remote_code,
                lora_rank=lora_rank,
            )
            self._weights = weights
        return self._vllm
