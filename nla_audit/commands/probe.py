"""The command of a probe with texts, activations and an AR of its own, derived from its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from nla_audit.commands.analyze import help_of, parameter
from nla_audit.commands.pair_options import baseline_parameters, half_parameters
from nla_audit.commands.seed_option import SEED
from nla_audit.findings import Card

_OUT = "Also write a report, its figures and a record of the run into DIR."


def probe_command(
    card: Card,
    run: Callable[..., None],
    further: Sequence[click.Parameter] = (),
    *,
    out: str = _OUT,
    measures_fve: bool = True,
) -> click.Command:
    """``nla-audit <name>``: the options of ``card``, and those of every command that loads a pair.

    Args:
        card: of the probe.
        run: called with all arguments.
        further: parameters that are the command's own, and none of the question's.
        out: help of ``--out``.
        measures_fve: whether it takes the baselines of FVE.
    """
    return click.Command(
        card.name,
        callback=run,
        params=[
            *(parameter(option) for option in card.options),
            *further,
            click.Option(
                ["--seed"],
                type=SEED,
                default=0,
                show_default=True,
                help="Seed of transforms, random orders, controls and intervals.",
            ),
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                help="Print JSON to standard output, and nothing else.",
            ),
            click.Option(
                ["--out"],
                type=click.Path(path_type=Path),
                metavar="DIR",
                help=out,
            ),
            *(baseline_parameters() if measures_fve else ()),
            *half_parameters(),
        ],
        help=help_of(card),
        short_help=card.question,
    )
