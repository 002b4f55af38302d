"""``nla-audit dynamics``: RL runs beside each other, from their metrics logs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl


def _run(runs: tuple[Path, ...], out: Path | None, seed: int, as_json: bool) -> None:
    from nla_audit.train.dynamics import (  # keeps --help fast
        at_equal_seconds,
        at_equal_steps,
        plateau,
        read_runs,
    )

    logs = read_runs(runs)
    plateaus = [plateau(log, seed=seed) for log in logs]
    step, by_step = at_equal_steps(logs)
    seconds, by_seconds = at_equal_seconds(logs)
    if out is not None:
        from nla_audit.train.dynamics_plot import plot_runs

        plot_runs(logs, out)
    if as_json:
        answer = {
            "plateaus": [asdict(one) for one in plateaus],
            "equal_steps": {"step": step, "runs": by_step.to_dicts()},
            "equal_seconds": {"seconds": seconds, "runs": by_seconds.to_dicts()},
        }
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2, allow_nan=False))
        return
    console = Console()
    for one in plateaus:
        slope = ""
        if one.slope is not None:
            slope = (
                f" ({one.slope:+.3f} tokens a step over the last {one.steps} steps, "
                f"95 % {one.low:+.3f} to {one.high:+.3f})"
            )
        console.print(Text(f"{one.run}: length {one.verdict}{slope}"), soft_wrap=True)
    _print(console, f"At step {step}, the last that all have measured", by_step)
    _print(console, f"After {seconds:.0f} training seconds, the shortest run's", by_seconds)
    if out is not None:
        console.print(Text(f"figure: {out}"), soft_wrap=True)


def _print(console: Console, title: str, frame: pl.DataFrame) -> None:
    console.print()
    console.print(Text(title, style="bold"))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in frame.columns:
        table.add_column(name.replace("_", " "), justify="left" if name == "run" else "right")
    for row in frame.iter_rows():
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def _cell(value: object) -> Text:
    if value is None:
        return Text("–")
    return Text(f"{value:.3f}" if isinstance(value, float) else str(value))


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
            ["--out"], type=click.Path(path_type=Path, dir_okay=False), help="Draw this figure."
        ),
        click.Option(
            ["--seed"],
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Of the intervals.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON and nothing else."),
    ],
    help=(
        "Compare RL runs by their metrics logs: has the length settled, and how do the runs "
        "compare at equal steps and at equal training time?\n\n"
        "RUN is the folder of one λ, or of a whole course.\n\n"
        "\b\nExample:\n  nla-audit dynamics runs/tiny --out dynamics.svg"
    ),
)
