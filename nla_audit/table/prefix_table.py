"""The table of FVE by prefix: one row is what an AR makes of the beginning of an explanation.

The long form has the columns ``model, idx, sample, unit, length, fve``, where ``length`` counts
``tokens``, ``claims``, ``segments`` or ``lines`` from the start of the text; means over activations
have no ``idx``. It is what ``explain``, ``score`` and training write. Published means are read as
they are: ``length_tokens`` and ``length_lines`` say the unit, and a file of one model is called
like it (``token_fve_v2.csv``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from nla_audit.errors import UserError
from nla_audit.table.completions import SourceFile
from nla_audit.table.door import (
    FVE_ROUNDING,
    LARGEST_NUMBER,
    TOO_LARGE,
    Door,
    check_model,
    of_models,
)
from nla_audit.table.model_names import default_reference, length_penalty_of, ordered
from nla_audit.table.readers import find_tables, read_whole
from nla_audit.table.schema import FILE, ROW, column_key, forbid_doubled, shown, typed

__all__ = ["UNITS", "PrefixTable", "is_prefix_table", "prefixes_from_frame", "read_prefixes"]

#: What a length may count, the finest first; each also under its singular.
UNITS = ("tokens", "claims", "segments", "lines")
_UNIT_OF = {name: unit for unit in UNITS for name in (unit, unit.removesuffix("s"))}
#: Columns of the canonical rows.
_COLUMNS: dict[str, pl.DataType] = {
    "model": pl.String(),
    "length_penalty": pl.Float64(),
    "idx": pl.String(),
    "sample": pl.Int64(),
    "doc_id": pl.String(),
    "unit": pl.String(),
    "length": pl.Int64(),
    "tokens": pl.Int64(),
    "text_tokens": pl.Int64(),
    "fve": pl.Float64(),
    "n_at_full": pl.Int64(),
    "ar": pl.String(),
    "fve_baseline": pl.String(),
    "broken_word": pl.Boolean(),
}
#: Name in a file → canonical name; ``length_UNIT`` says the unit as well.
_ALIASES = {
    "tag": "model",
    "activation_idx": "idx",
    "sample_idx": "sample",
    "prefix_tokens": "length",
    "n_samples_at_full": "n_at_full",
    "fve_percent": "fve",
    "fve_pct": "fve",
    **{f"length_{name}": "length" for name in _UNIT_OF},
}
#: Names of length columns → the unit they count in.
_UNIT_IN_NAME = {
    "prefix_tokens": "tokens",
    **{f"length_{name}": unit for name, unit in _UNIT_OF.items()},
}
_PERCENT_COLUMNS = ("fve_percent", "fve_pct")
#: How published files of one model are called: the unit, "fve", the model.
_PUBLISHED_STEM = re.compile(rf"(?P<unit>{'|'.join(_UNIT_OF)})_fve(?:_(?P<model>.+))?", re.I)


@dataclass(frozen=True, eq=False)
class PrefixTable:
    """Validated FVE by prefix.

    Attributes:
        rows: ``model, length_penalty, idx`` (text; null in means), ``sample, doc_id, unit, length,
            tokens`` (of the prefix), ``text_tokens`` (of the whole text), ``fve`` (null is not
            scored), ``n_at_full`` (of means: texts that are no longer than this), ``ar,
            fve_baseline, broken_word`` (whether the prefix ends within a word); sorted by model,
            unit, idx, sample and length.
        models: in the order of :func:`nla_audit.table.model_names.ordered`.
        length_penalties: per model; ``None`` is no RL or unknown.
        means: the models of which only means are there.
        reference: the model that differences are taken against.
        ar: the ruler, where the table names it.
        fve_baseline: what FVE is measured against, where the table names it.
        sources: the input files.
        notes: caveats found while reading, as sentences.
    """

    rows: pl.DataFrame
    models: tuple[str, ...]
    length_penalties: dict[str, float | None]
    means: frozenset[str]
    reference: str
    ar: str | None
    fve_baseline: str | None
    sources: tuple[SourceFile, ...]
    notes: tuple[str, ...]

    def units(self, model: str) -> list[str]:
        """The units in which lengths of ``model`` are counted, in the order of :data:`UNITS`."""
        there = set(self.rows.filter(pl.col("model") == model)["unit"])
        return [unit for unit in UNITS if unit in there]


def is_prefix_table(columns: Iterable[str]) -> bool:
    """Whether a table with these columns holds FVE by prefix rather than completions."""
    keys = {column_key(name) for name in columns}
    return bool(keys & {"length", *_UNIT_IN_NAME}) and "explanation" not in keys


def read_prefixes(
    paths: Sequence[str],
    *,
    reference: str | None = None,
    ar: str | None = None,
    models: Sequence[str] = (),
) -> PrefixTable:
    """Read and validate tables of FVE by prefix: files, folders or Hub addresses, as one table.

    Args:
        paths: as for :func:`nla_audit.table.completions.load`.
        reference: the model that differences are taken against; by default the RL model with the
            smallest length penalty, else the first.
        ar: the ruler to keep, where the table holds several.
        models: keep these only; all by default.

    Raises:
        UserError: a table cannot be read or is not valid; the message names file, row and column.
    """
    frames: list[pl.DataFrame] = []
    sources: list[SourceFile] = []
    notes: list[str] = []
    for table in find_tables(paths):
        raw, digest = read_whole(table, lower_case=True)
        sources.append(SourceFile(table.name, digest, raw.height))
        frame, said = _canonical(raw, table.name, len(frames), table.stem)
        frames.append(frame)
        notes += said
    return _checked(frames, sources, notes, reference=reference, ar=ar, models=models)


def prefixes_from_frame(
    frame: pl.DataFrame,
    *,
    reference: str | None = None,
    ar: str | None = None,
    name: str = "<frame>",
) -> PrefixTable:
    """Validate FVE by prefix that is in memory; arguments and errors as :func:`read_prefixes`."""
    forbid_doubled(frame.columns, file=name)
    raw = frame.rename({column: column_key(column) for column in frame.columns})
    canonical, notes = _canonical(raw, name, 0, "model")
    digest = hashlib.sha256(canonical.drop(FILE).write_ndjson().encode()).hexdigest()
    source = SourceFile(name, digest, frame.height)
    return _checked([canonical], [source], notes, reference=reference, ar=ar, models=())


def _canonical(
    raw: pl.DataFrame, file: str, number: int, stem: str
) -> tuple[pl.DataFrame, list[str]]:
    """``raw``, whose names are in lower case, in canonical names and types, with notes."""
    names: dict[str, str] = {}
    for name in raw.columns:
        canonical = name if name in _COLUMNS else _ALIASES.get(name)
        if canonical is None:
            continue
        if canonical in names:
            raise UserError(
                f'{file}: columns "{names[canonical]}" and "{name}" both say {canonical}: remove '
                "one of them"
            )
        names[canonical] = name
    for needed in ("length", "fve"):
        if needed not in names:
            near = get_close_matches(needed, raw.columns, n=1)
            hint = f'rename "{near[0]}"' if near else "needed are model, idx, unit, length, fve"
            raise UserError(f'{file}: column "{needed}" is missing: {hint}')
    if raw.height == 0:
        raise UserError(f"{file}: the table has no rows: write the prefixes again")
    frame = raw.select(pl.col(source).alias(name) for name, source in names.items())
    frame = frame.with_row_index(ROW).with_columns(pl.lit(number, dtype=pl.UInt32).alias(FILE))
    frame, notes = _named(frame, names, file, stem)
    if names["fve"] in _PERCENT_COLUMNS or _has_percent_signs(frame["fve"]):
        frame = frame.with_columns(_from_percent(frame, names["fve"] in _PERCENT_COLUMNS, file))
        notes.append(f"{file}: FVE in per cent, read as shares.")
    columns = [frame[FILE], frame[ROW]]
    for name, dtype in _COLUMNS.items():
        if name in frame.columns:
            column = typed(frame, name, pl.Int64() if name == "idx" else dtype, file=file)
            columns.append(column.cast(dtype))
        else:
            columns.append(pl.Series(name, [None], dtype=dtype).new_from_index(0, frame.height))
    return pl.DataFrame(columns), notes


def _named(
    frame: pl.DataFrame, names: dict[str, str], file: str, stem: str
) -> tuple[pl.DataFrame, list[str]]:
    """``frame`` with a model and a unit, from the file's name where no column says them."""
    published = _PUBLISHED_STEM.fullmatch(stem.rsplit("/", maxsplit=1)[-1])
    notes = []
    if "model" not in names:
        model = (published["model"] if published else None) or stem
        frame = frame.with_columns(pl.lit(model).alias("model"))
        notes.append(f'{file} has no column "model": its rows are taken as "{model}".')
    if "unit" in names:
        return frame, notes
    unit = _UNIT_IN_NAME.get(names["length"])
    if unit is None and published:
        unit = _UNIT_OF[published["unit"].lower()]
    if unit is None:
        raise UserError(
            f'{file}: column "unit" is missing: say there what "length" counts ({", ".join(UNITS)})'
        )
    return frame.with_columns(pl.lit(unit).alias("unit")), notes


