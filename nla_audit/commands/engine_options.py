"""The options that say who generates: our own decode loop, plain or compiled, or vLLM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from nla_audit.errors import UserError

if TYPE_CHECKING:
    from nla_audit.checkpoint.in_vllm import VllmHost

_OWN, _VLLM = "own", "vllm"
_PLAIN, _COMPILED = "plain", "compiled"


def engine_parameters() -> list[click.Parameter]:
    """Fresh options that choose the engine."""
    return [
        click.Option(
            ["--engine"],
            type=click.Choice((_OWN, _VLLM)),
            default=_OWN,
            show_default=True,
            help="Who generates. vllm runs uncompiled (enforce_eager) where vectors are added at a "
            "block, add:BLOCK; its samples are others. (pip install 'nla-audit[vllm]')",
        ),
        click.Option(
            ["--engine-option"],
            metavar="NAME=VALUE",
            multiple=True,
            help="Argument of vllm.LLM, e.g. tensor_parallel_size=4 or gpu_memory_utilization=0.8; "
            "enable_lora=false merges adapters, which otherwise go by request.",
        ),
        click.Option(
            ["--decoding"],
            type=click.Choice((_PLAIN, _COMPILED)),
            default=_PLAIN,
            show_default=True,
            help="How our own loop runs the AV. compiled takes up to minutes to begin; it is made "
            "for small batches on a GPU, where it has not been measured yet. A CPU gains little.",
        ),
    ]


@contextmanager
def engine_of(arguments: Mapping[str, Any]) -> Iterator[VllmHost | None]:
    """The engine that ``arguments`` ask for, until the block ends; ``None`` for our own loop.

    Raises:
        UserError: options that no engine is there for, or that cannot be read; vLLM on a cluster,
            beside compiled decoding, or not installed.
    """
    if arguments["engine"] == _OWN:
        if arguments["engine_option"]:
            raise UserError(f"--engine-option needs --engine {_VLLM} as well")
        yield None
        return
    if is_compiled(arguments):
        raise UserError(f"--decoding {_COMPILED} is for --engine {_OWN}: leave out one of them")
    if arguments.get("ray") is not None:
        raise UserError(
            f"--engine {_VLLM} spreads over GPUs by itself (--engine-option "
            "tensor_parallel_size=N): leave out --ray"
        )
    from nla_audit.checkpoint.in_vllm import VllmHost  # torch: keeps --help fast
    from nla_audit.nla.vllm_settings import VllmSettings, check_installed

    options = dict(_option(text) for text in arguments["engine_option"])
    settings = VllmSettings(arguments["max_new_tokens"], options)
    check_installed()
    with closing(VllmHost(settings)) as host:
        yield host


def is_compiled(arguments: Mapping[str, Any]) -> bool:
    """Whether our own loop is to run compiled."""
    return bool(arguments["decoding"] == _COMPILED)


def _option(text: str) -> tuple[str, Any]:
    """``"enforce_eager=true"`` as a name and a value, read as YAML."""
    import yaml

    name, _, value = text.partition("=")
    try:
        if name.isidentifier() and value:
            return name, yaml.safe_load(value)
    except yaml.YAMLError:
        pass
    raise UserError(f"--engine-option {text}: expected NAME=VALUE, e.g. tensor_parallel_size=4")
