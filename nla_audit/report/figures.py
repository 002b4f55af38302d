"""Figures drawn from a finding's tables: SVG and PNG, the same bytes on every run."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from nla_audit.findings import Figure, Finding
from nla_audit.report.colours import ModelColours
from nla_audit.report.drawing import Rendered, checked
from nla_audit.report.escape import safe_text
from nla_audit.report.labels import lay_out
from nla_audit.report.plots import PLOTS

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a8a8a",
    "axes.grid": True,
    "axes.labelcolor": "#333333",
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so it is there everywhere
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "path.simplify": False,
    "svg.fonttype": "path",
    "text.parse_math": False,  # a "$" in somebody's label is a dollar sign
    "xtick.color": "#555555",
    "xtick.labelsize": 8,
    "ytick.color": "#555555",
    "ytick.labelsize": 8,
}
_PNG_DPI = 180
_MARGIN_INCHES = 0.12


def render_figure(finding: Finding, figure: Figure, colours: ModelColours) -> Rendered:
    """Draw ``figure`` from its table.

    Raises:
        UserError: the table or a column that the figure names is not in the finding.
    """
    name = f"{finding.analyzer}-{figure.name}"
    frame = checked(finding, figure)
    # The salt makes the ids in the SVG the same on every run, and different between figures.
    style: Any = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # A script that the font lacks is drawn as boxes; the tables hold the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        canvas = Canvas(figsize=(6.6, 3.9))
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        # The title first: labels are placed in axes of their final size.
        axes.set_title(safe_text(figure.title), y=1.0, fontweight="bold", color="#222222", pad=10)
        PLOTS[figure.kind](axes, frame, figure, colours)
        lay_out(canvas)
        # Measured once for both formats: "tight" would measure for each, with a trial drawing.
        box = canvas.get_tightbbox().padded(_MARGIN_INCHES)
        svg, png = io.StringIO(), io.BytesIO()
        no_date: dict[str, Any] = {"Date": None, "Creator": None}
        canvas.savefig(svg, format="svg", bbox_inches=box, metadata=no_date)
        canvas.savefig(
            png, format="png", bbox_inches=box, dpi=_PNG_DPI, metadata={"Software": None}
        )
    return Rendered(name, figure, _tidy(svg.getvalue(), name), png.getvalue())


def render_figures(finding: Finding, colours: ModelColours) -> list[Rendered]:
    """All figures of ``finding`` that have something to draw."""
    return [
        render_figure(finding, figure, colours)
        for figure in finding.figures
        if checked(finding, figure).height
    ]


_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL)
_ID = re.compile(r'(\bid="|url\(#|xlink:href="#)')


def _tidy(svg: str, name: str) -> str:
    """An SVG element that can share a page with others: own ids, no prolog, no comments."""
    plain = _METADATA.sub("", _COMMENT.sub("", _HEAD.sub("", svg)))
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return _ID.sub(rf"\g<1>{prefix}--", plain)
