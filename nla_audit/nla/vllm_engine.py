"""vLLM as the engine that generates, in processes of its own on this machine.

It is given prompts as embeddings and end tokens as stop tokens, and none of what a generation
config may ask for: the distribution sampled from is the model's own. Vectors that are added at a
block come in with the embeddings (:mod:`nla_audit.nla.block_entrance`).
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from multiprocessing import active_children
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import IO, Any, get_args

import numpy as np
import torch

from nla_audit.errors import UserError, first_line
from nla_audit.nla.block_entrance import AtBlock, marked
from nla_audit.nla.engine import COMPARED_TOKENS
from nla_audit.nla.generation import Generated, padded
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.nla.vllm_settings import (
    ROOM_OPTIONS,
    SET_FOR_BLOCKS,
    SET_HERE,
    VllmSettings,
    check_installed,
)

#: Share of a GPU's memory for vLLM where nothing else is said; the AR lies beside it.
_SHARE_OF_GPU = 0.6
#: Why an answer ends: at an end token, or at the cap.
_FINISHED = ("stop", "length")
#: The least that vLLM has room for where it takes adapters.
_LEAST_ROOM = 1
#: vLLM silently raises smaller temperatures to this.
_LEAST_TEMPERATURE = 0.01
#: Between two looks at whether vLLM's processes are alive.
_WATCH_SECONDS = 1.0
_LEVEL = "VLLM_LOGGING_LEVEL"
#: Whether the user asks for vLLM's log, which is otherwise kept for what it says of a death.
_SHOWS_LOG = _LEVEL in os.environ
#: Errors that only say that another process had one.
_SECOND_HAND = re.compile("root cause|its processes is gone", re.IGNORECASE)
#: How vLLM reports what one of its processes says of a call, and lives on.
_REPORTED = re.compile(r"failed with error '(.+)', please check")
#: How pydantic, by which vLLM checks its options, says what is wrong with one.
_INVALID = re.compile(
    r"validation errors? for .*\n(?:\S.*\n)?\s+(?:Value error, )?(.+?)(?: \[type=|$)"
)
_ERROR = re.compile(r"\b[A-Za-z_.]*(?:Error|Exception): .+")


class VllmEngine:
    """An AV in vLLM; an :class:`~nla_audit.nla.engine.Engine`.

    Args:
        verbalizer: the AV.
        folder: its whole model.
        settings: how to run.
        trust_remote_code: run model code that comes with the checkpoint.
        lora_rank: of the adapters that it will be given by request; 0: none.

    Attributes:
        max_model_len: tokens of a prompt and of what is said to it.
        lora_rank: the highest rank that there is room for.
        takes_blocks: whether vectors can be added at a block, as those of ``verbalizer`` are.

    Raises:
        UserError: vLLM is not installed, knows no such option, does not start, or has no room for
            adapters of this rank.
    """

    name = "vLLM"

    def __init__(
        self,
        verbalizer: Verbalizer,
        folder: Path,
        settings: VllmSettings,
        *,
        trust_remote_code: bool = False,
        lora_rank: int = 0,
    ) -> None:
        dtype, vllm = verbalizer.model.dtype, _vllm()
        self.max_model_len = needed_len(verbalizer, settings)
        self.lora_rank = _room_for(lora_rank)
        self.takes_blocks = verbalizer.injection.kind == "add"
        given: dict[str, Any] = {
            "model": str(folder),
            "dtype": str(dtype).removeprefix("torch."),
            "trust_remote_code": trust_remote_code,
            "max_model_len": self.max_model_len,
            "enable_prompt_embeds": True,
            # A prompt read in two parts would take draws of its row for the first (on a CPU vLLM
            # then fails): what a row says would depend on its company.
            "enable_chunked_prefill": False,
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "logprobs_mode": "processed_logprobs",
            "use_tqdm_on_load": False,
            "max_lora_rank": self.lora_rank or _LEAST_ROOM,
        }
        unless_told = {"gpu_memory_utilization": _SHARE_OF_GPU, "enable_lora": lora_rank > 0}
        assert given.keys() == SET_HERE
        if self.takes_blocks:
            settings.check_for_blocks()
            given |= SET_FOR_BLOCKS
        self._dtype = dtype
        self._options = dict(settings.options)
        self._log = TemporaryFile()  # noqa: SIM115  # as long as vLLM's processes live
        others = set(active_children())
        with _written_to(self._log):
            try:
                self._model = vllm.LLM(**{**unless_told, **settings.options, **given})
            except Exception as error:  # whatever keeps it from starting
                raise UserError(f"vLLM does not start: {self._why(error)}") from None
        #: Empty where vLLM was told to run in this process (VLLM_ENABLE_V1_MULTIPROCESSING).
        self._processes = set(active_children()) - others
        self._adapters = 0
        #: Where vectors are added, and what at: block, and embedding of the token.
        self._entrance: tuple[int, torch.Tensor] | None = None
        from vllm.platforms import current_platform

        self._version, self._platform = vllm.__version__, current_platform.device_type

    def record(self) -> dict[str, Any]:
        """Version, kind of device, and the options that may change what is computed."""
        options = {name: value for name, value in self._options.items() if name not in ROOM_OPTIONS}
        return {
            "name": "vllm",
            "version": self._version,
            "platform": self._platform,
            "options": options,
        }

    def generate(
        self,
        prompts: torch.Tensor,
        *,
        at_block: AtBlock | None,
        end_ids: frozenset[int],
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        caps: Sequence[int] | None = None,
        adapter: Any = None,
    ) -> Generated:
        """As :meth:`nla_audit.nla.engine.Engine.generate`.

        Args:
            adapter: from :meth:`take_adapter`.

        Raises:
            UserError: vLLM died, refuses the temperature, or has nowhere to add vectors at.
        """
        from vllm import SamplingParams

        if 0 < temperature < _LEAST_TEMPERATURE:
            raise UserError(
                f"temperature {temperature:g}: vLLM samples at {_LEAST_TEMPERATURE} or more, or "
                "greedily"
            )
        settings = [
            SamplingParams(
                temperature=temperature,
                seed=seed,
                max_tokens=max_new_tokens if caps is None else min(max_new_tokens, caps[row]),
                stop_token_ids=sorted(end_ids),
                ignore_eos=True,  # what vLLM itself takes for an end token is not asked
                logprobs=0,  # those of the tokens themselves
                detokenize=False,
            )
            for row, seed in enumerate(seeds)
        ]
        prompts = prompts.to(self._dtype)
        self._add_at(at_block, prompts)
        if at_block is not None:
            prompts = marked(prompts, at_block)
        asked = [{"prompt_embeds": one} for one in prompts.cpu()]

        def completions() -> list[Any]:
            outputs = self._model.generate(asked, settings, use_tqdm=False, lora_request=adapter)
            found = [output.outputs[0] for output in outputs]
            _refuse_cut_off(found)
            return found

        return _generated(self._watched(completions), end_ids)

    def _add_at(self, at_block: AtBlock | None, prompts: torch.Tensor) -> None:
        """Have vLLM's workers add vectors at this block from now on, if they do not yet.

        Raises:
            UserError: vLLM died, or has no such place.
        """
        wanted = None
        if at_block is not None:
            wanted = at_block.block, prompts[0, at_block.column].float().cpu()
        if _same(wanted, self._entrance):
            return
        block, embedding = (None, []) if wanted is None else (wanted[0], wanted[1].tolist())

        def tell() -> list[str | None]:
            # What it kept of prompts was computed with vectors added elsewhere.
            self._model.reset_prefix_cache()
            given = (block, embedding)
            return list(self._model.collective_rpc("nla_audit_add_at_block", args=given))

        self._entrance = None
        for why_not in self._watched(tell):
            if why_not is not None:
                raise UserError(
                    f"vLLM cannot add vectors at block {block} of this model: {why_not}: use "
                    "engine own"
                )
        self._entrance = wanted

    def reload(self, folder: Path) -> None:
        """Take the weights in ``folder``, of the same kind of model, in the place of its own.

        Raises:
            UserError: vLLM died, or cannot.
        """

        def take() -> None:
            path = {"weights_path": str(folder)}
            self._model.collective_rpc("reload_weights", kwargs=path)
            # What it kept of prompts was computed with the weights before.
            self._model.reset_prefix_cache()

        self._watched(take)

    def take_adapter(self, folder: Path) -> Any:
        """Load the LoRA adapter in ``folder``; what a request names it by.

        The least recently used one makes room for it, and is read again when it is asked for.

        Raises:
            UserError: vLLM died, or does not take it.
        """
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError

        # What vLLM keeps of prompts goes by the name: it is never that of another adapter.
        self._adapters += 1
        adapter = LoRARequest(f"{folder.name}-{self._adapters}", self._adapters, str(folder))

        def take() -> str | None:
            try:
                self._model.llm_engine.add_lora(adapter)
            except EngineDeadError:
                raise
            except Exception as error:  # what it says of an adapter that it does not take
                reported = _REPORTED.search(str(error))
                return first_line(error) if reported is None else reported[1]
            return None

        why_not = self._watched(take)
        if why_not is not None:
            raise UserError(
                f"vLLM does not take the adapter: {why_not}: engine option enable_lora=false "
                "merges adapters into the weights"
            )
        return adapter

    def close(self) -> None:
        """End its processes."""
        del self._model
        gc.collect()

    def _watched(self, work: Callable[[], Any]) -> Any:
        """What comes of ``work``.

        Raises:
            UserError: vLLM died.
        """
        try:
            return self._waited_for(work) if self._processes else work()
        except Exception as error:  # its processes die of whatever kills processes
            raise UserError(
                f"vLLM died: {self._why(error)}: what was finished is kept; give the same command "
                "again to go on"
            ) from None

    def _waited_for(self, work: Callable[[], Any]) -> Any:
        """What comes of ``work``; vLLM itself waits for ever for a process that was killed.

        Raises:
            ChildProcessError: one of vLLM's processes is gone.
        """
        coming: Future[Any] = Future()

        def finish() -> None:
            try:
                coming.set_result(work())
            except BaseException as error:  # it is raised where it is waited for
                coming.set_exception(error)

        Thread(target=finish, daemon=True).start()
        while not wait([coming], timeout=_WATCH_SECONDS).done:
            if not all(process.is_alive() for process in self._processes):
                raise ChildProcessError("one of its processes is gone")
        return coming.result()

    def _why(self, error: Exception) -> str:
        """The first error in vLLM's log; ``error`` itself where it is the cause."""
        if (invalid := _INVALID.search(str(error))) is not None:
            return invalid[1]
        if not _SECOND_HAND.search(str(error)):
            return first_line(error)
        self._log.seek(0)
        found = _ERROR.findall(self._log.read().decode("utf-8", "replace"))
        causes = [line for line in found if not _SECOND_HAND.search(line)]
        return causes[0] if causes else "one of its processes is gone, perhaps for want of memory"


