"""Compare the metrics logs of RL runs: curves, whether length has settled, equal steps or time.

Reads ``metrics.jsonl`` only; no model is loaded and torch is not needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.errors import UserError
from nla_audit.strangers import MEGABYTE, read_bounded, shown
from nla_audit.table.model_names import length_penalty_of

METRICS_FILE = "metrics.jsonl"
#: A step writes about a kilobyte.
_LIMIT = 1024 * MEGABYTE
_ADVICE = "name another run, or resume this one, which writes its log again"
#: The figures that are read here; every record has a step.
_FIGURES = (
    "seconds",
    "content_tokens",
    "fve_raw_variance",
    "fve_mean_normalized",
    "kl",
    "extracted",
    "cjk",
)
_SCHEMA = {"step": pl.Int64, **dict.fromkeys(_FIGURES, pl.Float64)}

#: Share of a run's last steps that a slope is taken over.
TAIL_SHARE = 1 / 3
#: Fewer steps than this give no interval on a slope.
MIN_TAIL_STEPS = 12
#: A length that would change by less than this share of itself over as many steps as the tail
#: has is called settled; the post could only say that its lengths "didn't plateau".
SETTLED_SHARE = 0.05
_RESAMPLES = 2000


@dataclass(frozen=True)
class RunLog:
    """Metrics of one run.

    Attributes:
        name: name of the run's folder (``p0.006``), made unique by folders above it.
        steps: one row a step, in order: ``step`` and the figures that are read here, null where
            there is none.
        held_out: one row a held-out measurement, the same columns.
        path: the log.
    """

    name: str
    steps: pl.DataFrame
    held_out: pl.DataFrame
    path: Path


@dataclass(frozen=True)
class Plateau:
    """Slope of a run's length at its end.

    Attributes:
        run: name.
        steps: steps of the tail the slope is taken over.
        slope: tokens a step, least squares; ``None`` where the tail is too short.
        low: lower end of the 95 % interval.
        high: upper end.
        verdict: in words.
    """

    run: str
    steps: int
    slope: float | None
    low: float | None
    high: float | None
    verdict: str


def read_runs(folders: Sequence[Path]) -> list[RunLog]:
    """The logs in ``folders``; a folder without one is searched for folders that have one.

    Raises:
        UserError: no log found, or one is damaged.
    """
    paths: list[Path] = []
    for folder in folders:
        if (folder / METRICS_FILE).is_file():
            paths.append(folder / METRICS_FILE)
            continue
        found = sorted(filter(_is_rl, folder.rglob(METRICS_FILE)), key=_by_length_penalty)
        if not found:
            raise UserError(f"{folder}: no {METRICS_FILE} of an RL run here or below")
        paths += found
    names = _distinct_names([path.parent for path in paths])
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def _by_length_penalty(path: Path) -> tuple[float, str]:
    penalty = length_penalty_of(path.parent.name)
    return (math.inf if penalty is None else penalty, str(path))


def _is_rl(path: Path) -> bool:
    return path.parent.parent.name == "rl"


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """The folder's name, with those above it where two would be the same."""
    depth = 1
    resolved = [folder.resolve().parts for folder in folders]
    while True:
        names = ["/".join(parts[-depth:]) for parts in resolved]
        if len(set(names)) == len(names) or depth >= max(map(len, resolved)):
            return names
        depth += 1


