"""Labels beside points that cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
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
#: More labels than this cannot be told apart; the table holds them.
_MOST_LABELS = 40


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each ``(x, y, text)`` at the first free place around its point.

    A label for which no place is free is left out: the figure's table names every point.
    """
    figure = axes.get_figure()
    assert figure is not None
    figure.draw_without_rendering()  # type: ignore[union-attr]
    to_pixels = figure.dpi / 72
    pixels = [axes.transData.transform((x, y)) for x, y, _ in points]
    radius = _POINT_RADIUS * to_pixels
    taken = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in pixels]
    inside = axes.get_window_extent()
    for (x, y, text), own in zip(points[:_MOST_LABELS], taken[:_MOST_LABELS], strict=True):
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


def _within(extent: Bbox, inside: Bbox) -> bool:
    return (
        extent.x0 >= inside.x0
        and extent.x1 <= inside.x1
        and extent.y0 >= inside.y0
        and extent.y1 <= inside.y1
    )
