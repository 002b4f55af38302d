"""Rows of JSON, strictly: a value is what the file says, never turned into something else.

polars' own reader turns numbers and lists into text where a column holds both, and half of a
surrogate pair into a zero. Here each value keeps its type, and one that cannot be meant is an
error that names its row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path
from typing import Any

import polars as pl

from nla_audit.errors import UserError
from nla_audit.table.schema import shown
from nla_audit.unicode_form import half_pair

#: Rows turned into a frame at once, to bound the Python objects in memory.
_CHUNK = 20_000
#: A file that is one JSON object is looked at whole only up to this size, to say what it is.
_MOST_LOOKED_AT = 64 << 20
#: Keys under which exports put the rows of a table, beside others that say what it is.
_WRAPPING = frozenset({"rows", "data", "records", "results", "items", "completions"})
_INT64 = range(-(1 << 63), 1 << 63)
_UINT64 = range(1 << 64)

#: Kind of a column → the types that its values may have, and what that is called.
_ALLOWED: dict[str, tuple[set[type], str]] = {
    "text": ({str}, "text"),
    "label": ({str, int, float}, "text or a number"),
    "value": ({str, int, float, bool}, "a single value"),
}
#: Name of a key → whether it is read.
Keep = Callable[[str], bool]
#: Name of a column → what its values must be: a key of ``_ALLOWED``, or ``"any"``.
Kind = Callable[[str], str]
_Row = tuple[str, dict[str, Any]]


def read_json_lines(path: Path, name: str, *, keep: Keep, kind: Kind) -> pl.DataFrame:
    """A frame of JSON lines; keys that a row lacks are null.

    Raises:
        UserError: a line is no JSON object, repeats a key or holds what its column cannot.
    """
    return _frames(_lines(path, name, keep), name, kind)


def read_json_array(path: Path, name: str, *, keep: Keep, kind: Kind) -> pl.DataFrame:
    """A frame of one JSON array of objects; errors as for :func:`read_json_lines`."""
    text = path.read_text(encoding="utf-8-sig")
    value = _parsed(text, name, "write an array of objects, or one object per line")
    rows = (
        (f"{name}: row {row}", _object(item, f"{name}: row {row}", keep))
        for row, item in enumerate(value)
    )
    return _frames(rows, name, kind)


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of one object as they stand in the file, repetitions included."""


def _parsed(text: str, where: str, advice: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        place = f"character {error.colno}" if error.lineno == 1 else f"line {error.lineno}"
        raise UserError(f"{where} is not JSON ({error.msg} at {place}): {advice}") from error
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply: {advice}") from error
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        raise UserError(f"{where} holds a number of thousands of digits: {advice}") from error


def _lines(path: Path, name: str, keep: Keep) -> Iterator[_Row]:
    row, first = 0, None
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{name}: row {row} (line {number})"
            try:
                value = _parsed(line, where, "correct or remove the line")
            except UserError:
                if row == 0:
                    _forbid_one_object(path, name)
                raise
            if row == 0 and _is_header(value):
                continue
            first = value if row == 0 else None
            yield where, _object(value, where, keep)
            row += 1
    if isinstance(first, _Pairs):
        _forbid_wrapped_rows(dict(first), name)


def _is_header(value: Any) -> bool:
    """Whether a first line says how the others were made, as evaluation dumps of EasyNLA do."""
    return isinstance(value, _Pairs) and ("meta", True) in value and "idx" not in dict(value)


def _forbid_one_object(path: Path, name: str) -> None:
    """Say so if the whole file is one object, of which the first line is only the beginning."""
    if path.stat().st_size > _MOST_LOOKED_AT:
        return
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return
    _forbid_wrapped_rows(whole, name)
    if isinstance(whole, dict) and all(isinstance(item, list | dict) for item in whole.values()):
        raise UserError(
            f"{name}: one JSON object that holds a table by its columns: write an array of "
            "objects, or one object per line"
        )
    raise UserError(
        f"{name}: one JSON object over several lines, not rows: write an array of objects, or one "
        "object per line"
    )


def _forbid_wrapped_rows(value: Any, name: str) -> None:
    """Say so if the one object of a file holds a whole table under one of its keys."""
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        is_table = (
            isinstance(item, list) and item and all(isinstance(one, dict | list) for one in item)
        )
        if is_table and (len(value) == 1 or key.lower() in _WRAPPING):
            raise UserError(
                f"{name}: one JSON object that holds the rows under {shown(key)}: write that array "
                "alone, with one object for each row, or one object per line"
            )


def _object(value: Any, where: str, keep: Keep) -> dict[str, Any]:
    if not isinstance(value, _Pairs):
        raise UserError(f"{where} is not a JSON object: write one object per line")
    kept = [(key, item) for key, item in value if keep(key)]
    row = dict(kept)
    if len(row) < len(kept):
        keys = [key for key, _ in kept]
        double = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f'{where} holds the key "{double}" twice: remove one of them')
    return row


