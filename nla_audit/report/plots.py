"""How each kind of figure is drawn on a pair of axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from nla_audit.findings import Figure
from nla_audit.report.colours import CATEGORIES, ModelColours
from nla_audit.report.labels import place_labels
from nla_audit.report.plot_parts import (
    CHANCE,
    DASHES,
    MARKERS,
    canvas_of,
    colour_of,
    column_of,
    error_of,
    finish,
    groups_of,
    legend,
    name_positions,
    named,
    ordered,
    scale_x,
    short,
    whiskers,
)

#: More bars than this are thin, and their names slanted and small.
_MOST_BARS = 16
#: With more bands than this, none can be told from its neighbours; whiskers stay readable.
_MOST_BANDS = 3


def line(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Lines with interval bands; one for each value of ``group``."""
    is_numeric = frame[figure.x].dtype.is_numeric()
    names = [] if is_numeric else ordered(frame[figure.x].to_list(), colours)
    place = {name: position for position, name in enumerate(names)}
    groups = groups_of(frame, figure, colours)
    points: list[tuple[float, float, str]] = []
    drawn: list[np.ndarray] = []
    for position, (group, part) in enumerate(groups):
        xs = [float(x) if is_numeric else float(place[x]) for x in part[figure.x].to_list()]
        order = np.argsort(xs, kind="stable")
        x, y = np.array(xs)[order], column_of(part, figure.y)[order]
        colour = colour_of(group, position, colours)
        if figure.low and figure.high:
            low, high = column_of(part, figure.low)[order], column_of(part, figure.high)[order]
            if len(groups) <= _MOST_BANDS:
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                axes.vlines(x, low, high, color=colour, alpha=0.5, linewidth=1.0)
        axes.plot(
            x,
            y,
            color=colour,
            marker=MARKERS[position % len(MARKERS)],
            markersize=4.5,
            linestyle=DASHES[(position // len(CATEGORIES)) % len(DASHES)],
            label=None if group is None else named(group, colours),
        )
        if figure.chance:
            axes.plot(
                x,
                column_of(part, figure.chance)[order],
                **CHANCE,
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
        name_positions(axes, names, colours)
    elif figure.log_x:
        scale_x(axes, [float(x) for x in frame[figure.x].to_list()])
    finish(axes, figure)
    legend(axes, figure.chance_label)
    place_labels(axes, points, drawn)


def bar(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Bars with interval whiskers, side by side where there are groups.

    More names than fit under the axis become the rows of a forest plot.
    """
    names = ordered(frame[figure.x].to_list(), colours)
    if len(names) > _MOST_BARS:
        _forest(axes, frame, figure, colours)
        return
    place = {name: position for position, name in enumerate(names)}
    groups = groups_of(frame, figure, colours)
    width = 0.8 / len(groups)
    for position, (group, part) in enumerate(groups):
        offset = (position - (len(groups) - 1) / 2) * width
        x = np.array([place[name] for name in part[figure.x].to_list()], dtype=float) + offset
        colour: Any = colour_of(group, position, colours)
        if group is None:
            colour = [colours.get(name) or CATEGORIES[0] for name in part[figure.x].to_list()]
        axes.bar(
            x,
            column_of(part, figure.y),
            width * 0.94,
            color=colour,
            label=None if group is None else named(group, colours),
        )
        whiskers(axes, x, part, figure)
        if figure.chance:
            level = column_of(part, figure.chance)
            # White below the dashes, or they would be lost on a dark bar.
            axes.hlines(level, x - width / 2, x + width / 2, color="white", linewidth=3.2)
            axes.hlines(
                level,
                x - width / 2,
                x + width / 2,
                **{**CHANCE, "linewidth": 1.8},
                label=figure.chance_label if position == 0 else "",
            )
    name_positions(axes, names, colours)
    axes.axhline(0, color="#8a8a8a", linewidth=0.8)
    finish(axes, figure)
    legend(axes, figure.chance_label)


def _forest(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """A point with its interval in a row for each name, from top to bottom as in the table.

    Groups that share no name are told apart by colour; others stand under each other in a row.
    """
    names = ordered(frame[figure.x].to_list(), colours)
    place = {name: position for position, name in enumerate(names)}
    groups = groups_of(frame, figure, colours)
    is_apart = sum(part[figure.x].n_unique() for _, part in groups) == len(names)
    step = 0.0 if is_apart else 0.8 / len(groups)
    for position, (group, part) in enumerate(groups):
        offset = (position - (len(groups) - 1) / 2) * step
        rows = np.array([place[name] for name in part[figure.x].to_list()], dtype=float) + offset
        values = column_of(part, figure.y)
        colour = colour_of(group, position, colours)
        error = error_of(part, figure)
        axes.errorbar(
            values,
            rows,
            xerr=None if error is None else np.nan_to_num(error),
            color=colour,
            marker=MARKERS[position % len(MARKERS)],
            markersize=4.5,
            elinewidth=1.2,
            linestyle="none",
            label=None if group is None else named(group, colours),
        )
        if figure.chance:
            level = column_of(part, figure.chance)
            name = figure.chance_label if position == 0 else None
            axes.plot(level, rows, color=CHANCE["color"], marker="|", linestyle="none", label=name)
    axes.axvline(0, color="#8a8a8a", linewidth=0.8)
    rows_high = len(names) * (1 if is_apart else max(1.0, 0.45 * len(groups)))
    canvas_of(axes).set_figheight(1.1 + 0.2 * rows_high)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [named(name, colours) for name in names])
    axes.set_xlabel(figure.y_label)
    if figure.percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol="%"))
    legend(axes, figure.chance_label)


def stacked(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Bars whose parts add up; negative parts hang below zero."""
    names = ordered(frame[figure.x].to_list(), colours)
    place = {name: position for position, name in enumerate(names)}
    groups = groups_of(frame, figure, colours)
    above, below = np.zeros(len(names)), np.zeros(len(names))
    for position, (group, part) in enumerate(groups):
        heights = np.zeros(len(names))
        for name, value in zip(
            part[figure.x].to_list(), column_of(part, figure.y).tolist(), strict=True
        ):
            heights[place[name]] += value
        start = np.where(heights >= 0, above, below)
        axes.bar(
            range(len(names)),
            heights,
            0.72,
            bottom=start,
            color=colour_of(group, position, colours),
            edgecolor="white",
            linewidth=0.8,
            label=None if group is None else named(group, colours),
        )
        above += np.clip(heights, 0, None)
        below += np.clip(heights, None, 0)
    name_positions(axes, names, colours)
    axes.axhline(0, color="#8a8a8a", linewidth=0.8)
    finish(axes, figure)
    legend(axes, figure.chance_label)


def waterfall(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Steps from left to right, each a bar that begins where the one before it ended.

    Groups stand side by side within each step, so that every group is a waterfall of its own.
    """
    assert figure.low is not None
    names = list(dict.fromkeys(frame[figure.x].to_list()))
    groups = groups_of(frame, figure, colours)
    width = 0.8 / len(groups)
    for position, (group, part) in enumerate(groups):
        offset = (position - (len(groups) - 1) / 2) * width
        x = np.array([names.index(name) for name in part[figure.x].to_list()]) + offset
        heights, start = column_of(part, figure.y), column_of(part, figure.low)
        axes.bar(
            x,
            heights,
            width * 0.9,
            bottom=start,
            color=colour_of(group, position, colours),
            label=None if group is None else named(group, colours),
        )
        axes.hlines(start + heights, x - width * 0.45, x + width * 0.45, color="#222222", lw=1.0)
    axes.margins(y=0.05)
    name_positions(axes, names, colours)
    axes.axhline(0, color="#8a8a8a", linewidth=0.8)
    finish(axes, figure)
    legend(axes, figure.chance_label)


def scatter(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """Points with whiskers; labelled where the figure names a label column."""
    points: list[tuple[float, float, str]] = []
    groups = groups_of(frame, figure, colours)
    for position, (group, part) in enumerate(groups):
        x, y = column_of(part, figure.x), column_of(part, figure.y)
        texts = part[figure.label].to_list() if figure.label else [None] * len(x)
        error = error_of(part, figure)
        for index in range(len(x)):
            colour = colours.get(texts[index]) or colour_of(group, position, colours)
            axes.errorbar(
                x[index],
                y[index],
                yerr=None if error is None else error[:, index : index + 1],
                color=colour,
                marker=MARKERS[position % len(MARKERS)],
                markersize=6,
                elinewidth=1.2,
                capsize=2,
                linestyle="none",
                label=named(group, colours) if group is not None and index == 0 else None,
            )
            if texts[index] is not None:
                points.append((x[index], y[index], short(texts[index])))
    if figure.chance:
        order = np.argsort(column_of(frame, figure.x), kind="stable")
        axes.plot(
            column_of(frame, figure.x)[order],
            column_of(frame, figure.chance)[order],
            **CHANCE,
            label=figure.chance_label,
        )
    if figure.log_x:
        scale_x(axes, [float(x) for x in frame[figure.x].to_list()])
    finish(axes, figure)
    legend(axes, figure.chance_label)
    axes.margins(0.08, 0.1)
    place_labels(axes, points)


def heatmap(axes: Axes, frame: pl.DataFrame, figure: Figure, colours: ModelColours) -> None:
    """A grid of ``group`` (rows) by ``x`` (columns), each cell with its number."""
    columns = ordered(frame[figure.x].to_list(), colours)
    row_names = frame[figure.group].to_list() if figure.group else [figure.y_label] * frame.height
    rows = ordered(row_names, colours)
    grid = np.full((len(rows), len(columns)), np.nan)
    for x, row, value in zip(
        frame[figure.x].to_list(), row_names, column_of(frame, figure.y).tolist(), strict=True
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
    canvas_of(axes).set_figheight(max(2.4, 0.9 + 0.3 * len(rows)))
    axes.set_yticks(range(len(rows)), [named(row, colours) for row in rows])
    name_positions(axes, columns, colours)
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
    finish(axes, figure)
    # Not within the subplot's grid: the layout moves axes of a colour bar as one with their own.
    bar_axes = canvas_of(axes).colorbar(mesh, ax=axes, shrink=0.9, pad=0.02, use_gridspec=False)
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
