"""A finding in the terminal: the verdict first, then the numbers it rests on."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nla_audit.findings import Finding
from nla_audit.report.escape import safe_text
from nla_audit.report.tables import DisplayTable, frame_table, headline_table, label

#: Longer tables belong to the report and to ``--json``; a screen holds about this many rows.
MAX_ROWS = 20
#: A column of prose may wrap below this width; numbers never do.
_PROSE_WIDTH = 32
_CELL_PADDING = 3


def print_finding(finding: Finding, console: Console) -> None:
    """Print verdict, headline table, caveats and the small tables of ``finding``."""
    console.print()
    console.print(Text(safe_text(finding.question), style="italic"))
    console.print(Text(safe_text(finding.verdict), style="bold"))
    if finding.reference is not None:
        console.print(Text(f"reference: {safe_text(finding.reference)}", style="dim"))
    if finding.headline:
        _print_table(headline_table(finding), console)
    if finding.caveats:
        console.print(Text("Read this before quoting it", style="yellow"))
        for caveat in finding.caveats:
            console.print(Padding(Text(f"• {safe_text(caveat)}"), (0, 0, 0, 1)))
    for name, frame in finding.tables.items():
        if frame.height == 0:
            continue
        if frame.height > MAX_ROWS:
            note = f"{label(name)}: {frame.height:,} rows, in the report and with --json"
            console.print(Text(note, style="dim"))
            continue
        console.print()
        console.print(Text(label(name), style="bold"))
        _print_table(frame_table(frame), console)


def _print_table(table: DisplayTable, console: Console) -> None:
    """Print ``table``, in several blocks under each other where it is wider than the console.

    The first column, which says what a row is about, is repeated in every block.
    """
    widths = [_width(table, index) for index in range(len(table.columns))]
    for block in _blocks(widths, console.width):
        view = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
        for index in block:
            column = table.columns[index]
            view.add_column(
                Text(column.label),
                justify="right" if column.numeric else "left",
                width=min(widths[index], console.width) - _CELL_PADDING,
                overflow="fold",
                vertical="bottom" if column.numeric else "top",
            )
        for row in table.rows:
            view.add_row(*(_cell(row[index].text, row[index].interval) for index in block))
        console.print(view)


def _cell(text: str, interval: str) -> Text:
    cell = Text(text)
    if interval:
        cell.append(f" {interval}", style="dim")
    return cell


def _width(table: DisplayTable, index: int) -> int:
    column = table.columns[index]
    longest_word = max((len(word) for word in column.label.split()), default=1)
    longest = max((len(row[index].line) for row in table.rows), default=1)
    if not column.numeric:
        longest = min(longest, _PROSE_WIDTH)
    return max(longest, longest_word) + _CELL_PADDING


def _blocks(widths: list[int], available: int) -> list[list[int]]:
    blocks = [[0]]
    used = widths[0]
    for index in range(1, len(widths)):
        if used + widths[index] > available and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(index)
        used += widths[index]
    return blocks
