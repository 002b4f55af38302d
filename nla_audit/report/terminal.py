"""A finding in the terminal: the verdict first, then the numbers it rests on."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nla_audit.findings import Finding
from nla_audit.report.escape import safe_text
from nla_audit.report.tables import DisplayTable, frame_table, further_tables, headline_table, label

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
        print_table(headline_table(finding), console)
    if finding.caveats:
        console.print(Text("Read this before quoting it", style="yellow"))
        for caveat in finding.caveats:
            console.print(Padding(Text(f"• {safe_text(caveat)}"), (0, 0, 0, 1)))
    for name, frame in further_tables(finding).items():
        if name in (finding.headline_table, finding.examples_table):
            continue
        if frame.height > MAX_ROWS:
            note = f"{label(name)}: {frame.height:,} rows, in the report and with --json"
            console.print(Text(note, style="dim"))
            continue
        console.print()
        console.print(Text(label(name), style="bold"))
        print_table(frame_table(frame, finding.unit_of), console)


def print_table(table: DisplayTable, console: Console) -> None:
    """Print ``table``, in several blocks under each other where it is wider than the console.

    The columns that tell the rows apart are repeated in every block.
    """
    widths = [_width(table, index) for index in range(len(table.columns))]
    for block in _blocks(widths, _keys(table, widths, console.width), console.width):
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


def _keys(table: DisplayTable, widths: list[int], available: int) -> list[int]:
    """The first columns that together name each row, as far as half a line holds them."""
    keys = [0]
    names: list[tuple[str, ...]] = [(row[0].text,) for row in table.rows]
    for index in range(1, len(table.columns)):
        distinct = len(set(names))
        longer = [(*name, row[index].text) for name, row in zip(names, table.rows, strict=True)]
        fits = sum(widths[key] for key in keys) + widths[index] <= available / 2
        if distinct == len(names) or not fits:
            break
        if len(set(longer)) > distinct:
            keys.append(index)
            names = longer
    return keys


def _blocks(widths: list[int], keys: list[int], available: int) -> list[list[int]]:
    """Columns of each block: the keys, and as many others in their order as fit."""
    blocks: list[list[int]] = [[]]
    left = room = available - sum(widths[key] for key in keys)
    for index in range(len(widths)):
        if index in keys:
            continue
        if widths[index] > left and blocks[-1]:
            blocks.append([])
            left = room
        blocks[-1].append(index)
        left -= widths[index]
    return [sorted(keys + block) for block in blocks]
