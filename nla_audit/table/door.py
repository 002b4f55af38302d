"""Refusals at the door of a table, whatever it holds: which row is wrong, which model there is not.

Completions (:mod:`nla_audit.table.validation`) and FVE by prefix
(:mod:`nla_audit.table.prefix_table`) are let in by the same rules of speech.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from difflib import get_close_matches

import polars as pl

from nla_audit.errors import UserError
from nla_audit.table.schema import FILE, locate, shown
from nla_audit.wording import count

#: FVE = 1 − MSE / baseline cannot exceed 1; this much is rounding.
FVE_ROUNDING = 1e-6
#: A measurement beyond this comes of weights or activations that are broken, its sums and squares
#: are no numbers any more, and no figure shows it.
LARGEST_NUMBER = 1e30
TOO_LARGE = (
    "is larger than any measurement that can be averaged: score the row again, or leave the field "
    "empty"
)


class Door:
    """Turns a condition on rows into an error that names the first row that meets it.

    Args:
        files: names of the inputs; rows say in column ``_file`` which is theirs.
    """

    def __init__(self, files: Sequence[str]):
        self._files = files

    def where(self, rows: pl.DataFrame, position: int) -> str:
        """File, row, model and activation of the row at ``position``."""
        return locate(rows, position, self._files[rows[FILE][position]])

    def file(self, rows: pl.DataFrame) -> str:
        """The file of the first row, for errors about the table as a whole."""
        return self._files[rows[FILE][0]]

    def forbid(self, rows: pl.DataFrame, condition: pl.Expr, column: str, problem: str) -> None:
        """Raise if any row meets ``condition``; ``problem`` says what is wrong and what to do."""
        bad = rows.select(condition.fill_null(False).alias("bad"))["bad"]
        if not bad.any():
            return
        first = int(bad.arg_max() or 0)
        value = rows[column][first]
        value = value.to_list() if isinstance(value, pl.Series) else value
        held = "" if value is None else f" holds {shown(value)}, which"
        total = int(bad.sum())
        others = f" ({count(total, 'such row')})" if total > 1 else ""
        raise UserError(f'{self.where(rows, first)}: column "{column}"{held} {problem}{others}')


def of_models(rows: pl.DataFrame, models: Sequence[str], file: str) -> pl.DataFrame:
    """The rows of ``models``; all of them where none is named.

    Raises:
        UserError: a model that the table does not have.
    """
    known = rows["model"].unique().sort().to_list()
    for name in models:
        check_model(name, known, file)
    return rows.filter(pl.col("model").is_in(list(models))) if models else rows


def named_models(text: str, option: str) -> list[str]:
    """``'p0.0,"a,b"'`` as names: as in a CSV, one that holds a comma stands in double quotes.

    Args:
        option: where they were named, for the message.

    Raises:
        UserError: a quotation is not closed.
    """
    try:
        names = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error:
        raise UserError(
            f"{option} {text}: write names with commas between them, and one that holds a comma "
            'itself in double quotes, as p0.0,"a,b"'
        ) from None
    return [name.strip() for name in names]


def check_model(name: str, models: Sequence[str], file: str) -> None:
    """Refuse the name of a model that is none of ``models``.

    Raises:
        UserError: with the names there are, and the nearest of them.
    """
    if name in models:
        return
    near = get_close_matches(name, models, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    known = ", ".join(shown(one) if "," in one else shown(one)[1:-1] for one in models)
    raise UserError(
        f"{file}: no model {shown(name)} ({count(len(models), 'model')}: {known}): "
        f"{hint}choose one of these"
    )
