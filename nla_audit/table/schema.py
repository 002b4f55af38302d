"""The columns of a completions table: names, types, and their conversion with row-naming errors.

The names are those that published sweeps use (syvb/nanoNLA, length-penalty branch), plus the
optional ones that this package reads. Conversion never guesses: a value that is not of the
column's type is an error that names file, row and column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import polars as pl

from nla_audit.errors import UserError
from nla_audit.unicode_form import composed_column
from nla_audit.wording import count

#: Without these a table cannot be read at all.
REQUIRED = ("model", "idx", "explanation")

#: Every column of :attr:`~nla_audit.table.completions.Completions.rows` that an input may hold, in
#: their order.
INPUT_COLUMNS: dict[str, pl.DataType] = {
    "model": pl.String(),
    "length_penalty": pl.Float64(),
    "idx": pl.Int64(),
    "sample": pl.Int64(),
    "ar": pl.String(),
    "doc_id": pl.String(),
    "position": pl.Int64(),
    "step": pl.Int64(),
    "source_text": pl.String(),
    "explanation": pl.String(),
    "n_tokens": pl.Int64(),
    "content_tokens": pl.Float64(),
    "mse": pl.Float64(),
    "nmse": pl.Float64(),
    "fve": pl.Float64(),
    "fve_baseline": pl.String(),
    "fve_baseline_value": pl.Float64(),
    "reward": pl.Float64(),
    "extracted": pl.Boolean(),
    "cjk": pl.Float64(),
    "segment_ends": pl.List(pl.Int64()),
}
#: Other names in use for a column (the last three: nla_reliability). The column's own name wins
#: where a table has both.
ALIASES = {
    "tag": "model",
    "activation_idx": "idx",
    "sample_idx": "sample",
    "description": "explanation",
}
#: Columns of running text; a number there is a sign of the wrong column, not something to print.
_PROSE = ("source_text", "explanation")
#: Names and labels, which other tools often write as integers.
_LABELS = ("model", "ar", "doc_id", "fve_baseline")
#: Position of a row: which input file, and which row of it (0-based).
FILE, ROW = "_file", "_row"
_BOOLEAN_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def column_key(name: str) -> str:
    """What two spellings of a column's name have in common: case and outer spaces do not count."""
    return name.strip().lower()


def is_known(name: str) -> bool:
    """Whether a column of this name is read as one of completions."""
    return column_key(name) in INPUT_COLUMNS or column_key(name) in ALIASES


def json_kind(name: str) -> str:
    """What JSON may hold in a column of this name, as :mod:`nla_audit.table.json_rows` calls it."""
    canonical = ALIASES.get(column_key(name), column_key(name))
    if canonical in _PROSE:
        return "text"
    if canonical == "segment_ends":
        return "any"
    return "label" if canonical in _LABELS or canonical == "idx" else "value"


def forbid_doubled(names: Sequence[str], *, file: str) -> None:
    """Raise if two columns have one name.

    Raises:
        UserError: with both, where they differ in case.
    """
    seen: dict[str, str] = {}
    for name in names:
        before = seen.setdefault(column_key(name), name)
        if before is not name and column_key(name):
            raise UserError(
                f"{file}: column {shown(before)} occurs twice"
                f"{'' if before == name else f', the second time as {shown(name)}'}: remove or "
                "rename one"
            )


def source_columns(
    available: list[str], *, file: str, named_after_file: bool = False
) -> dict[str, str]:
    """Canonical name → name in ``file``, for the known columns among ``available``.

    Args:
        available: the columns there are, in whatever case.
        file: its name, for messages.
        named_after_file: do without ``model`` where no column looks like it.

    Raises:
        UserError: a required column is missing (the nearest name is suggested, if it is not a
            known column itself), or two differ in case only.
    """
    known = [name for name in available if is_known(name) and name not in INPUT_COLUMNS]
    exact = {name: name for name in INPUT_COLUMNS if name in available}
    forbid_doubled([name for name in known if column_key(name) not in exact], file=file)
    spelled = {column_key(name): name for name in known}
    chosen = {name: spelled[alias] for alias, name in ALIASES.items() if alias in spelled}
    chosen |= {name: spelled[name] for name in INPUT_COLUMNS if name in spelled}
    chosen |= exact
    for name in REQUIRED:
        if name not in chosen:
            _say_missing(name, available, file, may_lack=named_after_file and name == "model")
    return {name: chosen[name] for name in INPUT_COLUMNS if name in chosen}