def _frames(rows: Iterator[_Row], name: str, kind: Kind) -> pl.DataFrame:
    frames: list[pl.DataFrame] = []
    chunk: list[_Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            frames.append(_frame(chunk, kind))
            chunk = []
    if chunk:
        frames.append(_frame(chunk, kind))
    if not frames:
        raise UserError(f"{name}: the file has no rows: write the table again")
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{name}: a column changes its type on the way ({error})") from error


def _frame(rows: list[_Row], kind: Kind) -> pl.DataFrame:
    names = dict.fromkeys(key for _, row in rows for key in row)
    columns = [_column(name, rows, kind(name)) for name in names]
    if not columns:  # objects without any key that is read are rows all the same
        return pl.DataFrame({"": [None] * len(rows)})
    return pl.DataFrame(columns)


def _column(name: str, rows: list[_Row], kind: str) -> pl.Series:
    values = [row.get(name) for _, row in rows]
    types = {type(value) for value in values} - {type(None)}
    if kind == "text" and float in types:  # pandas writes NaN for a text that is not there
        values = [None if type(value) is float and isnan(value) else value for value in values]
        types = {type(value) for value in values} - {type(None)}
    allowed, wanted = _ALLOWED.get(kind, (types, ""))
    if not types <= allowed:
        bad = next(n for n, v in enumerate(values) if v is not None and type(v) not in allowed)
        raise UserError(
            f'{rows[bad][0]}: column "{name}" holds {_shown(values[bad])}, which is not {wanted}: '
            "correct the value or leave it null"
        )
    if str in types:
        _forbid_half_pairs(name, rows, values)
    return _series(name, rows, values, types)


def _series(name: str, rows: list[_Row], values: list[Any], types: set[type]) -> pl.Series:
    if types == {int, float} and all(
        abs(value) <= 1 << 53 for value in values if type(value) is int
    ):
        types = {float}
        values = [None if value is None else float(value) for value in values]
    if types == {int}:
        if all(value is None or value in _INT64 for value in values):
            return pl.Series(name, values, dtype=pl.Int64)
        if all(value is None or value in _UINT64 for value in values):
            return pl.Series(name, values, dtype=pl.UInt64)
    if not types <= {str, int, float, bool}:
        try:
            return pl.Series(name, [_plain(value) for value in values], strict=True)
        except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError):
            raise UserError(
                f'{rows[0][0]}: column "{name}" holds values of several types: write one type'
            ) from None
    if len(types) <= 1 and int not in types:
        return pl.Series(name, values)
    return pl.Series(name, [_as_text(value) for value in values], dtype=pl.String)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def _plain(value: Any) -> Any:
    """Lists and objects without the pairs that they were parsed into."""
    if isinstance(value, _Pairs):
        return {key: _plain(item) for key, item in value}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _forbid_half_pairs(name: str, rows: list[_Row], values: list[Any]) -> None:
    texts = [value if isinstance(value, str) else "" for value in values]
    if half_pair("".join(texts)) is None:
        return
    for (where, _), text in zip(rows, texts, strict=True):
        place = half_pair(text)
        if place is not None:
            raise UserError(
                f'{where}: column "{name}" holds half of a surrogate pair (character '
                f"{place + 1}), which is no sign: correct or remove the row"
            )


def _shown(value: Any) -> str:
    if isinstance(value, _Pairs):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "…"
