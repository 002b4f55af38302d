"""Numbers as people read them: one display table for the terminal, HTML and Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from nla_audit.findings import Finding, Unit
from nla_audit.report.escape import safe_text

MISSING = "–"
_SPELLED = {"fve": "FVE", "cjk": "CJK", "ar": "AR", "av": "AV", "idx": "idx", "id": "ID"}


@dataclass(frozen=True)
class DisplayCell:
    """One value as shown: the text, its interval where there is one, and what to sort by."""

    text: str
    interval: str = ""
    sort: float | str | None = None

    @property
    def line(self) -> str:
        """Value and interval on one line."""
        return f"{self.text} {self.interval}" if self.interval else self.text


@dataclass(frozen=True)
class Column:
    """``name`` as in the JSON, ``label`` in words, ``numeric`` decides the alignment."""

    name: str
    label: str
    numeric: bool


@dataclass(frozen=True)
class DisplayTable:
    """A table ready to be drawn; ``total_rows`` counts the rows before any cut."""

    columns: list[Column]
    rows: list[list[DisplayCell]]
    total_rows: int

    @property
    def cut(self) -> int:
        """Rows left out of the display."""
        return self.total_rows - len(self.rows)


def label(name: str) -> str:
    """``"fve_mean"`` → ``"FVE mean"``; ``"retained.proper_noun"`` → ``"retained: proper noun"``."""
    if name == "length_penalty":
        return "λ"
    words = safe_text(name).replace(".", ": ", 1).replace("_", " ").split()
    return " ".join(_SPELLED.get(word, word) for word in words)


def decimals_for(values: Iterable[float], *, share: bool = False) -> int:
    """Decimals for a column, so that its largest value shows about four digits."""
    finite = [abs(value) for value in values if math.isfinite(value)]
    if share or not finite:
        return 1
    largest = max(finite)
    if all(value == int(value) for value in finite):
        return 0
    for bound, decimals in ((1000, 0), (10, 1), (1, 2), (0.01, 3)):
        if largest >= bound:
            return decimals
    return 5


def formatted(value: float, decimals: int, *, share: bool = False, unit: bool = True) -> str:
    """``value`` with a true minus sign and thousands separated; shares in percent."""
    shown = 100 * value if share else value
    text = f"{shown:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−") + ("%" if share and unit else "")


def _interval(low: Any, high: Any, decimals: int, share: bool) -> str:
    if not _is_number(low) or not _is_number(high):
        return ""
    ends = (formatted(end, decimals, share=share, unit=False) for end in (low, high))
    return "[" + ", ".join(ends) + "]"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | pl.Series):
        return ", ".join(_text(item) for item in value) or MISSING
    if isinstance(value, float):
        return formatted(value, decimals_for([value])) if math.isfinite(value) else MISSING
    return safe_text(value) or "“”"


def display(
    records: Sequence[dict[str, Any]],
    names: Sequence[str],
    unit_of: Callable[[str], Unit | None] = lambda name: None,
) -> DisplayTable:
    """Build a table in which ``x_low`` and ``x_high`` become the interval of ``x``.

    ``unit_of`` says what a column counts; shares are shown in percent.
    """
    present = set(names)
    folded = {
        f"{name}{end}"
        for name in names
        for end in ("_low", "_high")
        if {f"{name}_low", f"{name}_high"} <= present
    }
    columns: list[Column] = []
    cells_by_column: list[list[DisplayCell]] = []
    for name in names:
        if name in folded:
            continue
        values: list[Any] = [record.get(name) for record in records]
        numeric = [value for value in values if _is_number(value)]
        is_numeric = bool(numeric) and all(
            value is None or (isinstance(value, int | float) and not isinstance(value, bool))
            for value in values
        )
        columns.append(Column(name, label(name), is_numeric))
        if not is_numeric:
            cells_by_column.append(
                [DisplayCell(_text(value), sort=_text(value)) for value in values]
            )
            continue
        # An identifier or a λ is a name made of digits: grouping or rounding would change it.
        exact = name in ("idx", "length_penalty", "sample", "step")
        share = unit_of(name) == "share"
        decimals = decimals_for(numeric, share=share)
        cells = []
        for record, value in zip(records, values, strict=True):
            if not _is_number(value):
                cells.append(DisplayCell(MISSING))
                continue
            text = f"{value:g}" if exact else formatted(value, decimals, share=share)
            interval = (
                _interval(record.get(f"{name}_low"), record.get(f"{name}_high"), decimals, share)
                if f"{name}_low" in folded
                else ""
            )
            cells.append(DisplayCell(text, interval, float(value)))
        cells_by_column.append(cells)
    rows = [list(row) for row in zip(*cells_by_column, strict=True)]
    return DisplayTable(columns, rows, len(records))


def headline_table(finding: Finding) -> DisplayTable:
    """The headline with models as rows and metrics, each with its interval, as columns."""
    metrics = list(dict.fromkeys(name for row in finding.headline.values() for name in row))
    records = [{finding.rows: name, **metric} for name, metric in finding.headline.items()]
    return display(records, [finding.rows, *metrics], finding.unit_of)


def further_tables(finding: Finding) -> dict[str, pl.DataFrame]:
    """The finding's tables that have rows and say more than its headline does."""
    known = {"model", "length_penalty"}.union(*(set(row) for row in finding.headline.values()))
    return {
        name: frame
        for name, frame in finding.tables.items()
        if frame.height
        and not (
            set(frame.columns) <= known
            and "model" in frame.columns
            and frame["model"].n_unique() == frame.height
        )
    }


def frame_table(
    frame: pl.DataFrame,
    unit_of: Callable[[str], Unit | None] = lambda name: None,
    *,
    limit: int | None = None,
) -> DisplayTable:
    """A finding's table, cut after ``limit`` rows; ``unit_of`` as in :func:`display`."""
    shown = frame if limit is None else frame.head(limit)
    table = display(shown.to_dicts(), frame.columns, unit_of)
    return DisplayTable(table.columns, table.rows, frame.height)
