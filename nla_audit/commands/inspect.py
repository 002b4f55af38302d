"""``nla-audit inspect``: what a checkpoint is, and what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from nla_audit.checkpoint.inspection import Inspection

#: Exit code where something cannot be right, so that scripts can tell.
_UNSOUND = 1


def _run(path: str, *, as_json: bool, **options: Any) -> int:
    from nla_audit.checkpoint.backbone import Placement  # torch: keeps --help fast
    from nla_audit.checkpoint.inspection import inspect

    with Console(stderr=True).status("reading the checkpoint"):
        found = inspect(
            path,
            base=options["base"],
            sidecar=options["sidecar"],
            placement=Placement(trust_remote_code=options["trust_remote_code"]),
        )
    if as_json:
        click.echo(json.dumps([_plain(each) for each in found], indent=2, ensure_ascii=False))
    else:
        for each in found:
            _print(each, Console())
    return _UNSOUND if any(each.problems for each in found) else 0


def _plain(found: Inspection) -> dict[str, Any]:
    return {**asdict(found), "path": str(found.path)}


def _print(found: Inspection, console: Console) -> None:
    from nla_audit.report.escape import safe_text

    console.print(Text(safe_text(str(found.path)), style="bold"), soft_wrap=True)
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in found.facts.items():
        table.add_row(label, Text(safe_text(value)))
    console.print(table)
    for problem in found.problems:
        console.print(Text(f"wrong: {safe_text(problem)}", style="red"), soft_wrap=True)
    for oddity in found.oddities:
        console.print(Text(f"note: {safe_text(oddity)}", style="yellow"), soft_wrap=True)
    if not found.problems:
        console.print(Text("nothing wrong found", style="green"))
    console.print()


command = click.Command(
    "inspect",
    callback=_run,
    params=[
        click.Argument(["path"], metavar="PATH"),
        click.Option(
            ["--base"], metavar="MODEL", help="Model that an adapter sits on.  [default: found]"
        ),
        click.Option(
            ["--sidecar"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="nla_meta.yaml to use.  [default: the nearest]",
        ),
        click.Option(
            ["--trust-remote-code"],
            is_flag=True,
            help="Run tokenizer and config code that comes with the checkpoint.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, and nothing else."),
    ],
    help=(
        "Say what a checkpoint of an NLA is: format, role, base, layer, injection, prompts, "
        "scales, whether the AR was trained in RL, and the health of its weights.\n\n"
        "PATH is a folder with a checkpoint or several in it, or "
        "owner/name[@revision][/subfolder] on the Hub. No weights are kept in memory, so that "
        "any size can be inspected anywhere. Exit code 1 where loading would refuse it.\n\n"
        "\b\nExample:\n  nla-audit inspect kitft/nla-qwen2.5-7b-L20-ar"
    ),
)