def _read(path: Path, name: str) -> RunLog:
    """The log ``path``; its records in the order of their steps, each of which it may hold once.

    Raises:
        UserError: it cannot be read, a record is none, or no step is in it.
    """
    rows: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    lines: dict[tuple[bool, int], int] = {}
    # Not by splitlines(): a line of JSON may hold what else ends lines of text.
    for number, line in enumerate(read_bounded(path, _LIMIT, advice=_ADVICE).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = _record(line, where)
        is_held_out = record.get("kind") == "held_out"
        row = _figures(record, where)
        before = lines.setdefault((is_held_out, row["step"]), number)
        if before != number:
            raise UserError(f"{where}: step {row['step']} stands in line {before} too; {_ADVICE}")
        rows[is_held_out].append(row)
    if not rows[False]:
        raise UserError(f"{path}: no step in it yet")
    held_out, steps = (pl.DataFrame(rows[kind], schema=_SCHEMA).sort("step") for kind in rows)
    return RunLog(name, steps, held_out, path)


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # the former for numbers of thousands of digits, too
        raise UserError(f"{where}: not JSON; if the run was killed, resume it first") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object, found {shown(record)}; {_ADVICE}")
    return record


def _figures(record: dict[str, Any], where: str) -> dict[str, Any]:
    step = record.get("step")
    if type(step) is not int or not 0 <= step < 1 << 63:
        raise UserError(f"{where}: step must be a whole number, found {shown(step)}; {_ADVICE}")
    row: dict[str, Any] = {"step": step}
    for name in _FIGURES:
        value = record.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise UserError(f"{where}: {name} must be a number, found {shown(value)}; {_ADVICE}")
        row[name] = None if value is None or not _is_finite(value) else float(value)
    return row


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def plateau(run: RunLog, *, column: str = "content_tokens", seed: int = 0) -> Plateau:
    """Whether the length has settled, from the slope over the last third of the run.

    The interval is from a moving-block bootstrap of the residuals: neighbouring steps share
    weights, so their deviations are not independent.
    """
    lengths = run.steps[column].to_numpy().astype(np.float64)
    tail = lengths[-max(1, round(len(lengths) * TAIL_SHARE)) :]
    tail = tail[np.isfinite(tail)]
    if len(tail) < MIN_TAIL_STEPS:
        reason = f"too short to say: {len(tail)} steps in its last third, {MIN_TAIL_STEPS} needed"
        return Plateau(run.name, len(tail), None, None, None, reason)
    slope, low, high = _slope(tail, seed)
    change = SETTLED_SHARE * max(tail.mean(), 1.0) / len(tail)
    if low > 0 or high < 0:
        verdict = "still falling" if slope < 0 else "still rising"
        if abs(slope) < change:
            verdict = f"settled (the drift is real but below {SETTLED_SHARE:.0%} over the tail)"
    elif max(abs(low), abs(high)) < change:
        verdict = "settled"
    else:
        verdict = "not decided: the interval allows both rest and change"
    return Plateau(run.name, len(tail), slope, low, high, verdict)


def _slope(values: npt.NDArray[np.float64], seed: int) -> tuple[float, float, float]:
    """Least-squares slope and its 95 % interval."""
    count = len(values)
    x = np.arange(count) - (count - 1) / 2
    slope = float(x @ values / (x @ x))
    residuals = values - values.mean() - slope * x
    block = max(2, round(count ** (1 / 2)))
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, count - block + 1, (_RESAMPLES, -(-count // block)))
    places = (starts[:, :, None] + np.arange(block)).reshape(_RESAMPLES, -1)[:, :count]
    noise = residuals[places]
    slopes = slope + (noise - noise.mean(axis=1, keepdims=True)) @ x / (x @ x)
    low, high = np.quantile(slopes, [0.025, 0.975])
    return slope, float(low), float(high)


def at_equal_steps(runs: Sequence[RunLog]) -> tuple[int, pl.DataFrame]:
    """Held-out figures of all runs at the last step that all have measured, and that step.

    Raises:
        UserError: no step was measured by all.
    """
    for run in runs:
        if run.held_out.height == 0:
            raise UserError(f"{run.path}: no held-out measurement in it yet: leave this run out")
    common = set.intersection(*(set(run.held_out["step"].to_list()) for run in runs))
    if not common:
        raise UserError("no step at which all runs were measured on held-out rows")
    step = max(common)
    rows = [_measured(run, pl.col("step") == step) for run in runs]
    return step, pl.DataFrame(rows, infer_schema_length=None)


def at_equal_seconds(runs: Sequence[RunLog]) -> tuple[float, pl.DataFrame]:
    """Each run's last held-out figures within the time that the fastest-finished run took.

    Raises:
        UserError: a run did not log its time.
    """
    for run in runs:
        if run.held_out["seconds"].null_count() == run.held_out.height:
            raise UserError(f"{run.path}: no held-out measurement says its seconds; {_ADVICE}")
    seconds = min(max(run.held_out["seconds"].drop_nulls().to_list()) for run in runs)
    rows = [_measured(run, pl.col("seconds") <= seconds) for run in runs]
    return seconds, pl.DataFrame(rows, infer_schema_length=None)


def _measured(run: RunLog, condition: pl.Expr) -> dict[str, Any]:
    last = next(run.held_out.filter(condition).tail(1).iter_rows(named=True), {})
    wanted = ("step", "seconds", "fve_raw_variance", "fve_mean_normalized", "content_tokens")
    return {"run": run.name, **{name: last.get(name) for name in (*wanted, "extracted")}}
