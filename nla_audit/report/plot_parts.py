"""What every kind of plot is made of: names and colours of models, error bars, legends, scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from nla_audit.findings import Figure
from nla_audit.report.colours import CATEGORIES, ModelColours
from nla_audit.report.escape import safe_text

#: Of lines and points, in turn, where there are several.
MARKERS = "osD^vPX"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
#: How a level of chance is drawn.
CHANCE: dict[str, Any] = {"color": "#8a3b3b", "linestyle": (0, (3, 2)), "linewidth": 1.1}
_LONGEST_LABEL = 28
#: Characters of an axis label that fit beside the height of a figure.
_LABEL_LINE = 42


def short(value: object) -> str:
    """A label that cannot push the figure off the page."""
    text = f"{value:g}" if isinstance(value, float) else safe_text(value)
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def named(value: object, colours: ModelColours) -> str:
    """A category in words; the name of a model stays as it is."""
    return short(value) if colours.get(value) else short(value).replace("_", " ")


def colour_of(name: object, position: int, colours: ModelColours) -> str:
    """The model's colour, or that of the place which something else has among its like."""
    return colours.get(name) or CATEGORIES[position % len(CATEGORIES)]


def ordered(values: Sequence[Any], colours: ModelColours) -> list[Any]:
    """Distinct values: models by λ, all else as the table has them."""
    distinct = list(dict.fromkeys(values))
    rank = {name: position for position, name in enumerate(colours.names())}
    return sorted(distinct, key=lambda value: rank.get(str(value), len(rank)))


def groups_of(
    frame: pl.DataFrame, figure: Figure, colours: ModelColours
) -> list[tuple[Any, pl.DataFrame]]:
    """The rows of each group, models by λ; all as one where the figure has no groups."""
    if figure.group is None:
        return [(None, frame)]
    names = ordered(frame[figure.group].to_list(), colours)
    return [(name, frame.filter(pl.col(figure.group).eq_missing(name))) for name in names]


def column_of(frame: pl.DataFrame, name: str) -> np.ndarray:
    """``[rows]`` floats; NaN where there is none."""
    return frame[name].cast(pl.Float64).to_numpy()


def error_of(frame: pl.DataFrame, figure: Figure) -> np.ndarray | None:
    """Distances to both ends of the interval, ``[2, rows]``; NaN where there is none."""
    if figure.low is None or figure.high is None:
        return None
    y = column_of(frame, figure.y)
    ends = np.array([y - column_of(frame, figure.low), column_of(frame, figure.high) - y])
    return np.clip(ends, 0, None)


def whiskers(axes: Axes, x: np.ndarray, frame: pl.DataFrame, figure: Figure) -> None:
    """Intervals on bars: dark with a white edge, so that they show on every colour."""
    if figure.low is None or figure.high is None:
        return
    low, high = column_of(frame, figure.low), column_of(frame, figure.high)
    axes.vlines(x, low, high, color="white", linewidth=3.0)
    axes.vlines(x, low, high, color="#222222", linewidth=1.2)


def canvas_of(axes: Axes) -> Canvas:
    """The whole picture that ``axes`` are in; there are no pictures in pictures."""
    canvas = axes.get_figure()
    assert isinstance(canvas, Canvas)
    return canvas


def finish(axes: Axes, figure: Figure) -> None:
    """Names and units of both axes."""
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(fill(figure.y_label, _LABEL_LINE))
    if figure.percent and figure.kind != "heatmap":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol="%"))


def legend(axes: Axes, chance_label: str) -> None:
    """What the colours and lines stand for, beside the axes."""
    handles, names = axes.get_legend_handles_labels()
    if not handles:
        return
    # The comparison level last; beside the axes, because a legend inside would sooner or later
    # cover data.
    entries = sorted(zip(handles, names, strict=True), key=lambda entry: entry[1] == chance_label)
    axes.legend(
        [handle for handle, _ in entries],
        [name for _, name in entries],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
    )


def name_positions(axes: Axes, names: Sequence[Any], colours: ModelColours) -> None:
    """Category names under the x axis, slanted where they would touch."""
    labels = [named(name, colours) for name in names]
    axes.set_xticks(range(len(labels)), labels)
    axes.grid(False, axis="x")
    # At 8 points about 85 characters fit beside each other in the width of the axes.
    if sum(len(text) + 2 for text in labels) > 80:
        for tick in axes.get_xticklabels():
            tick.set(rotation=35, ha="right", rotation_mode="anchor")


def scale_x(axes: Axes, values: Sequence[float]) -> None:
    """A log axis that keeps zero: linear up to the smallest positive value, logarithmic above."""
    distinct = sorted(set(values))
    positive = [value for value in distinct if value > 0]
    if not positive:
        return
    if distinct[0] <= 0:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
    else:
        axes.set_xscale("log")
    # Tick where there is data, as long as neighbours leave room for their numbers.
    ticks: list[float] = []
    span = math.log10(positive[-1] / positive[0]) if len(positive) > 1 else 1.0
    for value in distinct:
        crowded = bool(
            ticks and ticks[-1] > 0 and span and math.log10(value / ticks[-1]) / span < 0.07
        )
        if not crowded:
            ticks.append(value)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
