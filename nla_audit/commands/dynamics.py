"""``nla-audit dynamics``: RL runs beside each other, from their metrics logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from nla_audit.commands.seed_option import SEED
from nla_audit.errors import UserError

if TYPE_CHECKING:
    from nla_audit.findings import Finding
    from nla_audit.train.dynamics import RunLog

_PICTURES = (".svg", ".png", ".pdf")


def _run(runs: tuple[Path, ...], out: Path | None, seed: int, as_json: bool) -> None:
    from nla_audit.train.dynamics import read_runs  # keeps --help fast
    from nla_audit.train.dynamics_finding import dynamics

    if out is not None and out.suffix.lower() in _PICTURES:
        raise UserError(f"--out {out}: name a folder; the figures lie in its folder figures")
    logs = read_runs(runs)
    finding = dynamics(logs, seed=seed)
    if as_json:
        click.echo(finding.to_json())
    else:
        from nla_audit.report.terminal import print_finding

        print_finding(finding, Console())
    if out is not None:
        _write(finding, logs, runs, out)
        Console(stderr=True).print(Text(f"report: {out / 'dynamics.html'}"), soft_wrap=True)


def _write(finding: Finding, logs: Sequence[RunLog], runs: tuple[Path, ...], out: Path) -> None:
    from nla_audit.files import sha256_of
    from nla_audit.record import ANALYSIS, run_record
    from nla_audit.report.single import by_penalty, write_probe  # plotting is slow

    sources = [
        {"path": str(log.path), "rows": log.steps.height, "sha256": sha256_of(log.path)}
        for log in logs
    ]
    write_probe(
        finding,
        out,
        record={**run_record("dynamics", {"runs": runs}, ANALYSIS), "tables": sources},
        what={"Runs": ", ".join(f"{log.name} ({log.steps.height:,} steps)" for log in logs)},
        length_penalties=by_penalty(log.name for log in logs),
    )


command = click.Command(
    "dynamics",
    callback=_run,
    params=[
        click.Argument(
            ["runs"],
            metavar="RUN...",
            nargs=-1,
            required=True,
            type=click.Path(path_type=Path, exists=True, file_okay=False),
        ),
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Also write a report, its figures and a record of the run into DIR.",
        ),
        click.Option(["--seed"], type=SEED, default=0, show_default=True, help="Of the intervals."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON and nothing else."),
    ],
    help=(
        "Compare RL runs by their metrics logs: has the length settled, and how do the runs "
        "compare at equal steps and at equal training time?\n\n"
        "RUN is the folder of one λ, or of a whole course.\n\n"
        "\b\nExample:\n  nla-audit dynamics runs/tiny --out dynamics"
    ),
)