class WithAdapter:
    """A running vLLM with a LoRA adapter; an :class:`~nla_audit.nla.engine.Engine`.

    Several share one vLLM: which one is meant is said with every request.

    Args:
        vllm: with room for adapters.
        folder: the adapter, which stays there as long as this is used beside others.

    Raises:
        UserError: as :meth:`VllmEngine.take_adapter`.
    """

    def __init__(self, vllm: VllmEngine, folder: Path) -> None:
        self.name = vllm.name
        self._vllm, self._adapter = vllm, vllm.take_adapter(folder)

    def record(self) -> dict[str, Any]:
        """As :meth:`VllmEngine.record`."""
        return {**self._vllm.record(), "adapters": "by request"}

    def generate(self, prompts: torch.Tensor, **how: Any) -> Generated:
        """As :meth:`VllmEngine.generate`."""
        return self._vllm.generate(prompts, adapter=self._adapter, **how)


def _same(one: tuple[int, torch.Tensor] | None, other: tuple[int, torch.Tensor] | None) -> bool:
    """Whether two entrances are the same."""
    if one is None or other is None:
        return one is other
    return one[0] == other[0] and torch.equal(one[1], other[1])


def needed_len(verbalizer: Verbalizer, settings: VllmSettings) -> int:
    """Tokens of the AV's prompt and of the longest that will be asked for."""
    return len(verbalizer.prompt.ids) + max(settings.max_new_tokens, COMPARED_TOKENS)


