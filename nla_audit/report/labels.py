"""Labels beside points that cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.transforms import Bbox

#: Where a label may sit, in points from its data point, best places first.
_OFFSETS = (
    (7, 4, "left", "bottom"),
    (7, -4, "left", "top"),
    (-7, 4, "right", "bottom"),
    (-7, -4, "right", "top"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (11, 16, "left", "bottom"),
    (11, -16, "left", "top"),
    (-11, 16, "right", "bottom"),
    (-11, -16, "right", "top"),
)
_POINT_RADIUS = 4.0
#: Distance in pixels between the boxes that stand for a line; smaller than any label.
_BOX_STEP = 4.0
#: More labels than this cannot be told apart; the table holds them.
_MOST_LABELS = 40


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float, str]],
    lines: Sequence[np.ndarray] = (),
) -> None:
    """Write each ``(x, y, text)`` at the first free place around its point.

    ``lines`` are drawn polylines, ``[points, 2]`` in data units, that no label may cross. A label
    for which no place is free is left out: the figure's table names every point.
    """
    if not points:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    lay_out(figure)
    to_pixels = figure.dpi / 72
    pixels = [axes.transData.transform((x, y)) for x, y, _ in points]
    radius = _POINT_RADIUS * to_pixels
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in pixels]
    own_boxes = taken[:_MOST_LABELS]
    taken += [box for line in lines for box in _boxes_along(axes.transData.transform(line))]
    inside = axes.get_window_extent()
    for (x, y, text), own in zip(points[:_MOST_LABELS], own_boxes, strict=True):
        for right, up, horizontal, vertical in _OFFSETS:
            note = axes.annotate(
                text,
                (x, y),
                xytext=(right, up),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=8,
                color="#333333",
            )
            # Left out of the layout: a label must not shrink the axes it was placed in.
            note.set_in_layout(False)
            extent = note.get_window_extent()
            is_free = not any(extent.overlaps(other) for other in taken if other is not own)
            if is_free and _within(extent, inside):
                taken.append(extent)
                break
            note.remove()


def lay_out(canvas: Canvas) -> None:
    """Place the axes of ``canvas`` so that titles, tick labels and legends all fit.

    The canvas has no layout engine of its own: that would do this anew, with a trial drawing of
    everything, for each format that the figure is saved in.
    """
    ConstrainedLayoutEngine().execute(canvas)


def _boxes_along(pixels: np.ndarray) -> Iterator[Bbox]:
    """Small boxes that cover a polyline, ``[points, 2]`` in pixels."""
    for start, end in pairwise(pixels):
        if not np.isfinite([start, end]).all():
            continue
        count = int(np.hypot(*(end - start)) / _BOX_STEP) + 1
        # The ends belong to the points themselves, next to which their own label stands.
        for share in np.arange(1, count) / count:
            x, y = start + share * (end - start)
            yield Bbox.from_extents(x - 1, y - 1, x + 1, y + 1)


def _within(extent: Bbox, inside: Bbox) -> bool:
    return (
        extent.x0 >= inside.x0
        and extent.x1 <= inside.x1
        and extent.y0 >= inside.y0
        and extent.y1 <= inside.y1
    )
