"""The options of every command that loads a model: precision, device, and trust."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from nla_audit.checkpoint.load import Placement

_DTYPES = ("auto", "float32", "bfloat16", "float16")


def model_parameters() -> list[click.Parameter]:
    """Fresh options that say where weights go and in which precision."""
    return [
        click.Option(
            ["--dtype"],
            type=click.Choice(_DTYPES),
            default="auto",
            show_default=True,
            help="Precision of the weights. auto is as saved; a wide float32 model that is no half "
            "of a pair is run in bfloat16 on a CPU that multiplies in it.",
        ),
        click.Option(
            ["--device"], metavar="NAME", help="e.g. cpu or cuda:1.  [default: a GPU, if any]"
        ),
        click.Option(
            ["--device-map"],
            metavar="NAME",
            help="Spread a large model instead of using one device, e.g. auto.",
        ),
        click.Option(
            ["--load-in-4bit"], is_flag=True, help="Quantise on loading (needs bitsandbytes)."
        ),
        click.Option(
            ["--trust-remote-code"],
            is_flag=True,
            help="Run model code that comes with a checkpoint. Only for people you trust.",
        ),
    ]


def placement(arguments: Mapping[str, Any]) -> Placement:
    """The :class:`~nla_audit.checkpoint.load.Placement` that ``arguments`` ask for."""
    from nla_audit.checkpoint.load import Placement  # torch: keeps --help fast

    return Placement(
        dtype=arguments["dtype"],
        device=arguments["device"],
        device_map=arguments["device_map"],
        load_in_4bit=arguments["load_in_4bit"],
        trust_remote_code=arguments["trust_remote_code"],
    )
