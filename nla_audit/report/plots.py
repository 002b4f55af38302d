"""How each kind of figure is drawn on a pair of axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
from nla_audit.report.labels import place_labels

_MARKERS = "osD^vPX"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
_CHANCE: dict[str, Any] = {"color": "#8a3b3b", "linestyle": (0, (3, 2)), "linewidth": 1.1}
_LONGEST_LABEL = 28
#: Characters of an axis label that fit beside the height of a figure.
_LABEL_LINE = 42
#: More bars than this are thin, and their names slanted and small.
_MOST_BARS = 16
#: With more bands than this, none can be told from its neighbours; whiskers stay readable.
_MOST_BANDS = 3


def short(value: object) -> str:
    """A label that cannot push the figure off the page."""
    text = f"{value:g}" if isinstance(value, float) else safe_text(value)
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"


def named(value: object, colours: ModelColours) -> str:
    """A category in words; the name of a model stays as it is."""
    return short(value) if colours.get(value) else short(value).replace("_", " ")


def _colour(name: object, position: int, colours: ModelColours) -> str:
    return colours.get(name) or CATEGORIES[position % len(CATEGORIES)]


def _ordered(values: Sequence[Any], colours: ModelColours) -> list[Any]:
    """Distinct values: models by λ, all else as the table has them."""
    distinct = list(dict.fromkeys(values))
    rank = {name: position for position, name in enumerate(colours.names())}
    return sorted(distinct, key=lambda value: rank.get(str(value), len(rank)))


def _groups(
    frame: pl.DataFrame, figure: Figure, colours: ModelColours
) -> list[tuple[Any, pl.DataFrame]]:
    if figure.group is None:
        return [(None, frame)]
    names = _ordered(frame[figure.group].to_list(), colours)
    return [(name, frame.filter(pl.col(figure.group).eq_missing(name))) for name in names]


def _column(frame: pl.DataFrame, name: str) -> np.ndarray:
    return frame[name].cast(pl.Float64).to_numpy()


def _error(frame: pl.DataFrame, figure: Figure) -> np.ndarray | None:
    """Distances to both ends of the interval, ``[2, rows]``; NaN where there is none."""
    if figure.low is None or figure.high is None:
        return None
    y = _column(frame, figure.y)
    ends = np.array([y - _column(frame, figure.low), _column(frame, figure.high) - y])
    return np.clip(ends, 0, None)


def _whiskers(axes: Axes, x: np.ndarray, frame: pl.DataFrame, figure: Figure) -> None:
    """Intervals on bars: dark with a white edge, so that they show on every colour."""
    if figure.low is None or figure.high is None:
        return
    low, high = _column(frame, figure.low), _column(frame, figure.high)
    axes.vlines(x, low, high, color="white", linewidth=3.0)
    axes.vlines(x, low, high, color="#222222", linewidth=1.2)


def _canvas(axes: Axes) -> Canvas:
    """The whole picture that ``axes`` are in; there are no pictures in pictures."""
    canvas = axes.get_figure()
    assert isinstance(canvas, Canvas)
    return canvas


def _finish(axes: Axes, figure: Figure) -> None:
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(fill(figure.y_label, _LABEL_LINE))
    if figure.percent and figure.kind != "heatmap":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol="%"))


def _legend(axes: Axes, chance_label: str) -> None:
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


def _name_positions(axes: Axes, names: Sequence[Any], colours: ModelColours) -> None:
    """Category names under the x axis, slanted where they would touch."""
    labels = [named(name, colours) for name in names]
    axes.set_xticks(range(len(labels)), labels)
    axes.grid(False, axis="x")
    # At 8 points about 85 characters fit beside each other in the width of the axes.
    if sum(len(text) + 2 for text in labels) > 80:
        for tick in axes.get_xticklabels():
            tick.set(rotation=35, ha="right", rotation_mode="anchor")


def _scale_x(axes: Axes, values: Sequence[float]) -> None:
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


def line(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Lines with interval bands; one for each value of ``group``."""
    is_numeric = frame[figure.x].dtype.is_numeric()
    names = [] if is_numeric else _ordered(frame[figure.x].to_list(), colours)
    place = {name: position for position, name in enumerate(names)}
    groups = _groups(frame, figure, colours)
    points: list[tuple[float, float, str]] = []
    drawn: list[np.ndarray] = []
    for position, (group, part) in enumerate(groups):
        xs = [float(x) if is_numeric else float(place[x]) for x in part[figure.x].to_list()]
        order = np.argsort(xs, kind="stable")
        x, y = np.array(xs)[order], _column(part, figure.y)[order]
        colour = _colour(group, position, colours)
        if figure.low and figure.high:
            low, high = _column(part, figure.low)[order], _column(part, figure.high)[order]
            if len(groups) <= _MOST_BANDS:
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                axes.vlines(x, low, high, color=colour, alpha=0.5, linewidth=1.0)
        axes.plot(
            x,
            y,
            color=colour,
            marker=_MARKERS[position % len(_MARKERS)],
            markersize=4.5,
            linestyle=_DASHES[(position // len(CATEGORIES)) % len(_DASHES)],
            label=None if group is None else named(group, colours),
        )
        if figure.chance:
            axes.plot(
                x,
                _column(part, figure.chance)[order],
                **_CHANCE,
                label=figure.chance_label if position == 0 else None,
            )
        if figure.label:
            texts = part[figure.label].to_list()
            points += [(x[i], y[i], short(texts[j])) for i, j in enumerate(order)]
            drawn.append(np.column_stack([x, y]))
            for i, j in enumerate(order):
                own = colours.get(texts[j])
                if own is not None:
                    axes.plot(x[i], y[i], color=own, marker="o", markersize=6, zorder=3)
    if not is_numeric:
        _name_positions(axes, names, colours)
    elif figure.log_x:
        _scale_x(axes, [float(x) for x in frame[figure.x].to_list()])
    _finish(axes, figure)
    _legend(axes, figure.chance_label)
    place_labels(axes, points, drawn)


def bar(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Bars with interval whiskers, side by side where there are groups.

    More names than fit under the axis become the rows of a forest plot.
    """
    names = _ordered(frame[figure.x].to_list(), colours)
    if len(names) > _MOST_BARS:
        _forest(axes, frame, figure, colours)
        return
    place = {name: position for position, name in enumerate(names)}
    groups = _groups(frame, figure, colours)
    width = 0.8 / len(groups)
    for position, (group, part) in enumerate(groups):
        offset = (position - (len(groups) - 1) / 2) * width
        x = np.array([place[name] for name in part[figure.x].to_list()], dtype=float) + offset
        colour: Any = _colour(group, position, colours)
        if group is None:
            colour = [colours.get(name) or CATEGORIES[0] for name in part[figure.x].to_list()]
        axes.bar(
            x,
            _column(part, figure.y),
            width * 0.94,
            color=colour,
            label=None if group is None else named(group, colours),
        )
        _whiskers(axes, x, part, figure)
        if figure.chance:
            level = _column(part, figure.chance)
            # White below the dashes, or they would be lost on a dark bar.
            axes.hlines(level, x - width / 2, x + width / 2, color="white", linewidth=3.2)
            axes.hlines(
                level,
                x - width / 2,
                x + width / 2,
                **{**_CHANCE, "linewidth": 1.8},
                label=figure.chance_label if position == 0 else "",
            )
    _name_positions(axes, names, colours)
    axes.axhline(0, color="#8a8a8a", linewidth=0.8)
    _finish(axes, figure)
    _legend(axes, figure.chance_label)


def _forest(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """A point with its interval in a row for each name, from top to bottom as in the table.

    Groups that share no name are told apart by colour; others stand under each other in a row.
    """
    names = _ordered(frame[figure.x].to_list(), colours)
    place = {name: position for position, name in enumerate(names)}
    groups = _groups(frame, figure, colours)
    is_apart = sum(part[figure.x].n_unique() for _, part in groups) == len(names)
    step = 0.0 if is_apart else 0.8 / len(groups)
    for position, (group, part) in enumerate(groups):
        offset = (position - (len(groups) - 1) / 2) * step
        rows = np.array([place[name] for name in part[figure.x].to_list()], dtype=float) + offset
        values = _column(part, figure.y)
        colour = _colour(group, position, colours)
        error = _error(part, figure)
        axes.errorbar(
            values,
            rows,
            xerr=None if error is None else np.nan_to_num(error),
            color=colour,
            marker=_MARKERS[position % len(_MARKERS)],
            markersize=4.5,
            elinewidth=1.2,
            linestyle="none",
            label=None if group is None else named(group, colours),
        )
        if figure.chance:
            level = _column(part, figure.chance)
            name = figure.chance_label if position == 0 else None
            axes.plot(level, rows, color=_CHANCE["color"], marker="|", linestyle="none", label=name)
    axes.axvline(0, color="#8a8a8a", linewidth=0.8)
    rows_high = len(names) * (1 if is_apart else max(1.0, 0.45 * len(groups)))
    _canvas(axes).set_figheight(1.1 + 0.2 * rows_high)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [named(name, colours) for name in names])
    axes.set_xlabel(figure.y_label)
    if figure.percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol="%"))
    _legend(axes, figure.chance_label)


def stacked(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Bars whose parts add up; negative parts hang below zero."""
    names = _ordered(frame[figure.x].to_list(), colours)
    place = {name: position for position, name in enumerate(names)}
    groups = _groups(frame, figure, colours)
    above, below = np.zeros(len(names)), np.zeros(len(names))
    for position, (group, part) in enumerate(groups):
        heights = np.zeros(len(names))
        for name, value in zip(
            part[figure.x].to_list(), _column(part, figure.y).tolist(), strict=True
        ):
            heights[place[name]] += value
        start = np.where(heights >= 0, above, below)
        axes.bar(
            range(len(names)),
            heights,
            0.72,
            bottom=start,
            color=_colour(group, position, colours),
            edgecolor="white",
            linewidth=0.8,
            label=None if group is None else named(group, colours),
        )
        above += np.clip(heights, 0, None)
        below += np.clip(heights, None, 0)
    _name_positions(axes, names, colours)
    axes.axhline(0, color="#8a8a8a", linewidth=0.8)
    _finish(axes, figure)
    _legend(axes, figure.chance_label)


def waterfall(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Steps from left to right, each a bar that begins where the one before it ended.

    Groups stand side by side within each step, so that every group is a waterfall of its own.
    """
    assert figure.low is not None
    names = list(dict.fromkeys(frame[figure.x].to_list()))
    groups = _groups(frame, figure, colours)
    width = 0.8 / len(groups)
    for position, (group, part) in enumerate(groups):
        offset = (position - (len(groups) - 1) / 2) * width
        x = np.array([names.index(name) for name in part[figure.x].to_list()]) + offset
        heights, start = _column(part, figure.y), _column(part, figure.low)
        axes.bar(
            x,
            heights,
            width * 0.9,
            bottom=start,
            color=_colour(group, position, colours),
            label=None if group is None else named(group, colours),
        )
        axes.hlines(start + heights, x - width * 0.45, x + width * 0.45, color="#222222", lw=1.0)
    axes.margins(y=0.05)
    _name_positions(axes, names, colours)
    axes.axhline(0, color="#8a8a8a", linewidth=0.8)
    _finish(axes, figure)
    _legend(axes, figure.chance_label)


def scatter(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Points with whiskers; labelled where the figure names a label column."""
    points: list[tuple[float, float, str]] = []
    groups = _groups(frame, figure, colours)
    for position, (group, part) in enumerate(groups):
        x, y = _column(part, figure.x), _column(part, figure.y)
        texts = part[figure.label].to_list() if figure.label else [None] * len(x)
        error = _error(part, figure)
        for index in range(len(x)):
            colour = colours.get(texts[index]) or _colour(group, position, colours)
            axes.errorbar(
                x[index],
                y[index],
                yerr=None if error is None else error[:, index : index + 1],
                color=colour,
                marker=_MARKERS[position % len(_MARKERS)],
                markersize=6,
                elinewidth=1.2,
                capsize=2,
                linestyle="none",
                label=named(group, colours) if group is not None and index == 0 else None,
            )
            if texts[index] is not None:
                points.append((x[index], y[index], short(texts[index])))
    if figure.chance:
        order = np.argsort(_column(frame, figure.x), kind="stable")
        axes.plot(
            _column(frame, figure.x)[order],
            _column(frame, figure.chance)[order],
            **_CHANCE,
            label=figure.chance_label,
        )
    if figure.log_x:
        _scale_x(axes, [float(x) for x in frame[figure.x].to_list()])
    _finish(axes, figure)
    _legend(axes, figure.chance_label)
    axes.margins(0.08, 0.1)
    place_labels(axes, points)


def heatmap(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """A grid of ``group`` (rows) by ``x`` (columns), each cell with its number."""
    columns = _ordered(frame[figure.x].to_list(), colours)
    row_names = frame[figure.group].to_list() if figure.group else [figure.y_label] * frame.height
    rows = _ordered(row_names, colours)
    grid = np.full((len(rows), len(columns)), np.nan)
    for x, row, value in zip(
        frame[figure.x].to_list(), row_names, _column(frame, figure.y).tolist(), strict=True
    ):
        grid[rows.index(row), columns.index(x)] = value
    finite = grid[np.isfinite(grid)]
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    diverging = lowest < 0 < highest
    if diverging:
        highest = max(-lowest, highest)
        lowest = -highest
    elif figure.percent:
        lowest, highest = min(lowest, 0.0), max(highest, 1.0)
    # A mesh, not an image: the figure stays a vector, and no picture is embedded in the page.
    mesh = axes.pcolormesh(
        np.arange(len(columns) + 1) - 0.5,
        np.arange(len(rows) + 1) - 0.5,
        np.ma.masked_invalid(grid),
        cmap="PuOr" if diverging else "cividis",
        vmin=lowest,
        vmax=highest,
        edgecolors="white",
        linewidth=1.0,
    )
    axes.invert_yaxis()
    _canvas(axes).set_figheight(max(2.4, 0.9 + 0.3 * len(rows)))
    axes.set_yticks(range(len(rows)), [named(row, colours) for row in rows])
    _name_positions(axes, columns, colours)
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if len(columns) <= 12:
        for (row, column), value in np.ndenumerate(grid):
            if math.isfinite(value):
                red, green, blue, _ = mesh.cmap(mesh.norm(value))
                # Rec. 709 luminance decides between dark and light digits.
                is_light = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45
                text = f"{100 * value:.0f}%" if figure.percent else f"{value:.2g}"
                axes.text(
                    column,
                    row,
                    text.replace("-", "−"),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="#111111" if is_light else "#ffffff",
                )
    _finish(axes, figure)
    # Not within the subplot's grid: the layout moves axes of a colour bar as one with their own.
    bar_axes = _canvas(axes).colorbar(mesh, ax=axes, shrink=0.9, pad=0.02, use_gridspec=False)
    if bar_axes.solids is not None:
        bar_axes.solids.set(rasterized=False, edgecolor="face")
    bar_axes.outline.set_visible(False)
    if figure.percent:
        bar_axes.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol="%"))


Plot = Callable[[Axes, pl.DataFrame, Figure, ModelColours], None]
PLOTS: dict[str, Plot] = {
    "line": line,
    "bar": bar,
    "stacked": stacked,
    "scatter": scatter,
    "heatmap": heatmap,
    "waterfall": waterfall,
}
