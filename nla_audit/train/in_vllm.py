"""The policy in vLLM: its weights are written out and read there before every step.

Nothing is ever sampled from weights of before. What remains is that vLLM computes in another way
than training does; the log of a step has by how much (``sampler_off``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nla_audit.checkpoint.save import save_model
from nla_audit.errors import UserError
from nla_audit.nla.engine import refuse_difference, refuse_other_ways_in
from nla_audit.nla.injection import parse_injection
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_engine import VllmEngine
from nla_audit.nla.vllm_settings import VllmSettings, check_installed
from nla_audit.train.layout import Layout
from nla_audit.train.ranks import Ranks


def check_before(layout: Layout, ranks: Ranks) -> None:
    """Refuse before anything is trained what vLLM cannot sample from.

    Raises:
        UserError: vLLM is not installed, vectors enter a block, or there are several processes.
    """
    if all(run.rl.engine == "own" for run in layout.runs):
        return
    check_installed()
    refuse_several(ranks)
    pair = layout.recipe.pair
    # A pair that is brought along says by itself where its vectors enter.
    if pair.av is None and parse_injection(pair.injection).kind != "replace":
        raise UserError(
            f"rl.engine: vllm takes embeddings only, and pair.injection {pair.injection} needs a "
            "hidden state of the model: use engine own"
        )


def refuse_several(ranks: Ranks) -> None:
    """Refuse processes started by torchrun.

    Raises:
        UserError: there are several.
    """
    if ranks.size > 1:
        raise UserError("rl.engine: vllm samples for one process: start without torchrun")


class PolicyInVllm:
    """Samples for a policy that goes on learning.

    Args:
        verbalizer: the policy; its LoRA layers are merged in what vLLM gets.
        settings: how vLLM is to run.

    Raises:
        UserError: vLLM is not installed, the AV's vector does not enter by an embedding, or its
            weights are quantised.
    """

    def __init__(self, verbalizer: Verbalizer, settings: VllmSettings) -> None:
        check_installed()
        refuse_other_ways_in(verbalizer)
        if getattr(verbalizer.model, "is_quantized", False):
            raise UserError(
                f"{verbalizer.name}: adapters cannot be merged into quantised weights: use engine "
                "own"
            )
        self._verbalizer, self._settings = verbalizer, settings
        self._engine: VllmEngine | None = None
        self._has_reloaded = False

    def follow(self) -> None:
        """Have vLLM take the policy's weights as they are now; it is started where it is not yet.

        Raises:
            UserError: vLLM does not start, died, or computes something else than the policy.
        """
        verbalizer, settings = self._verbalizer, self._settings
        with TemporaryDirectory(prefix="nla-audit-") as name:
            folder = Path(name)
            save_model(verbalizer.model, folder)
            if self._engine is not None:
                self._engine.reload(folder)
                if not self._has_reloaded:  # by then the weights have moved
                    refuse_difference(verbalizer, self._engine)
                    self._has_reloaded = True
                return
            self._engine = VllmEngine(verbalizer, folder, settings)
        refuse_difference(verbalizer, self._engine)

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
        if self._engine is not None:
            self._engine.close()
            self._engine = None
