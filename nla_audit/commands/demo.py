"""``nla-audit demo``: audit a sweep whose truth is known, and show the truth beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nla_audit.commands.progress import audit_bar
from nla_audit.commands.seed_option import SEED
from nla_audit.files import write_text, writing
from nla_audit.findings import Finding
from nla_audit.record import ANALYSIS, run_record
from nla_audit.report.audit import AuditResult, run_audit
from nla_audit.report.colours import ModelColours
from nla_audit.report.escape import markdown_text, safe_text
from nla_audit.report.figures import render_figures
from nla_audit.report.folder import RECORD, WRITTEN_BY, replaced_folder
from nla_audit.report.tables import DisplayTable, frame_table, headline_table
from nla_audit.report.terminal import print_finding
from nla_audit.table.completions import Completions, load
from nla_audit.world.sweep.demo import demo_sweep, truth_beside_estimate
from nla_audit.world.sweep.planted import DEFAULT_MODELS, PlantedSweep

_COMPLETIONS = "completions.parquet"
_REPORT = "report"


def _run(*, out: Path, activations: int, seed: int) -> None:
    progress = Console(stderr=True)
    with replaced_folder(out) as folder:
        with progress.status(f"planting a sweep of {activations:,} activations"):
            sweep = demo_sweep(activations, seed)
            completions = _written(sweep, folder)
        with audit_bar(progress) as tell:
            result = run_audit(
                completions,
                folder / _REPORT,
                seed=seed,
                title="Audit of a planted sweep",
                arguments={"activations": activations, "seed": seed},
                progress=tell,
            )
        truth = truth_beside_estimate(sweep, result.findings)
        with writing(out):
            _write_truth(truth, completions, folder)
            _write_record(folder, activations, seed)
    _print(truth, result, out, Console())


def _written(sweep: PlantedSweep, folder: Path) -> Completions:
    """Write the sweep, and read its completions back as a user's table would be read."""
    with writing(folder):
        sweep.completions.write_parquet(folder / _COMPLETIONS)
        sweep.truth.write_parquet(folder / "planted_claims.parquet")
    completions = load(folder / _COMPLETIONS, reference=sweep.reference)
    # The folder still has a temporary name; the report names the file as it will be found.
    source = replace(completions.sources[0], path=_COMPLETIONS)
    return replace(completions, sources=(source,))


def _write_truth(truth: Finding, completions: Completions, folder: Path) -> None:
    colours = ModelColours.of(completions.models, completions.length_penalties)
    lines = ["# Truth beside estimate", "", markdown_text(truth.verdict), ""]
    lines += _markdown_table(headline_table(truth))
    for figure in render_figures(truth, colours):
        write_text(folder / f"{figure.name}.svg", figure.svg)
        (folder / f"{figure.name}.png").write_bytes(figure.png)
        lines += [f"![{markdown_text(figure.figure.title)}]({figure.name}.png)", ""]
    lines += _markdown_table(frame_table(truth.tables["rates"]))
    lines += [f"- {markdown_text(caveat)}" for caveat in truth.caveats]
    lines += ["", f"The audit of this sweep: [{_REPORT}]({_REPORT}/report.md)."]
    write_text(folder / "truth.md", "\n".join(lines) + "\n")
    write_text(folder / "truth.json", truth.to_json() + "\n")


def _markdown_table(table: DisplayTable) -> list[str]:
    rows = [
        [markdown_text(column.label) for column in table.columns],
        ["--:" if column.numeric else "---" for column in table.columns],
        *([markdown_text(cell.line) for cell in row] for row in table.rows),
    ]
    return [*("| " + " | ".join(row) + " |" for row in rows), ""]


def _write_record(folder: Path, activations: int, seed: int) -> None:
    """The record by which a next run knows this folder as one of ours, and can repeat it."""
    files = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    record = {
        **run_record("demo", {"activations": activations, "seed": seed}, ANALYSIS),
        "written_by": WRITTEN_BY,
        "files": [RECORD, *files],
        "planted_models": [asdict(model) for model in DEFAULT_MODELS],
    }
    write_text(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


def _print(truth: Finding, result: AuditResult, out: Path, console: Console) -> None:
    print_finding(replace(truth, tables={}), console)
    console.print(_rates(truth))
    for finding in result.findings:
        console.print()
        console.print(Text(finding.analyzer, style="bold"))
        console.print(Text(safe_text(finding.verdict)))
    for name, reason in result.left_out.items():
        console.print(Text(f"left out: {name}: {safe_text(reason)}", style="yellow"))
    console.print()
    for name, path in (
        ("truth beside estimate", out / "truth.md"),
        ("completions", out / _COMPLETIONS),
        ("report", out / _REPORT / "report.html"),
    ):
        console.print(Text(f"{name}: {path}"), soft_wrap=True)


def _rates(truth: Finding) -> Table:
    """Truth and estimate of every rate, model by model."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("model", "rate"):
        table.add_column(name)
    for name in ("truth", "estimate", "covered"):
        table.add_column(name, justify="right")
    rates = truth.tables["rates"]
    shown = frame_table(rates.select("truth", "estimate", "estimate_low", "estimate_high"))
    former = None
    for row, (known, estimate) in zip(rates.iter_rows(named=True), shown.rows, strict=True):
        if former not in (None, row["model"]):
            table.add_section()
        table.add_row(
            row["model"] if row["model"] != former else "",
            row["quantity"],
            known.line,
            estimate.line,
            _covered(row["covered"]),
        )
        former = row["model"]
    return table


def _covered(covered: bool | None) -> Text:
    if covered is None:
        return Text("–")
    return Text("yes") if covered else Text("no", style="yellow")


command = click.Command(
    "demo",
    callback=_run,
    params=[
        click.Option(
            ["--out"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            required=True,
            help="Folder to write: new, empty, or a former demo, which is replaced.",
        ),
        click.Option(
            ["--activations"],
            type=click.IntRange(min=1),
            default=400,
            show_default=True,
            help="Activations to plant.",
        ),
        click.Option(
            ["--seed"],
            type=SEED,
            default=0,
            show_default=True,
            help="Seed of the sweep, and of intervals and samples.",
        ),
    ],
    help=(
        "Plant a length-penalty sweep whose truth is known, audit it, and show the truth beside "
        "the estimate.\n\n"
        "Writes the completions as Parquet, the truth and how close each estimate comes to it, "
        "and the same report that `nla-audit audit` writes. Needs no model and no data.\n\n"
        "\b\nExample:\n  nla-audit demo --out demo-report"
    ),
)
