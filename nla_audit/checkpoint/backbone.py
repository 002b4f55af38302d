"""The language model under a half of a pair, as transformers loads it.

Safetensors only, and no code of strangers unless asked for; errors of transformers become one line.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from nla_audit.checkpoint.check import check_all_loaded, check_blocks, check_types
from nla_audit.checkpoint.declared_size import check_size
from nla_audit.checkpoint.door import check_model_files, check_tokenizer_files
from nla_audit.checkpoint.formats import weight_files
from nla_audit.checkpoint.tensors import WRAPPERS, types_in
from nla_audit.errors import UserError, first_line
from nla_audit.limits import OverLimit, WorkFailed, within_limits
from nla_audit.nla.architecture import (
    cut_to_first_blocks,
    hidden_size,
    keep_first_blocks,
    model_class,
    number_of_blocks,
    packs_blocks,
    text_config,
)
from nla_audit.nla.refusal import Refuse

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
#: Runs of one character and of one kind, on which careless patterns backtrack.
_SAMPLE = f"The “{'a' * 60}”, 2,024 naïve cafés;{' ' * 40}{'!' * 40}\n{'東京' * 20} x_y <b>" * 4
#: Tokens; a larger vocabulary takes longer to write out than to try.
_SOON_SAID = 10_000
_ANOTHER_TOKENIZER = "use the tokenizer that the checkpoint was made with"


@dataclass(frozen=True)
class Placement:
    """Where weights go and in which precision.

    Attributes:
        dtype: ``float32``, ``bfloat16``, ``float16``, or ``auto`` (as saved; for models that are
            no halves of a pair see :mod:`nla_audit.checkpoint.precision`).
        device: e.g. ``cpu`` or ``cuda:0``; by default a GPU where there is one.
        device_map: passed to transformers instead of a device, to spread a large model.
        load_in_4bit: quantise the base with bitsandbytes (NF4), as nano's QLoRA runs did.
        trust_remote_code: run model code that comes with a checkpoint. Never by default.
    """

    dtype: str = "auto"
    device: str | None = None
    device_map: str | None = None
    load_in_4bit: bool = False
    trust_remote_code: bool = False

    def options(self) -> dict[str, Any]:
        """Keyword arguments for ``from_pretrained``.

        Raises:
            UserError: an unknown dtype, or 4-bit without bitsandbytes.
        """
        if self.dtype != "auto" and self.dtype not in _DTYPES:
            raise UserError(f"dtype {self.dtype!r}: expected auto, {', '.join(_DTYPES)}")
        options: dict[str, Any] = {
            "dtype": _DTYPES.get(self.dtype, "auto"),
            "use_safetensors": True,
            "trust_remote_code": self.trust_remote_code,
        }
        if self.device_map is not None:
            options["device_map"] = self.device_map
        if self.load_in_4bit:
            options["quantization_config"] = _four_bit()
        return options

    def chosen_device(self) -> str:
        """The device of a model that is not spread: as said, or a GPU where there is one."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    def place(self, model: Any) -> Any:
        """Move a loaded model to its device, ready for inference.

        Raises:
            UserError: no such device here, or too little memory on it.
        """
        model.eval()
        if self.device_map is not None or self.load_in_4bit:
            return model
        device = self.chosen_device()
        if device.startswith("meta"):
            raise UserError("--device meta: holds no weights to compute with: name another device")
        try:
            return model.to(device)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the model does not fit into the memory of {device}; spread it with --device-map "
                "auto, or make it smaller with --dtype bfloat16 or --load-in-4bit"
            ) from None
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {device}: {first_line(error)}") from None


def read_config(folder: Path, placement: Placement) -> Any:
    """The model's config.

    Raises:
        UserError: it declares what cannot be, or transformers cannot read it.
    """
    from transformers import AutoConfig

    check_model_files(folder)
    try:
        with quiet_transformers(logging.CRITICAL):  # it lists a whole config before it fails
            config = AutoConfig.from_pretrained(
                str(folder), trust_remote_code=placement.trust_remote_code
            )
        hidden_size(config), number_of_blocks(config)
        _keep_last_type(config, json.loads((folder / "config.json").read_text(encoding="utf-8")))
        return config
    except Exception as error:  # a stranger's file makes it fail in any way
        raise UserError(
            f"{folder}: transformers cannot read config.json: {first_line(error)}"
        ) from None


def _keep_last_type(config: Any, written: dict[str, Any]) -> None:
    """Let the last block attend as its file says, in place.

    transformers makes a Gemma-4's last block attend to all tokens whatever its config says. The
    last block of an AR is not the model's last, and most of them look through a window.
    """
    part = written.get("text_config", written)
    types = part.get("layer_types") if isinstance(part, dict) else None
    inner = text_config(config)
    read = getattr(inner, "layer_types", None)
    if not types or not isinstance(types, list) or not isinstance(read, list):
        return
    if read == [*types[:-1], "full_attention"] and types[-1] == "sliding_attention":
        inner.layer_types = types


