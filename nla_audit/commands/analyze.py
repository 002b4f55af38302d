"""One command per analyzer, derived whole from its card."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

import click
from rich.console import Console

from nla_audit.commands.table_options import (
    chosen,
    own_arguments,
    read_completions,
    table_parameters,
)
from nla_audit.findings import Card, Option
from nla_audit.wording import count

#: Columns of a line of help; a narrower terminal breaks it anywhere.
_HELP_WIDTH = 78


def command_for(card: Card) -> click.Command:
    """``nla-audit <name> TABLE...``: run one analyzer and print its finding."""

    def run(**arguments: Any) -> None:
        _run(card, arguments)

    return click.Command(
        card.name,
        callback=run,
        params=[
            *table_parameters(),
            *(parameter(option) for option in card.options),
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                help="Print the finding as JSON to standard output, and nothing else.",
            ),
            click.Option(
                ["--out"],
                type=click.Path(path_type=Path),
                metavar="DIR",
                help="Also write the finding, its figures and a record of the run into DIR.",
            ),
        ],
        help=help_of(card),
        short_help=card.question,
    )


def _run(card: Card, arguments: dict[str, Any]) -> None:
    progress = Console(stderr=True)
    other = None
    if card.door is not None:
        with progress.status("reading the table"):
            other = card.door(arguments["tables"], **chosen(arguments))
    table = read_completions(arguments, progress) if other is None else other
    own = own_arguments(arguments)
    as_json, out, seed = own.pop("as_json"), own.pop("out"), own.pop("seed")
    with progress.status(f"{card.name}: {count(table.rows.height, 'row')}"):
        finding = card.answer(table, seed=seed, **own)
        if out is not None:
            from nla_audit.report.single import write_finding  # plotting is slow

            files = write_finding(finding, table, out, seed=seed, arguments=arguments)
    if as_json:
        click.echo(finding.to_json())
    else:
        from nla_audit.report.terminal import print_finding

        print_finding(finding, Console())
    if out is not None:
        progress.print(
            f"wrote {count(len(files), 'file')} into {out}", markup=False, highlight=False
        )


def parameter(option: Option) -> click.Option:
    """``option`` as the command line takes it."""
    flag = option.flag or "--" + option.name.replace("_", "-")
    if option.kind is bool:
        return click.Option(
            [f"{flag}/--no-{flag[2:]}", option.name],
            default=option.default,
            show_default=True,
            help=option.help,
        )
    return click.Option(
        [flag, option.name],
        type=_type(option),
        default=option.default,
        multiple=option.multiple,
        metavar=option.metavar,
        show_default=option.default not in (None, (), []),
        help=option.help,
    )


def _type(option: Option) -> Any:
    """What click makes of the text that is given."""
    if option.choices:
        return click.Choice(option.choices)
    if isinstance(option.kind, tuple):
        return tuple(_of(kind, option.least) for kind in option.kind)
    return _of(option.kind, option.least)


def _of(kind: type, least: int | None) -> Any:
    if kind is Path:
        return click.Path(path_type=Path)
    if least is not None:
        return click.IntRange(min=least) if kind is int else click.FloatRange(min=least)
    return kind


def _numbers(card: Card) -> str:
    """What each number of the headline is, a line or two each, as click must not refill them."""
    lines = []
    for metric in card.metrics:
        text = f"{metric.name}: {metric.meaning} ({metric.described()})"
        lines += wrap(text, _HELP_WIDTH, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(["\b", "Numbers:", *lines]) if lines else ""


def help_of(card: Card) -> str:
    """The card in paragraphs; ``\\b`` keeps click from refilling the example."""
    uses = "; ".join(f"{column} (without it: {lost})" for column, lost in card.uses.items())
    paragraphs = [
        card.question,
        f"Columns read: {', '.join(card.reads)}.",
        f"Better with: {uses}." if uses else "",
        f"Unit: {card.unit}.",
        f"Control: {card.control}.",
        f"What a high value means: {card.high_means}.",
        _numbers(card),
        "\n".join(["\b", "Example:", *(f"  {line}" for line in card.example.splitlines())]),
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
