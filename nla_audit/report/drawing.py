"""A finding's figures as a report takes them: what they draw, and who draws them.

What draws (:mod:`nla_audit.report.figures`) is imported only to draw: plotting takes long to
import, and an audit that has its figures drawn in another process need not pay for it.
"""

from __future__ import annotations

import atexit
import gc
import signal
from dataclasses import dataclass, replace

import polars as pl

from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding
from nla_audit.report.colours import ModelColours

#: Searches for unreachable cycles lie so many times further apart than usual.
COLLECTIONS_APART = 100


@dataclass(frozen=True)
class Rendered:
    """One figure in both formats, under the name its files get."""

    name: str
    figure: Figure
    svg: str
    png: bytes


def begin_drawing() -> None:
    """Make a process ready that draws for another one; interrupts are left to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    usual = gc.get_threshold()
    gc.set_threshold(COLLECTIONS_APART * usual[0], *usual[1:])
    atexit.register(gc.freeze)  # as the parent does


def draw(finding: Finding, colours: ModelColours) -> list[Rendered]:
    """All figures of ``finding`` that have something to draw."""
    from nla_audit.report.figures import render_figures

    return render_figures(finding, colours)


def with_reasons(finding: Finding) -> Finding:
    """``finding`` with a caveat for each figure that has nothing to draw, which is left out."""
    empty = [figure for figure in finding.figures if not checked(finding, figure).height]
    if not empty:
        return finding
    reasons = [
        f'No figure "{figure.title}": '
        + (
            "there is nothing to compare."
            if finding.tables[figure.table].is_empty()
            else "none of its values is known."
        )
        for figure in empty
    ]
    drawn = [figure for figure in finding.figures if figure not in empty]
    return replace(finding, figures=drawn, caveats=[*finding.caveats, *reasons])


def checked(finding: Finding, figure: Figure) -> pl.DataFrame:
    """The rows of its table that ``figure`` can draw.

    Raises:
        UserError: the table or a column that the figure names is not in the finding.
    """
    where = f"figure {figure.name!r} of {finding.analyzer}"
    if figure.table not in finding.tables:
        raise UserError(f"{where} draws table {figure.table!r}, which the finding does not have")
    frame = finding.tables[figure.table]
    if frame.is_empty():  # a table of nothing need not have any columns
        return frame
    named = (figure.x, figure.y, figure.low, figure.high, figure.group, figure.label, figure.chance)
    missing = sorted({column for column in named if column} - set(frame.columns))
    if missing:
        raise UserError(f"{where} draws {missing}, which table {figure.table!r} does not have")
    return frame.filter(pl.col(figure.x).is_not_null() & pl.col(figure.y).is_not_null())
