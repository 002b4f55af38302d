"""The one door for the small files of a checkpoint.

transformers and peft build what a config says, whatever it says: 100,000 blocks, a billion
columns, a rank that fills the memory, a pattern that never ends. So every such file is read here
first, and refused in one line where a value cannot be meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from nla_audit.checkpoint.declared import (
    Adapter,
    Declared,
    GenerationSettings,
    Model,
    TokenizerSettings,
)
from nla_audit.errors import UserError
from nla_audit.limits import OverLimit, WorkFailed, within_limits
from nla_audit.strangers import MEGABYTE, first_problem, read_bounded, read_json_object, shown

_ADVICE = "fetch the checkpoint again, or mend the file"
_LARGEST_TOKENIZER = 256 * MEGABYTE
#: Names as models have them, to try a pattern on where there is no model yet.
_USUAL_NAMES = [
    f"{before}.{block}.{after}"
    for before in ("model.layers", "model.language_model.layers", "transformer.h")
    for block in (0, 11, 127)
    for after in (
        *("self_attn.q_proj", "self_attn.o_proj", "linear_attn.in_proj_qkvz", "attn.c_attn"),
        *("mlp.gate_proj", "mlp.experts.63.down_proj", "post_attention_layernorm"),
    )
]

Read = TypeVar("Read", bound=Declared)


def read_declared(path: Path, kind: type[Read], *, megabytes: int = 4) -> Read:
    """Read and check one file.

    Raises:
        UserError: not readable as :func:`~nla_audit.strangers.read_json_object` has it, or a
            value that cannot be.
    """
    return check_declared(read_json_object(path, limit=megabytes * MEGABYTE), kind, path)


def check_declared(fields: Mapping[str, Any], kind: type[Read], where: Path) -> Read:
    """Check what :func:`read_declared` reads; ``where`` is for messages.

    Raises:
        UserError: a value that cannot be, named with its place.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{where}: {first_problem(error)}; {_ADVICE}") from None


def check_model_files(folder: Path) -> None:
    """Check ``config.json``, the configs nested in it, and ``generation_config.json``.

    Raises:
        UserError: as :func:`read_declared`, or ``config.json`` is missing.
    """
    path = folder / "config.json"
    fields = read_json_object(path, limit=8 * MEGABYTE)
    if not isinstance(fields.get("model_type"), str):
        raise UserError(
            f"{path}: model_type must be a name such as qwen3, found "
            f"{shown(fields.get('model_type'))}; {_ADVICE}"
        )
    _check_nested(fields, path, "")
    if (folder / "generation_config.json").is_file():
        read_declared(folder / "generation_config.json", GenerationSettings)


def check_tokenizer_files(folder: Path) -> None:
    """Check the tokenizer's settings, and that no file of it is absurdly large.

    Raises:
        UserError: as :func:`read_declared`.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            read_declared(folder / name, TokenizerSettings, megabytes=16)
    if (folder / "chat_template.json").is_file():
        read_declared(folder / "chat_template.json", Declared, megabytes=1)
    for template in sorted(folder.glob("*.jinja")):
        read_bounded(template, MEGABYTE)
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt"):
        file = folder / name
        if file.is_file() and file.stat().st_size > _LARGEST_TOKENIZER:
            raise UserError(f"{file}: larger than 256 MB, as no tokenizer is; {_ADVICE}")


def check_adapter_files(folder: Path, config: str, weights: str) -> Adapter:
    """Check a PEFT adapter's config by itself and against its weights; no model is needed.

    Args:
        config: name of the one, ``adapter_config.json``.
        weights: name of the other.

    Raises:
        UserError: as :func:`read_declared`; a rank that the weights do not have, all of which
            peft would make room for; a pattern that takes too long.
    """
    adapter = read_declared(folder / config, Adapter)
    ranks = [adapter.r or 0, *(adapter.rank_pattern or {}).values()]
    check_rank(max(ranks), folder / config, folder / weights)
    check_patterns(adapter, _USUAL_NAMES, folder / config)
    return adapter


def check_rank(declared: int, config: Path, weights: Path) -> None:
    """Check a LoRA's rank against its weights: room is made for the rank, then they are read.

    Raises:
        UserError: the weights have no such rank, or are damaged.
    """
    held = _largest_rank(weights)
    if held is not None and declared > held:
        raise UserError(
            f"{config}: the rank is {declared:,}, but the largest in {weights.name} is {held:,}; "
            f"{_ADVICE}"
        )


def check_patterns(adapter: Adapter, names: Iterable[str], where: Path) -> None:
    """Try an adapter's regular expressions on the names of modules, as peft will.

    Raises:
        UserError: one of them is not valid, or does not come to an end in sensible time.
    """
    patterns = _patterns(adapter)
    if not patterns:
        return
    tried = list(names)

    def run() -> None:
        for pattern in patterns:
            compiled = re.compile(pattern)
            for name in tried:
                compiled.fullmatch(name)
                compiled.match(name)

    try:
        within_limits(run, depends_on=("patterns", tuple(patterns), tuple(tried)))
    except OverLimit as error:
        raise UserError(
            f"{where}: matching its patterns ({shown(patterns[0])}) against the names of modules "
            f"{error}; {_ADVICE}"
        ) from None
    except WorkFailed as error:
        raise UserError(f"{where}: a pattern in it is not valid ({error}); {_ADVICE}") from None


def _patterns(adapter: Adapter) -> list[str]:
    """Everything that peft reads as a regular expression, as it puts it together."""
    whole = [one for one in (adapter.target_modules, adapter.exclude_modules) if one is not None]
    layers = adapter.layers_pattern or []
    keys = [*(adapter.rank_pattern or {}), *(adapter.alpha_pattern or {})]
    return [
        *(one for one in whole if isinstance(one, str)),
        *(rf"(?:^|.*?\.){one}\.(?P<idx>\d+)\." for one in _listed(layers)),
        *(rf"(.*\.)?({key})$" for key in keys),
        *(rf"(^|.*\.){name}($|\..*)" for name in adapter.modules_to_save or []),
    ]


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _largest_rank(weights: Path) -> int | None:
    """The most rows of a LoRA's A among the weights; ``None`` where there is none."""
    try:
        with safe_open(str(weights), framework="numpy") as file:
            shapes = [
                file.get_slice(name).get_shape()
                for name in sorted(file.keys())
                if ".lora_A" in name or ".lora_embedding_A" in name
            ]
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights}: cannot read ({error}); fetch the checkpoint again") from None
    return max((int(shape[0]) for shape in shapes if shape), default=None)


def _check_nested(fields: Mapping[str, Any], path: Path, prefix: str) -> None:
    """Check a config and the configs in it (``text_config``, ``vision_config`` …)."""
    try:
        Model.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"{path}: {prefix}{first_problem(error)}; {_ADVICE}") from None
    for name, value in fields.items():
        if name.endswith("_config") and name != "quantization_config" and value is not None:
            if not isinstance(value, Mapping):
                raise UserError(
                    f"{path}: {prefix}{name} must be an object, found {shown(value)}; {_ADVICE}"
                )
            _check_nested(value, path, f"{prefix}{name}.")
