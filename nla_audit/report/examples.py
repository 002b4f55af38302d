"""Texts before and after a change, what differs marked word by word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import polars as pl
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from nla_audit.report.escape import safe_text
from nla_audit.report.tables import formatted, label

_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
#: Texts of which less than this stands in both are not versions of each other: marks between
#: them would only show which words happen to recur.
_LEAST_SHARED = 0.25
_SHOWN_SPACES = {" ": "␣", "\n": "⏎\n", "\t": "⇥"}


@dataclass(frozen=True)
class Piece:
    """A run of text that both versions have, or only this one."""

    text: str
    is_changed: bool


@dataclass(frozen=True)
class Example:
    """One text in two versions, and the numbers that belong to it in words."""

    title: str
    before: list[Piece]
    after: list[Piece]


def differences(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces; changed white space and invisible characters are made visible."""
    ours, theirs = _TOKEN.findall(before), _TOKEN.findall(after)
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    shared = sum(
        not token.isspace()
        for start, _, length in matcher.get_matching_blocks()
        for token in ours[start : start + length]
    )
    longest = max(sum(not token.isspace() for token in tokens) for tokens in (ours, theirs))
    if shared < _LEAST_SHARED * longest:
        return [Piece(before, False)], [Piece(after, False)]
    left, right = [], []
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        same = kind == "equal"
        left.append(_piece(ours[start:end], same))
        right.append(_piece(theirs[other_start:other_end], same))
    return [piece for piece in left if piece.text], [piece for piece in right if piece.text]


def examples_by_variant(table: pl.DataFrame) -> dict[str, list[Example]]:
    """The examples of a probe: variant → examples, in the table's order.

    Args:
        table: ``variant, shown, model, idx, fve_before, fve_after, similarity, before, after``
            (:func:`nla_audit.probes.stego.examples.chosen_examples`).
    """
    found: dict[str, list[Example]] = {}
    for row in table.iter_rows(named=True):
        before, after = differences(row["before"], row["after"])
        title = f"{row['shown']}: activation {row['idx']} of {row['model']}, FVE "
        title += f"{formatted(row['fve_before'], 3)} → {formatted(row['fve_after'], 3)}"
        if row["similarity"] is not None:
            title += f", similarity {formatted(row['similarity'], 2)}"
        found.setdefault(row["variant"], []).append(Example(title, before, after))
    return found


def joined(pieces: Sequence[Piece]) -> str:
    """The text of some pieces."""
    return "".join(piece.text for piece in pieces)


def print_examples(table: pl.DataFrame, variants: Sequence[str], console: Console) -> None:
    """Print the last example (that of the largest loss) of each of ``variants``."""
    found = examples_by_variant(table)
    shown = [name for name in variants if name in found]
    if not shown:
        return
    console.print()
    console.print(Text("before and after", style="bold"))
    for name in shown:
        example = found[name][-1]
        console.print(Text(f"{label(name)}, {safe_text(example.title)}", style="dim"))
        for pieces, style in ((example.before, "red strike"), (example.after, "green underline")):
            line = Text()
            for piece in pieces:
                line.append(safe_text(piece.text), style if piece.is_changed else "")
            console.print(Padding(line, (0, 0, 0, 2)))


def _piece(tokens: Sequence[str], same: bool) -> Piece:
    text = "".join(tokens)
    return Piece(text if same else _visible(text), not same)


def _visible(text: str) -> str:
    """Characters that nobody sees by their number; white space that is all there is by a sign."""
    shown = "".join(
        f"⟨U+{ord(sign):04X}⟩" if unicodedata.category(sign) == "Cf" else sign for sign in text
    )
    return "".join(_SHOWN_SPACES.get(s, s) for s in shown) if shown.isspace() else shown
