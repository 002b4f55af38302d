"""How vLLM is to run: what may be asked of it, which needs neither vLLM nor torch to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from nla_audit.errors import UserError

#: Options that say how much there is room for at once, and change no result.
ROOM_OPTIONS = frozenset(
    {"gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_batched_tokens", "max_num_seqs"}
)
#: Arguments of ``vllm.LLM`` that follow from the AV and from how it is read.
SET_HERE = frozenset(
    {
        "model",
        "dtype",
        "trust_remote_code",
        "max_model_len",
        "enable_prompt_embeds",
        "enable_chunked_prefill",
        "skip_tokenizer_init",
        "generation_config",
        "logprobs_mode",
        "use_tqdm_on_load",
        "max_lora_rank",
    }
)
#: More of them where vectors are added at a block: the worker does that to modules that it has,
#: and what is compiled, or a CUDA graph, does not run them.
SET_FOR_BLOCKS: Mapping[str, Any] = {
    "enforce_eager": True,
    "worker_extension_cls": "nla_audit.nla.vllm_worker.AddsAtBlock",
}


@dataclass(frozen=True)
class VllmSettings:
    """How vLLM is to run.

    Attributes:
        max_new_tokens: the most that will ever be asked for.
        options: more arguments of ``vllm.LLM``, such as ``tensor_parallel_size``.

    Raises:
        UserError: an option is not the user's to set, or would write a secret into the record.
    """

    max_new_tokens: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the options."""
        if taken := sorted(SET_HERE & self.options.keys()):
            raise UserError(f"engine option {taken[0]}: is set by nla-audit")
        if "hf_token" in self.options:
            raise UserError(
                "engine option hf_token: would stand in the record of the run; set HF_TOKEN instead"
            )

    @property
    def merges_adapters(self) -> bool:
        """Whether LoRA adapters are merged into the weights, and not handed over by request."""
        return self.options.get("enable_lora") is False

    def check_for_blocks(self) -> None:
        """Refuse options with which vectors cannot be added at a block.

        Raises:
            UserError: there is one.
        """
        for name, value in SET_FOR_BLOCKS.items():
            if self.options.get(name, value) != value:
                raise UserError(
                    f"engine option {name}={str(self.options[name]).lower()}: this AV's vectors "
                    f"are added at a block, for which nla-audit sets {name}: leave it out"
                )


def check_installed() -> None:
    """Refuse to go on without vLLM.

    Raises:
        UserError: it is not installed.
    """
    if find_spec("vllm") is None:
        raise UserError("engine vllm needs vLLM: pip install 'nla-audit[vllm]'")
