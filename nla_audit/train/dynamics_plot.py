"""One picture of several RL runs: how FVE, length and the alarms went."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from nla_audit.errors import UserError
from nla_audit.files import whole_file
from nla_audit.report.colours import CATEGORIES
from nla_audit.train.dynamics import RunLog

#: (table, x, y, x label, y label) of each panel.
_PANELS = (
    ("held_out", "step", "fve_raw_variance", "step", "held-out FVE (raw variance)"),
    ("steps", "step", "content_tokens", "step", "content tokens"),
    ("held_out", "seconds", "fve_raw_variance", "training seconds", "held-out FVE (raw variance)"),
    ("steps", "step", "kl", "step", "KL to warm start (nats/token)"),
    ("steps", "step", "extracted", "step", "extracted"),
    ("steps", "step", "cjk", "step", "CJK share"),
)
_COLUMNS = 3
#: A line of fewer points than this shows them.
_FEW_POINTS = 30


def plot_runs(runs: Sequence[RunLog], path: Path) -> None:
    """Draw all runs into ``path`` (``.svg``, ``.png`` or ``.pdf``).

    Raises:
        UserError: the file cannot be written, or its suffix is none of these.
    """
    rows = -(-len(_PANELS) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS).ravel()
    for panel, (table, x, y, x_label, y_label) in zip(axes, _PANELS, strict=True):
        for number, run in enumerate(runs):
            frame: pl.DataFrame = getattr(run, table)
            if y in frame.columns:
                panel.plot(
                    frame[x].to_numpy(),
                    frame[y].cast(pl.Float64).to_numpy(),
                    color=CATEGORIES[number % len(CATEGORIES)],
                    marker="o" if frame.height < _FEW_POINTS else None,
                    markersize=3,
                    label=run.name,
                )
        panel.set_xlabel(x_label)
        panel.set_ylabel(y_label)
        panel.grid(True, alpha=0.3)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6))
    kind = path.suffix.removeprefix(".").lower() or "png"
    try:
        with whole_file(path) as partial:
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(partial, dpi=150, format=kind, metadata=metadata)
    except ValueError as error:
        raise UserError(
            f"{path}: cannot write the figure ({error}); choose another --out"
        ) from None