def read_causal_lm(
    folder: Path,
    config: Any,
    placement: Placement,
    *,
    role: Literal["av", "ar"],
    refuse: Refuse,
) -> Any:
    """The model with its output matrix, as ``config`` describes it.

    Args:
        role: an AR may lack weights that it does not use.
        refuse: told of weights that are in no file.

    Raises:
        UserError: it is far larger than its weights, or transformers cannot load it.
    """
    check_size(folder, config, trust_remote_code=placement.trust_remote_code)
    types = types_in(weight_files(folder))
    check_blocks(types, number_of_blocks(config), folder, refuse)
    options = placement.options()
    if (renamings := _without_wrappers(types)) is not None:
        options["key_mapping"] = renamings
    try:
        # The type that transformers declares does not know of the second value.
        loaded: Any = model_class(config).from_pretrained(
            str(folder), config=config, output_loading_info=True, **options
        )
    except UserError:
        raise
    except Exception as error:  # a stranger's files make it fail in any way
        if "ignore_mismatched_sizes" in str(error):
            raise UserError(
                f"{folder}: config.json and the weights disagree about sizes; fetch the checkpoint "
                "again"
            ) from None
        raise UserError(f"{folder}: transformers cannot load it: {first_line(error)}") from None
    model, loading = loaded
    check_all_loaded(
        model,
        loading["missing_keys"],
        loading["unexpected_keys"],
        folder,
        role=role,
        blocks_in_files=number_of_blocks(read_config(folder, placement)),
        refuse=refuse,
    )
    check_types(types, model, folder, refuse)
    return model


def read_first_blocks(
    folder: Path,
    config: Any,
    blocks: int,
    placement: Placement,
    *,
    role: Literal["av", "ar"],
    refuse: Refuse,
) -> Any:
    """The model's first ``blocks`` blocks, final norm and output matrix; ``config`` is shortened.

    Arguments as for :func:`read_causal_lm`.

    Raises:
        UserError: as there, or the model has fewer blocks.
    """
    if blocks >= number_of_blocks(config) or not packs_blocks(config):
        keep_first_blocks(config, blocks)
        return read_causal_lm(folder, config, placement, role=role, refuse=refuse)
    # Something in its files holds all blocks at once: read whole, and cut afterwards.
    model = read_causal_lm(folder, config, placement, role=role, refuse=refuse)
    cut_to_first_blocks(model, blocks)
    return model


def _without_wrappers(names: Iterable[str]) -> dict[str, str] | None:
    """Renamings for transformers that take wrappers' words out of names; ``None`` if none need it.

    Each renaming of transformers takes out one word, so there are as many as a name may need.
    """
    most = max((sum(word in WRAPPERS for word in name.split(".")) for name in names), default=0)
    words = "|".join(sorted(WRAPPERS))
    return {f"(?#{number})(?<![^.])(?:{words})[.]": "" for number in range(most)} or None


def read_tokenizer(folder: Path, placement: Placement) -> Any:
    """The tokenizer in ``folder``.

    Raises:
        UserError: there is none that works.
    """
    from transformers import AutoTokenizer

    check_tokenizer_files(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=placement.trust_remote_code
        )
    except Exception as error:  # a stranger's files make it fail in any way: KeyError, Exception …
        raise UserError(f"{folder}: no usable tokenizer: {first_line(error)}") from None
    _check_encodes(tokenizer, folder)
    return tokenizer


def _check_encodes(tokenizer: Any, folder: Path) -> None:
    """Normalisers and splitting patterns are a stranger's too, and may not come to an end.

    Raises:
        UserError: they do not, or fail.
    """
    try:
        within_limits(
            lambda: len(tokenizer(_SAMPLE)["input_ids"]), depends_on=_decides_ids(tokenizer)
        )
    except OverLimit as error:
        raise UserError(f"{folder}: encoding a short text {error}; {_ANOTHER_TOKENIZER}") from None
    except WorkFailed as error:
        raise UserError(f"{folder}: no usable tokenizer: {error}; {_ANOTHER_TOKENIZER}") from None


def _decides_ids(tokenizer: Any) -> tuple[str, str] | None:
    """What an encoding is made of, where that is known and sooner said than tried."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    is_plain = type(tokenizer).__module__.startswith("transformers.")
    if core is None or not is_plain or len(tokenizer) > _SOON_SAID:
        return None
    return "encode", hashlib.sha256(core.to_str().encode("utf-8", "surrogatepass")).hexdigest()


def _four_bit() -> Any:
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise UserError("4-bit loading needs bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


@contextmanager
def quiet_transformers(least: int = logging.ERROR) -> Iterator[None]:
    """Keep transformers from listing the weights of blocks that we leave out on purpose.

    Its progress bars, two for each pair, would break into those of the commands.
    """
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    level, had_bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(least)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if had_bars:
            transformers_logging.enable_progress_bar()
