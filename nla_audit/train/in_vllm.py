"""The policy in vLLM: its adapters, or all its weights, are read there before every step.

Nothing is ever sampled from weights of before. What remains is that vLLM computes in another way
than training does; the log of a step has by how much (``sampler_off``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nla_audit.checkpoint.in_vllm import VllmHost
from nla_audit.checkpoint.joined_adapter import joined_adapter
from nla_audit.checkpoint.save import save_model
from nla_audit.errors import UserError
from nla_audit.nla.engine import Engine, refuse_difference, refuse_other_ways_in
from nla_audit.nla.injection import parse_injection
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_engine import VllmEngine, WithAdapter
from nla_audit.nla.vllm_settings import VllmSettings, check_installed
from nla_audit.train.generated_texts import GENERATED_FILE
from nla_audit.train.layout import Layout
from nla_audit.train.ranks import Ranks
from nla_audit.train.recipe_rl import Rl

#: Times that vLLM is compared with the policy: at the start, and once the weights have moved.
_COMPARED = 2


def check_before(layout: Layout, ranks: Ranks) -> None:
    """Refuse before anything is trained what vLLM cannot sample from.

    Raises:
        UserError: vLLM is not installed, vectors are added at a block and an option keeps vLLM
            from that, or there are several processes.
    """
    asking = list(_asking(layout))
    if not asking:
        return
    check_installed()
    refuse_several(ranks, f"{asking[0][0]}.engine")
    pair = layout.recipe.pair
    # A pair that is brought along says by itself where its vectors enter.
    if pair.av is None and parse_injection(pair.injection).kind == "add":
        for section, options in asking:
            try:
                VllmSettings(1, options).check_for_blocks()
            except UserError as error:
                raise UserError(f"{section}.engine_options: {error}") from None


def _asking(layout: Layout) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Sections of the recipe by which something is left to do for vLLM, and its options."""
    recipe = layout.recipe
    writing = recipe.warm_start.ar_on_generated
    is_written = recipe.pair.av is not None or (layout.warm_start / GENERATED_FILE).is_file()
    if writing is not None and writing.engine == "vllm" and not is_written:
        yield "warm_start.ar_on_generated", writing.engine_options
    for run in layout.runs:
        if run.rl.engine == "vllm":
            yield "rl", run.rl.engine_options


def refuse_several(ranks: Ranks, setting: str = "rl.engine") -> None:
    """Refuse processes started by torchrun.

    Args:
        setting: that asks for vLLM.

    Raises:
        UserError: there are several.
    """
    if ranks.size > 1:
        raise UserError(f"{setting}: vllm samples for one process: start without torchrun")


class PolicyInVllm:
    """Samples for a policy that goes on learning.

    LoRA layers go to vLLM by request, beside the weights that they are on: those never change.
    Where there are none, or where they are to be merged, vLLM is given all weights.

    Args:
        verbalizer: the policy.
        settings: how vLLM is to run.

    Raises:
        UserError: vLLM is not installed, something besides prompt and vectors enters the AV, its
            weights are quantised, or its adapters are of a kind that does not go by request.
    """

    def __init__(self, verbalizer: Verbalizer, settings: VllmSettings) -> None:
        check_installed()
        refuse_other_ways_in(verbalizer)
        if getattr(verbalizer.model, "is_quantized", False):
            raise UserError(
                f"{verbalizer.name}: vLLM cannot be given weights that were quantised on loading: "
                "use engine own"
            )
        self._verbalizer, self._settings = verbalizer, settings
        self._vllm: VllmEngine | None = None
        self._engine: Engine | None = None
        #: 0 where all weights are handed over.
        self._lora_rank = 0
        if not settings.merges_adapters:
            self._lora_rank = joined_adapter(verbalizer.model).rank
        self._compared = 0

    def follow(self) -> None:
        """Have vLLM take the policy's weights as they are now; it is started where it is not yet.

        Raises:
            UserError: vLLM does not start, died, or computes something else than the policy.
        """
        with TemporaryDirectory(prefix="nla-audit-") as name:
            if self._lora_rank:
                self._engine = self._with_adapter(Path(name))
            else:
                self._engine = self._with_weights(Path(name))
        if self._compared < _COMPARED:
            refuse_difference(self._verbalizer, self._engine)
            self._compared += 1

    def _with_adapter(self, folder: Path) -> WithAdapter:
        model = self._verbalizer.model
        if self._vllm is None:
            save_model(model, folder / "base", with_lora=False)
            self._vllm = VllmEngine(
                self._verbalizer, folder / "base", self._settings, lora_rank=self._lora_rank
            )
        joined_adapter(model).save(folder / "adapter")
        return WithAdapter(self._vllm, folder / "adapter")

    def _with_weights(self, folder: Path) -> VllmEngine:
        save_model(self._verbalizer.model, folder)
        if self._vllm is None:
            self._vllm = VllmEngine(self._verbalizer, folder, self._settings)
        else:
            self._vllm.reload(folder)
        return self._vllm

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Within it vLLM generates for the policy, by the weights it last took."""
        self._verbalizer.engine = self._engine
        try:
            yield
        finally:
            self._verbalizer.engine = None

    def close(self) -> None:
        """End vLLM, and give back what it holds."""
        if self._vllm is not None:
            self._vllm.close()
            self._vllm = self._engine = None


class Hosts:
    """Who generates for the finished models of a course, where that is not our own loop.

    One vLLM is there at a time, and goes on for the next model of the same settings.
    """

    def __init__(self) -> None:
        self._host: VllmHost | None = None

    def host_of(self, rl: Rl) -> VllmHost | None:
        """Who generates by these settings; ``None`` for our own loop."""
        if rl.engine == "own":
            return None
        settings = settings_of(rl)
        if self._host is None or self._host.settings != settings:
            self.close()
            self._host = VllmHost(settings)
        return self._host

    def close(self) -> None:
        """End vLLM, if it runs."""
        if self._host is not None:
            self._host.close()
            self._host = None


def settings_of(rl: Rl) -> VllmSettings:
    """How vLLM is to run for a run of RL."""
    return VllmSettings(rl.max_new_tokens, rl.engine_options)
