"""``nla-audit report``: pages and figures of a report again, from its JSON."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text


def _run(findings: Path, out: Path | None) -> None:
    from nla_audit.files import write_into  # keeps --help fast
    from nla_audit.report.stored import read_report  # plotting is slow
    from nla_audit.report.writing import rendered

    console = Console(stderr=True)
    with console.status("reading the findings"):
        report = read_report(findings)
    with console.status("drawing"):
        folder = findings.parent if out is None else out
        write_into(folder, rendered(report))
    console.print(Text(f"report: {folder / report.page}.html"), soft_wrap=True)


command = click.Command(
    "report",
    callback=_run,
    params=[
        click.Argument(
            ["findings"], metavar="FINDINGS", type=click.Path(path_type=Path, dir_okay=False)
        ),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Folder to write; other files in it stay.  [default: that of FINDINGS]",
        ),
    ],
    help=(
        "Render a report again: HTML, Markdown and figures.\n\n"
        "FINDINGS is findings.json of an audit, or the JSON that an analyzer or a probe wrote with "
        "--out. It holds all that the report draws, and with the same versions of this package and "
        "of matplotlib the same bytes come out.\n\n"
        "\b\nExample:\n  nla-audit report report/findings.json --out again"
    ),
)