def _has_percent_signs(column: pl.Series) -> bool:
    return column.dtype == pl.String and bool(column.str.contains("%", literal=True).any())


def _from_percent(frame: pl.DataFrame, named: bool, file: str) -> pl.Series:
    """Column ``fve`` as shares: all of it where the column is named so, else what bears a sign."""
    text = frame["fve"].cast(pl.String)
    is_percent = text.str.contains("%", literal=True).fill_null(False) | named
    bare = frame.select(ROW, fve=text.str.replace("%", "", literal=True))
    numbers = typed(bare, "fve", pl.Float64(), file=file)
    return pl.select(fve=pl.when(is_percent).then(numbers / 100).otherwise(numbers)).to_series()


def _checked(
    frames: Sequence[pl.DataFrame],
    sources: Sequence[SourceFile],
    notes: list[str],
    *,
    reference: str | None,
    ar: str | None,
    models: Sequence[str],
) -> PrefixTable:
    door = Door([source.path for source in sources])
    rows = pl.concat(frames)
    for name in ("model", "unit", "length"):
        door.forbid(rows, pl.col(name).is_null(), name, "is empty: fill it")
    rows = rows.with_columns(
        pl.col("model").str.strip_chars(),
        pl.col("unit").str.strip_chars().str.to_lowercase().replace(_UNIT_OF),
        pl.col("fve").fill_nan(None),
    )
    rows = of_models(rows, models, sources[0].path)
    allowed = ", ".join(UNITS)
    door.forbid(rows, ~pl.col("unit").is_in(UNITS), "unit", f"is no unit: write one of {allowed}")
    door.forbid(rows, pl.col("length") < 0, "length", "is negative: correct the value")
    door.forbid(
        rows,
        ~pl.col("length_penalty").is_finite() | (pl.col("length_penalty") < 0),
        "length_penalty",
        "is no length penalty: correct the value, or leave it empty where there is none",
    )
    door.forbid(rows, pl.col("fve").is_infinite(), "fve", "is not finite: correct or remove it")
    door.forbid(rows, pl.col("fve").abs() > LARGEST_NUMBER, "fve", TOO_LARGE)
    door.forbid(
        rows,
        pl.col("fve") > 1 + FVE_ROUNDING,
        "fve",
        'is more than 1, which no FVE is: write a share, or call the column "fve_percent"',
    )
    rows, ruler = _one(rows, "ar", ar, sources[0].path, "choose one with --ar")
    rows, baseline = _one(
        rows, "fve_baseline", None, sources[0].path, "FVE by two baselines cannot be compared"
    )
    means = _means(rows, door)
    rows = rows.with_columns(pl.col("sample").fill_null(0))
    rows = _whole_texts_once(rows)
    keys = ["model", "unit", "idx", "sample", "length"]
    rows = rows.sort(*keys, FILE, ROW)
    door.forbid(
        rows,
        pl.all_horizontal(pl.col(key).eq_missing(pl.col(key).shift()) for key in keys),
        "length",
        'is there twice for one text: keep one row of each, or number samples in "sample"',
    )
    penalties = _penalties(rows)
    names = ordered(penalties)
    if reference is not None:
        check_model(reference, names, sources[0].path)
    return PrefixTable(
        rows=rows.select(*_COLUMNS),
        models=names,
        length_penalties=penalties,
        means=means,
        reference=reference or default_reference(names, penalties),
        ar=ruler,
        fve_baseline=baseline,
        sources=tuple(sources),
        notes=tuple(notes),
    )