def _room_for(rank: int) -> int:
    """The smallest of vLLM's sizes that an adapter of this rank fits into; 0 for none.

    Raises:
        UserError: it fits into none.
    """
    if rank == 0:
        return 0
    from vllm.config.lora import MaxLoRARanks

    sizes = sorted(get_args(MaxLoRARanks))
    if rank > sizes[-1]:
        raise UserError(
            f"the adapter is of rank {rank}, and vLLM takes {sizes[-1]} at most: engine option "
            "enable_lora=false merges adapters into the weights"
        )
    return next(size for size in sizes if size >= rank)


def _vllm() -> Any:
    check_installed()
    # Before it is imported, which reads it then: it reports to its makers unless told not to.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Standard output belongs to results.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault(_LEVEL, "ERROR")
    try:
        import vllm
    except ImportError as error:
        raise UserError(f"vLLM is installed and cannot be imported: {first_line(error)}") from None
    return vllm


@contextmanager
def _written_to(log: IO[bytes]) -> Iterator[None]:
    """Have all that is written inside, and ever by processes started inside, go to ``log``.

    Whoever asks for vLLM's log (``VLLM_LOGGING_LEVEL``) sees it instead.
    """
    if _SHOWS_LOG:
        yield
        return
    streams = {number: os.dup(number) for number in (1, 2)}
    for number in streams:
        os.dup2(log.fileno(), number)
    try:
        yield
    finally:
        for number, before in streams.items():
            os.dup2(before, number)
            os.close(before)


def _refuse_cut_off(completions: Sequence[Any]) -> None:
    """Refuse answers that vLLM gave up, as it does when it is told to end: it hands them over, too.

    Raises:
        RuntimeError: there is one.
    """
    if any(one.finish_reason not in _FINISHED for one in completions):
        raise RuntimeError("it was told to end, and cut off what it was saying")


def _generated(completions: Sequence[Any], end_ids: frozenset[int]) -> Generated:
    """vLLM's completions, one a row, as our own loop writes them."""
    lengths = np.array([len(one.token_ids) for one in completions], dtype=np.int64)
    token_ids = padded([one.token_ids for one in completions])
    log_probs = np.full(token_ids.shape, np.nan, dtype=np.float32)
    for row, one in enumerate(completions):
        log_probs[row, : lengths[row]] = [
            choices[token].logprob
            for token, choices in zip(one.token_ids, one.logprobs, strict=True)
        ]
    last = token_ids[np.arange(len(completions)), lengths - 1]
    return Generated(token_ids, log_probs, lengths, np.isin(last, sorted(end_ids)))
