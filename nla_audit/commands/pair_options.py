"""The options of every command that loads a pair, and the baselines it scores against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nla_audit.commands.model_options import model_parameters, placement
from nla_audit.errors import UserError

if TYPE_CHECKING:
    from nla_audit.runs.remote import AnyReconstructor, Pool

#: As in :data:`nla_audit.nla.fve.BASELINE_NAMES`, which takes numpy to import.
_BASELINES = ("raw_variance", "mean_normalized")
#: Units of prefixes that can be asked for.
_UNITS = ("tokens", "claims", "segments")


def prefixes_parameter() -> click.Option:
    """A fresh option that asks for FVE by prefix."""
    return click.Option(
        ["--prefixes"],
        metavar="UNITS",
        help="Also write FVE by prefix into OUT.prefix_fve.parquet, for `nla-audit multiscale`: "
        "the first tokens, claims or segments of each explanation, as tokens,claims.",
    )


def units(text: str | None) -> tuple[str, ...]:
    """``"tokens,claims"`` as units, each once and in a fixed order.

    Raises:
        UserError: an unknown one.
    """
    asked = [part.strip() for part in (text or "").split(",") if part.strip()]
    for part in asked:
        if part not in _UNITS:
            raise UserError(f"--prefixes {text}: expected {', '.join(_UNITS)}, with commas")
    return tuple(unit for unit in _UNITS if unit in asked)


def half_parameters() -> list[click.Parameter]:
    """Fresh options that help to load a checkpoint."""
    return [
        click.Option(
            ["--base"],
            metavar="MODEL",
            help="Model that adapters sit on: a folder or owner/name.  [default: found]",
        ),
        click.Option(
            ["--sidecar"],
            type=click.Path(),
            metavar="FILE",
            help="nla_meta.yaml to use.  [default: the nearest]",
        ),
        click.Option(
            ["--force"], is_flag=True, help="Go on where a check says that it cannot be right."
        ),
        *model_parameters(),
    ]


def load_ar(
    path: str | Path, arguments: Mapping[str, Any], pool: Pool | None, notice: Callable[[str], None]
) -> AnyReconstructor:
    """The AR at ``path``, loaded as :func:`half_parameters` among ``arguments`` ask.

    Raises:
        UserError: as :func:`nla_audit.runs.remote.load_reconstructor`.
    """
    from nla_audit.runs.remote import load_reconstructor  # torch: keeps --help fast

    return load_reconstructor(
        pool,
        ar=path,
        base=arguments["base"],
        sidecar=arguments["sidecar"],
        placement=placement(arguments),
        force=arguments["force"],
        notice=notice,
    )


def baseline_parameters() -> list[click.Parameter]:
    """Fresh options that say which baseline FVE is measured against."""
    return [
        click.Option(
            ["--baseline"],
            type=click.Choice(_BASELINES),
            default=_BASELINES[0],
            show_default=True,
            help="Baseline of column fve; the other one is in a column of its own.",
        ),
        click.Option(
            ["--baseline-value"],
            metavar="NAME=VALUE",
            multiple=True,
            help="Use this value instead of measuring it on the activations.",
        ),
    ]


def given_baselines(texts: tuple[str, ...]) -> dict[Any, float]:
    """``("raw_variance=0.73",)`` as a mapping.

    Raises:
        UserError: an unknown name, one given twice, or no positive number.
    """
    given: dict[Any, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = None
        if name not in _BASELINES or number is None:
            raise UserError(
                f"--baseline-value {text}: expected {' or '.join(_BASELINES)}, = and a number"
            )
        if not 0 < number < math.inf:
            raise UserError(f"--baseline-value {text}: must be a positive number")
        if name in given:
            raise UserError(f"--baseline-value {text}: {name} is given twice: name it once")
        given[name] = number
    return given