def _one(
    rows: pl.DataFrame, column: str, chosen: str | None, file: str, advice: str
) -> tuple[pl.DataFrame, str | None]:
    """The rows of one ruler or baseline, and its name; rows that name none go with it."""
    names = rows[column].drop_nulls().unique().sort().to_list()
    if chosen is not None and chosen not in names:
        listed = ", ".join(names) or "none is named"
        raise UserError(f'{file}: no {shown(chosen)} in column "{column}" ({listed}): choose one')
    if chosen is None and len(names) > 1:
        raise UserError(f'{file}: column "{column}" names {", ".join(names)}: {advice}')
    if chosen is not None:
        rows = rows.filter(pl.col(column) == chosen)
    return rows, chosen or (names[0] if names else None)


def _means(rows: pl.DataFrame, door: Door) -> frozenset[str]:
    """The models whose rows have no ``idx``; a model has them in all of its rows or in none."""
    without = rows.group_by("model").agg(
        some=pl.col("idx").is_null().any(), every=pl.col("idx").is_null().all()
    )
    mixed = without.filter(pl.col("some") & ~pl.col("every"))["model"]
    door.forbid(
        rows,
        pl.col("model").is_in(mixed.implode()) & pl.col("idx").is_null(),
        "idx",
        "is empty in this row of a model that has it elsewhere: name the activation, or keep means "
        "and rows of activations apart",
    )
    return frozenset(without.filter("every")["model"])