def _say_missing(name: str, available: list[str], file: str, *, may_lack: bool) -> None:
    """Raise what helps: a column that is known for something else is never the one to rename."""
    others = {column_key(other): other for other in available if not is_known(other)}
    near = get_close_matches(name, list(others), n=1, cutoff=0.75) or [
        key for key in others if key.rstrip("s") == name or key.endswith(f"_{name}")
    ]
    if near:
        hint = f'rename "{others[near[0]]}" to "{name}"'
    elif may_lack:
        return
    elif name == "idx" and "doc_id" in map(column_key, available):
        hint = 'number the activations in it, or rename "doc_id" where each document has only one'
    else:
        hint = f"add it; the columns there are: {', '.join(available[:12]) or 'none'}"
    raise UserError(f'{file}: column "{name}" is missing: {hint}')


def convert(frame: pl.DataFrame, *, file: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """``frame`` with each known column in its canonical type and all text in NFC, and notes.

    Absent columns become null. ``idx`` stays text where the file holds text; whether all of it is
    numbers can be told only over all files together. ``frame`` carries :data:`FILE` and
    :data:`ROW`, which are kept.

    Raises:
        UserError: a value that is not of its column's type, with its row.
    """
    converted = [frame[FILE], frame[ROW]]
    unlike = pl.repeat(False, frame.height, eager=True)
    for name, dtype in INPUT_COLUMNS.items():
        if name not in frame.columns:
            empty = pl.Series(name, [None], dtype=dtype)
            converted.append(empty.new_from_index(0, frame.height))
            continue
        column = typed(frame, name, dtype, file=file)
        if column.dtype == pl.String:
            normal = composed_column(column)
            unlike |= (normal != column).fill_null(False)
            column = normal
        converted.append(column)
    rows = int(unlike.sum())
    note = f"{file}: {count(rows, 'row')} with decomposed letters, read as composed ones (NFC)."
    return pl.DataFrame(converted), (note,) if rows else ()


def typed(frame: pl.DataFrame, name: str, dtype: pl.DataType, *, file: str) -> pl.Series:
    """Column ``name`` of ``frame`` as ``dtype``; null where it is empty.

    ``idx`` stays text where it is text. ``frame`` carries :data:`ROW`, for messages.

    Raises:
        UserError: a value that is not of this type, with its row.
    """
    column = frame[name]
    if dtype == pl.List(pl.Int64()):
        return _number_lists(frame, name, file)
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String and (name == "idx" or name in _LABELS):
        return without_blanks(column)
    if column.dtype in (dtype, pl.Null):
        return column if column.dtype == pl.String else column.cast(dtype)
    _forbid_type(column, name, dtype, file)
    if name == "idx" and column.dtype.is_integer() and not _fits_64_bits(column):
        return column.cast(pl.String)  # ids such as hashes without a sign: names, as in a text
    if name in _LABELS:
        return _labels(column)
    if dtype == pl.Boolean:
        result = _booleans(column)
    elif dtype == pl.Int64:
        result = _integers(column)
    else:
        result = _floats(column)
    bad = _is_given(column) & result.is_null()
    if bad.any():
        first = int(bad.arg_max() or 0)
        raise UserError(
            f'{locate(frame, first, file)}: column "{name}" holds {shown(column[first])}, which is '
            f"not {_value_words(dtype)} ({count(int(bad.sum()), 'such row')}): correct the value "
            "or leave it empty"
        )
    return result


def _number_lists(frame: pl.DataFrame, name: str, file: str) -> pl.Series:
    """A column of lists of whole numbers; a CSV writes them as ``[12, 40]`` or ``12 40``."""
    column = frame[name]
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    wrong = f'{file}: column "{name}" holds no lists of whole numbers: write such as [12, 40]'
    if column.dtype == pl.Null:
        return column.cast(pl.List(pl.Int64()))
    if column.dtype == pl.String:
        inner = column.str.strip_chars().str.strip_chars("[]").str.strip_chars()
        parts = inner.str.replace_all(r"[\s,;]+", " ").str.split(" ")
        is_bare = column.is_null() | (column.str.strip_chars() == "")
        numbers = parts.list.eval(pl.element().filter(pl.element() != ""))
        cast = numbers.list.eval(pl.element().cast(pl.Int64, strict=False))
        bad = cast.list.eval(pl.element().is_null()).list.any().fill_null(False)
        if bad.any():
            first = int(bad.arg_max() or 0)
            raise UserError(
                f'{locate(frame, first, file)}: column "{name}" holds {shown(column[first])}, '
                "which is no list of whole numbers: write such as [12, 40]"
            )
        return pl.select(pl.when(~is_bare).then(cast)).to_series().alias(name)
    if not isinstance(column.dtype, pl.List):
        raise UserError(wrong)
    if not (column.dtype.inner.is_integer() or column.dtype.inner == pl.Null):
        raise UserError(wrong)
    return column.cast(pl.List(pl.Int64()))


def _forbid_type(column: pl.Series, name: str, dtype: pl.DataType, file: str) -> None:
    """Raise where no value of a column of this type can be meant."""
    wrong = f'{file}: column "{name}" holds {_type_words(column.dtype)}'
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Boolean)):
        raise UserError(f"{wrong}: write {_type_words(dtype)} there")
    if name in _PROSE:
        raise UserError(f"{wrong} where text belongs: check that it is the right column")
    if column.dtype == pl.Boolean and name in ("idx", *_LABELS):
        raise UserError(f"{wrong}: write names or numbers there")


