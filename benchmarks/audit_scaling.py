"""How long an audit takes and how much memory it needs: real, 100,000 and 1,000,000 rows.

Runs ``run_audit``, the whole of ``nla-audit audit``, on each table in a process of its own, and
writes what each step took, in processor time, to ``audit_scaling.md``. Exits with code 1 when a
limit does not hold.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import click
from rich.console import Console
from rich.markdown import Markdown

ROOT = Path(__file__).parents[1]
REAL_SWEEP = ROOT.parent / "shared" / "data" / "qwen3_8b_length_sweep.parquet"
#: Limits that the package promises, on two cores.
REAL_SECONDS = 20.0
PEAK_GIGABYTES = 4.0
HELP_SECONDS = 0.5
#: Ten times the rows may take this many times as long; above it growth is not linear.
LINEAR = 13.0
_HELP_RUNS = 5
_READING = "reading the table"


@dataclass(frozen=True)
class Step:
    """One step of an audit: what it took, and the peak memory of the process by its end."""

    name: str
    seconds: float
    peak_gigabytes: float


@dataclass(frozen=True)
class Measurement:
    """All steps of an audit of one table."""

    table: str
    rows: int
    steps: tuple[Step, ...]

    @property
    def seconds(self) -> float:
        """Of reading the table, all analyzers and the report."""
        return sum(step.seconds for step in self.steps)

    @property
    def peak_gigabytes(self) -> float:
        """Most memory held at any time."""
        return max(step.peak_gigabytes for step in self.steps)

    def of(self, name: str) -> float | None:
        """Seconds of one step."""
        return next((step.seconds for step in self.steps if step.name == name), None)


def _peak_gigabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def _plant(path: str, rows: int) -> None:
    from nla_audit.world.sweep.planted import DEFAULT_MODELS, plant_to_parquet

    activations = rows // len(DEFAULT_MODELS)
    plant_to_parquet(path, DEFAULT_MODELS, activations=activations, seed=0, reference="p0.0")


def _audit(path: str, out: str, connection: Connection) -> None:
    """Audit ``path``; send ``(step, seconds, peak)`` as each step ends, then the rows."""
    from nla_audit.report.audit import run_audit
    from nla_audit.table.completions import load  # imports count as reading

    began, current = time.process_time(), _READING

    def tell(step: str, number: int, total: int) -> None:
        nonlocal began, current
        now = time.process_time()
        connection.send((current, now - began, _peak_gigabytes()))
        began, current = now, step

    completions = load(path)
    run_audit(completions, Path(out), seed=0, progress=tell)
    connection.send(completions.rows.height)


def measure(table: str, path: Path, folder: Path, console: Console) -> Measurement:
    """Audit ``path`` in a fresh process, whose memory is its own."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_audit, args=(str(path), str(folder / f"{path.stem}-report"), sender)
    )
    process.start()
    sender.close()
    steps: list[Step] = []
    with console.status(f"{table}: {_READING}") as status:
        while not isinstance(message := receiver.recv(), int):
            steps.append(Step(*message))
            status.update(f"{table}: {steps[-1].name} took {steps[-1].seconds:.1f} s")
    process.join()
    return Measurement(table, message, tuple(steps))


def help_seconds() -> float:
    """Processor time of ``nla-audit --help``, the best of several runs."""
    times = []
    for _ in range(_HELP_RUNS):
        began = _of_children()
        subprocess.run(
            [sys.executable, "-m", "nla_audit.cli", "--help"], capture_output=True, check=True
        )
        times.append(_of_children() - began)
    return min(times)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def limits(measurements: list[Measurement], start: float) -> list[tuple[str, bool]]:
    """What must hold, as sentences with the number, and whether it does."""
    sentence = f"`nla-audit --help` takes {start:.2f} s (limit {HELP_SECONDS} s)"
    results = [(sentence, start <= HELP_SECONDS)]
    for one in measurements:
        if one.table == REAL_SWEEP.name:
            sentence = f"The real sweep takes {one.seconds:.1f} s (limit {REAL_SECONDS:.0f} s)"
            results.append((sentence, one.seconds <= REAL_SECONDS))
        sentence = (
            f"{one.rows:,} rows need {one.peak_gigabytes:.1f} GB (limit {PEAK_GIGABYTES:.0f} GB)"
        )
        results.append((sentence, one.peak_gigabytes <= PEAK_GIGABYTES))
    planted = [one for one in measurements if one.table != REAL_SWEEP.name]
    for small, large in pairwise(planted):
        more_rows, longer = large.rows / small.rows, large.seconds / small.seconds
        sentence = f"{more_rows:.0f} times the rows take {longer:.1f} times as long"
        results.append((sentence, longer <= LINEAR / 10 * more_rows))
    return results