def _whole_texts_once(rows: pl.DataFrame) -> pl.DataFrame:
    """Prefixes in tokens that would be longer than their text, which are all of it, as one row."""
    beyond = ((pl.col("unit") == "tokens") & (pl.col("length") > pl.col("text_tokens"))).fill_null(
        False
    )
    if not rows.select(beyond.any()).item():
        return rows
    key = ["model", "unit", "idx", "sample", "length"]
    cut = rows.with_columns(
        was=pl.col("length"), length=pl.when(beyond).then("text_tokens").otherwise("length")
    )
    cut = cut.with_columns(shorter=pl.col("was") > pl.col("length"))
    # Rows that were given twice stay twice, to be told of.
    first = cut.filter("shorter").sort("was", FILE, ROW).unique(key, keep="first")
    given = cut.filter(~pl.col("shorter"))
    first = first.join(given, on=key, how="anti", nulls_equal=True)
    return pl.concat([given, first]).drop("was", "shorter")


def _penalties(rows: pl.DataFrame) -> dict[str, float | None]:
    """Model → length penalty: what its rows say where they agree, else what its name says."""
    stated = rows.group_by("model").agg(pl.col("length_penalty").drop_nulls().unique())
    return {
        name: values[0] if len(values) == 1 else length_penalty_of(name)
        for name, values in sorted(stated.iter_rows())
    }