def forbid_other_types(
    frame: pl.DataFrame, names: Iterable[str], *, file: str, numbers: bool = False
) -> None:
    """Raise where a column of ``names`` cannot hold single values, or ``numbers`` or their text.

    Raises:
        UserError: with the first such column.
    """
    for name in names:
        dtype = frame.schema.get(name, pl.Null())
        compound = dtype.is_nested() or dtype in (pl.Object, pl.Binary)
        if compound or (numbers and (dtype.is_temporal() or dtype == pl.Boolean)):
            wanted = "numbers" if numbers else "text or numbers"
            raise UserError(
                f'{file}: column "{name}" holds {_type_words(dtype)}: write {wanted} there'
            )


def _is_given(column: pl.Series) -> pl.Series:
    """Whether each value is there: not null, not blank text, not the NaN that pandas writes."""
    if column.dtype == pl.String:
        return column.is_not_null() & (column.str.strip_chars() != "")
    if column.dtype.is_float():
        return column.is_not_null() & column.is_not_nan()
    return column.is_not_null()


def _floats(column: pl.Series) -> pl.Series:
    text = column.str.strip_chars() if column.dtype == pl.String else column
    return text.cast(pl.Float64, strict=False)


def without_blanks(column: pl.Series) -> pl.Series:
    """Names without white space around them; null where nothing is left, as in an empty field."""
    stripped = column.str.strip_chars()
    return stripped.set(stripped == "", None)


def _labels(column: pl.Series) -> pl.Series:
    if (
        column.dtype.is_float()
        and _integers(column).null_count() == (column.is_null() | column.is_nan()).sum()
    ):
        column = _integers(column)  # integers with gaps, which pandas writes as floats
    return column.cast(pl.String)


def _integers(column: pl.Series) -> pl.Series:
    """Whole numbers; null where a value is none (floats written by pandas may be whole)."""
    if column.dtype.is_integer() or column.dtype == pl.Boolean:
        return column.cast(pl.Int64, strict=False)
    text = column.str.strip_chars() if column.dtype == pl.String else column
    numbers = text.cast(pl.Float64, strict=False)
    whole = numbers.set(numbers.is_infinite() | (numbers != numbers.floor()), None)
    exact = text.cast(pl.Int64, strict=False)
    return (
        pl.select(
            pl.when(whole.is_not_null()).then(exact.fill_null(whole.cast(pl.Int64, strict=False)))
        )
        .to_series()
        .alias(column.name)
    )


def _fits_64_bits(column: pl.Series) -> bool:
    return column.cast(pl.Int64, strict=False).null_count() == column.null_count()


def _booleans(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        words = column.str.strip_chars().str.to_lowercase()
    else:
        words = column.cast(pl.Float64).replace_strict({1.0: "1", 0.0: "0"}, default=None)
    return words.replace_strict(_BOOLEAN_WORDS, default=None, return_dtype=pl.Boolean)


def locate(frame: pl.DataFrame, position: int, file: str) -> str:
    """``"file: row 7 (model p0.0, idx 3)"`` for the row at ``position`` of ``frame``."""
    named = [
        f"{name} {shown(frame[name][position])}"
        for name in ("model", "idx")
        if name in frame.columns and frame[name][position] is not None
    ]
    inside = f" ({', '.join(named)})" if named else ""
    return f"{file}: row {frame[ROW][position]}{inside}"


def shown(value: object, limit: int = 40) -> str:
    """A value from a stranger's table as one printable line of at most about ``limit`` signs."""
    text = str(value)
    text = "".join(sign if sign.isprintable() else " " for sign in text[: limit + 1])
    text = text[:limit] + "…" if len(text) > limit else text
    return f'"{text}"' if isinstance(value, str) else text


def _type_words(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "numbers"
    if dtype == pl.String:
        return "text"
    if dtype == pl.Boolean:
        return "true/false"
    return f"{str(dtype).split('(', maxsplit=1)[0].lower()} values"


def _value_words(dtype: pl.DataType) -> str:
    if dtype == pl.Boolean:
        return "true or false"
    return "a whole number" if dtype == pl.Int64 else "a number"