def to_markdown(
    measurements: list[Measurement], results: list[tuple[str, bool]], left_out: list[str]
) -> str:
    """The table that is committed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = list(dict.fromkeys(step.name for one in measurements for step in one.steps))
    planted = [one for one in measurements if one.table != REAL_SWEEP.name]
    header = ["step", *(f"{one.table}, {one.rows:,} rows: s" for one in measurements)]
    if len(planted) >= 2:
        header.append(f"growth from {planted[0].rows:,} to {planted[-1].rows:,} rows")
    rows = [_row(name, [one.of(name) for one in measurements], planted) for name in names]
    rows.append(_row("**all**", [one.seconds for one in measurements], planted))
    peaks = ["peak memory", *(f"{one.peak_gigabytes:.2f} GB" for one in measurements)]
    rows.append([*peaks, *[""] * (len(header) - len(peaks))])
    lines = [
        "# Time and memory of an audit",
        "",
        "Written by `make bench`. One process per table; seconds of processor time, which another "
        "load on the machine changes less than the clock's. The first analyzer "
        "that aligns explanations does it for all, so drop-analysis pays for rewording too. "
        "“growth” is how many times as long a step takes on the larger planted table.",
        "",
        "| " + " | ".join(header) + " |",
        "| --- " + "| --: " * (len(header) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"- {sentence}: {_holds(holds)}." for sentence, holds in results),
        *(f"- {reason}" for reason in left_out),
        "",
        f"{cores} cores, Python {platform.python_version()}, polars {version('polars')}, "
        f"numpy {version('numpy')}.",
    ]
    return "\n".join(lines) + "\n"


def _holds(holds: bool) -> str:
    return "holds" if holds else "**does not hold**"


def _row(name: str, seconds: list[float | None], planted: list[Measurement]) -> list[str]:
    cells = [name, *("–" if value is None else f"{value:.1f}" for value in seconds)]
    if len(planted) >= 2:
        first, last = seconds[-len(planted)], seconds[-1]
        # Below a tenth of a second a ratio is noise.
        is_known = first is not None and last is not None and first >= 0.1
        cells.append(f"× {last / first:.1f}" if is_known and first and last else "–")
    return cells


@click.command()
@click.option(
    "--rows",
    type=click.IntRange(min=1000),
    multiple=True,
    default=(100_000, 1_000_000),
    show_default=True,
    help="Rows of a planted table, smallest first; repeatable.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=ROOT / "benchmarks" / "audit_scaling.md",
    help="Where to write the table.",
)
def main(rows: tuple[int, ...], out: Path) -> None:
    """Measure the audit, write the table, and fail when a limit does not hold."""
    console = Console(stderr=True)
    measurements: list[Measurement] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if REAL_SWEEP.is_file():
            measurements.append(measure(REAL_SWEEP.name, REAL_SWEEP, folder, console))
        else:
            left_out.append("The real sweep was left out: it is not beside the repository.")
        for count in rows:
            path = folder / f"planted-{count}.parquet"
            # In its own process: what a parent held counts into the peak of its children.
            process = get_context("spawn").Process(target=_plant, args=(str(path), count))
            process.start()
            process.join()
            measurements.append(measure("planted", path, folder, console))
    results = limits(measurements, help_seconds())
    text = to_markdown(measurements, results, left_out)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(out)
    Console().print(Markdown(text))
    sys.exit(0 if all(holds for _, holds in results) else 1)


if __name__ == "__main__":
    main()
