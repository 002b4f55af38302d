"""``nla-audit audit``: all analyzers that the table allows, and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from nla_audit.commands.progress import audit_bar
from nla_audit.commands.table_options import read_completions, table_parameters
from nla_audit.report.escape import safe_text

if TYPE_CHECKING:
    from nla_audit.report.audit import AuditResult

#: Explanations from which on a second process draws figures and tries the reading.
_LARGE = 2000


def _run(**arguments: Any) -> None:
    from nla_audit.report.audit import run_audit  # plotting is slow

    progress_console = Console(stderr=True)
    out: Path = arguments["out"]
    completions = read_completions(arguments, progress_console)
    with audit_bar(progress_console) as tell:
        result = run_audit(
            completions,
            out,
            seed=arguments["seed"],
            texts=not arguments["no_texts"],
            title=arguments["title"],
            arguments=arguments,
            progress=tell,
            similarity=arguments["similarity"],
            # A second process starts in about a second, which a small table is not worth.
            draw_aside=completions.rows.height >= _LARGE,
        )
    _print(result, out, Console())


def _print(result: AuditResult, out: Path, console: Console) -> None:
    for finding in result.findings:
        console.print(Text(finding.analyzer, style="bold"))
        console.print(Text(safe_text(finding.verdict)))
        console.print()
    for name, reason in result.left_out.items():
        console.print(Text(f"left out: {name}: {safe_text(reason)}", style="yellow"))
    console.print(Text(f"report: {out / 'report.html'}"), soft_wrap=True)


command = click.Command(
    "audit",
    callback=_run,
    params=[
        *table_parameters(),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            required=True,
            help="Folder for the report: new, empty, or a former report, which is replaced.",
        ),
        click.Option(
            ["--no-texts"],
            is_flag=True,
            help="Keep explanations and sources out of the report (and so no viewer).",
        ),
        click.Option(
            ["--similarity"],
            metavar="MODEL",
            help="Read claims by a sentence-transformers model (name or folder) instead of the "
            "built-in similarity.",
        ),
        click.Option(["--title"], help="Title of the report.  [default: names the table]"),
    ],
    help=(
        "Run every analyzer that the table allows and write a report.\n\n"
        "TABLE is a Parquet, JSONL or CSV file, a folder of such files, or "
        "hf://datasets/owner/name[@revision]/path; several are read as one table. What an "
        "analyzer lacks is said in the report, not guessed.\n\n"
        "\b\nExample:\n  nla-audit audit completions.parquet --out report"
    ),
)
