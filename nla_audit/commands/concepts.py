"""``nla-audit concepts``: the contrast sets that ship, and what confounds a set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from nla_audit.concepts.confounding import Confounding
    from nla_audit.concepts.contrast_sets import ContrastSet


def _run(name_or_path: str | None, *, as_json: bool, pairs: bool) -> None:
    from nla_audit.concepts.contrast_sets import (  # keeps --help fast
        contrast_set_names,
        load_contrast_set,
    )

    if name_or_path is None:
        _print_all({name: load_contrast_set(name) for name in contrast_set_names()}, as_json)
        return
    from nla_audit.concepts.confounding import confounding  # sklearn is slow

    found = load_contrast_set(name_or_path)
    measured = confounding(found)
    if as_json:
        click.echo(json.dumps(_plain(found, measured), indent=2, ensure_ascii=False))
    else:
        _print_one(found, measured, pairs)


def _plain(found: ContrastSet, measured: Confounding) -> dict[str, Any]:
    return {
        **found.model_dump(),
        "length_ratio": measured.length_ratio,
        **measured.length.entries("auc_of_length"),
        **measured.word_counts.entries("auc_of_word_counts"),
    }


def _print_all(found: dict[str, ContrastSet], as_json: bool) -> None:
    if as_json:
        cards = {name: each.model_dump(exclude={"pairs"}) for name, each in found.items()}
        click.echo(json.dumps(cards, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("set", "pairs", "what it is"):
        table.add_column(heading, overflow="fold")
    for name, each in found.items():
        table.add_row(name, str(len(each.pairs)), each.what)
    Console().print(table)


def _print_one(found: ContrastSet, measured: Confounding, pairs: bool) -> None:
    from nla_audit.report.escape import safe_text

    facts = {
        "what": found.what,
        "made": found.made,
        "confounds": found.confounds,
        "named by": ", ".join(found.words),
        "pairs": str(len(found.pairs)),
        "length": f"{measured.length_ratio:.2f} times that without it, in characters",
        "told apart by": f"length alone: AUC {measured.length}; "
        f"word counts alone: AUC {measured.word_counts} (held-out pairs; chance 0.5)",
    }
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in facts.items():
        table.add_row(label, Text(safe_text(value)))
    console = Console()
    console.print(Text(safe_text(found.name), style="bold"))
    console.print(table)
    if pairs:
        for number, sides in enumerate(found.pairs, start=1):
            for sign, text in zip("+−", sides, strict=True):
                line = f"{number:>3} {sign} {safe_text(text, newlines=True)}"
                console.print(Text(line), soft_wrap=True)


command = click.Command(
    "concepts",
    callback=_run,
    params=[
        click.Argument(["name_or_path"], metavar="[SET]", required=False),
        click.Option(["--pairs"], is_flag=True, help="Print the texts of SET too."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, and nothing else."),
    ],
    help=(
        "List the contrast sets that ship, or say what is in one and what confounds it.\n\n"
        "A contrast set is a concept in pairs of texts: one with it, and one that is matched in "
        "topic, register and length without it. SET is a name from the list, or a YAML file of "
        "your own with the keys name, what, made, confounds, words, pairs. What a classifier makes "
        "of length alone, and of word counts alone, on pairs that it was not trained on, says how "
        "far the sides differ on the surface.\n\n"
        "\b\nExample:\n  nla-audit concepts evaluation-awareness --pairs"
    ),
)
