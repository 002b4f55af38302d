"""RL runs beside each other as a finding: what the report of ``nla-audit dynamics`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import polars as pl

from nla_audit.findings import Figure, Finding, Method, Metric
from nla_audit.train.dynamics import (
    SETTLED_SHARE,
    RunLog,
    at_equal_seconds,
    at_equal_steps,
    plateau,
)

QUESTION = "Have the lengths of these runs settled, and which is ahead at equal steps and time?"
METRICS = (
    Metric("slope", "tokens a step", "neither", "slope of the length over the last third"),
    Metric("tail_steps", "count", "neither", "steps of that third", interval=False),
)
_METHOD = Method(
    unit="step of a run; neighbouring steps share weights, so intervals resample blocks of them",
    control="the other runs, at the last step that all have measured and after equal training time",
    high_means="slope above 0: explanations still grow longer",
)
#: (table, x, y, what x is, what y is) of each figure.
_CURVES = (
    ("held_out", "step", "fve_raw_variance", "step", "held-out FVE (raw variance)"),
    ("steps", "step", "content_tokens", "step", "content tokens"),
    ("held_out", "seconds", "fve_raw_variance", "training seconds", "held-out FVE (raw variance)"),
    ("steps", "step", "kl", "step", "KL to warm start (nats a token)"),
    ("steps", "step", "extracted", "step", "share extracted"),
    ("steps", "step", "cjk", "step", "share of CJK"),
)


def dynamics(logs: Sequence[RunLog], *, seed: int = 0) -> Finding:
    """Plateaus, both comparisons and the curves of ``logs``.

    Raises:
        UserError: no step was measured by all.
    """
    plateaus = [plateau(log, seed=seed) for log in logs]
    step, by_step = at_equal_steps(logs)
    seconds, by_seconds = at_equal_seconds(logs)
    tables = {
        "plateaus": pl.DataFrame([asdict(one) for one in plateaus], infer_schema_length=None),
        "equal_steps": by_step,
        "equal_seconds": by_seconds,
        **{name: _curves(logs, name) for name in ("steps", "held_out")},
    }
    return Finding(
        analyzer="dynamics",
        question=QUESTION,
        reference=None,
        headline={
            one.run: {
                "slope": one.slope,
                "slope_low": one.low,
                "slope_high": one.high,
                "tail_steps": float(one.steps),
            }
            for one in plateaus
        },
        verdict=" ".join(f"{one.run}: length {one.verdict}." for one in plateaus),
        caveats=[
            f"Equal steps are those up to {step}, the last that all have measured; equal time is "
            f"{seconds:.0f} training seconds, the shortest run's.",
        ],
        tables=tables,
        figures=[
            Figure(
                f"{y}-by-{x}".replace("_", "-"),
                f"{y_label} by {x_label}",
                "line",
                table,
                x,
                y,
                x_label,
                y_label,
                group="run",
            )
            for table, x, y, x_label, y_label in _CURVES
        ],
        parameters={"seed": seed, "settled_share": SETTLED_SHARE},
        metrics=METRICS,
        columns={"extracted": "share"},
        rows="run",
        method=_METHOD,
    )


def _curves(logs: Sequence[RunLog], table: str) -> pl.DataFrame:
    """The curves that are drawn from ``table`` of all runs; null where a run has none."""
    names = dict.fromkeys(
        name for of, x, y, *_ in _CURVES if of == table for name in (x, y)
    )  # in their order, each once
    parts = []
    for log in logs:
        frame: pl.DataFrame = getattr(log, table)
        known = [
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(pl.Float64).alias(name)
            for name in names
        ]
        parts.append(frame.select(pl.lit(log.name).alias("run"), *known))
    return pl.concat(parts)
