"""The arguments of every command that reads completions, and the reading itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from nla_audit.commands.seed_option import SEED
from nla_audit.unicode_form import composed

if TYPE_CHECKING:
    from rich.console import Console

    from nla_audit.table.completions import Completions


def table_parameters() -> list[click.Parameter]:
    """Fresh parameters: the tables, and how they are to be read."""
    return [
        click.Argument(["tables"], metavar="TABLE...", nargs=-1, required=True),
        click.Option(
            ["--reference"],
            metavar="MODEL",
            help="Model that differences are taken against.  [default: RL with the smallest λ]",
        ),
        click.Option(
            ["--ar"], metavar="NAME", help="Ruler to keep, where the table holds several."
        ),
        click.Option(
            ["--overhead-tokens"],
            type=click.FloatRange(min=0),
            metavar="N",
            help="Fixed tokens per explanation (tags, end token).  [default: from the table]",
        ),
        click.Option(
            ["--models"],
            metavar="A,B",
            help="Compare these models only; a name that holds a comma in double quotes.  "
            "[default: all]",
        ),
        click.Option(
            ["--at-most-activations"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Read all rows of N activations only, drawn by --seed, of Parquet tables.  "
            "[default: as many as half of the free memory holds]",
        ),
        click.Option(
            ["--seed"],
            type=SEED,
            default=0,
            show_default=True,
            help="Seed of intervals and samples.",
        ),
    ]


#: Names taken by :func:`table_parameters`; the rest of a command's arguments are its own.
_READING = ("tables", "reference", "ar", "overhead_tokens", "models", "at_most_activations")


def read_completions(arguments: Mapping[str, Any], console: Console) -> Completions:
    """Load the tables named in ``arguments``, with a spinner on ``console``.

    Raises:
        UserError: as :func:`nla_audit.table.completions.load`.
    """
    from nla_audit.table.completions import load  # keeps --help fast

    with console.status("reading the table"):
        return load(
            arguments["tables"],
            overhead_tokens=arguments["overhead_tokens"],
            at_most_activations=arguments["at_most_activations"],
            seed=arguments["seed"],
            **chosen(arguments),
        )


def chosen(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What of a table is wanted: ``reference``, ``ar`` and ``models``, as a reader takes them."""
    from nla_audit.table.door import named_models  # keeps --help fast

    names = named_models(arguments["models"] or "", "--models")
    return {
        "reference": _as_in_tables(arguments["reference"]),
        "ar": _as_in_tables(arguments["ar"]),
        "models": [composed(name.strip()) for name in names if name.strip()],
    }


def _as_in_tables(name: str | None) -> str | None:
    return None if name is None else composed(name.strip())


def own_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` without those that say how to read the table."""
    return {name: value for name, value in arguments.items() if name not in _READING}
