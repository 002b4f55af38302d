"""The checks at the door: from converted rows to rows that every analyzer may rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nla_audit.errors import UserError
from nla_audit.table.agreement import disagreements
from nla_audit.table.baseline import Baseline, find_baseline
from nla_audit.table.door import FVE_ROUNDING, LARGEST_NUMBER, TOO_LARGE, Door, of_models
from nla_audit.table.model_names import (
    RESAMPLING_FLOOR,
    is_without_rl,
    length_penalty_of,
    ordered,
)
from nla_audit.table.overhead import overhead_tokens as find_overhead
from nla_audit.table.schema import FILE, INPUT_COLUMNS, ROW, shown
from nla_audit.wording import count

#: Integer ids written as text: no leading zeros, so that no two texts are one number.
_INTEGER_ID = r"^(?:0|-?[1-9][0-9]{0,17})$"
#: What is one for the whole table is kept once, not in every row.
_OF_THE_TABLE = ("fve_baseline", "fve_baseline_value")
_OUTPUT = [
    *(name for name in INPUT_COLUMNS if name not in _OF_THE_TABLE),
    "fixed_tokens",
    "activation_id",
]
_FLOATS = tuple(name for name, dtype in INPUT_COLUMNS.items() if dtype == pl.Float64)


@dataclass(frozen=True)
class Checked:
    """What is known of a valid table; fields as in ``Completions``."""

    rows: pl.DataFrame
    models: tuple[str, ...]
    length_penalties: dict[str, float | None]
    ar: str | None
    notes: list[str]
    overhead_tokens: float | None
    columns: frozenset[str]
    baseline: Baseline


def check(
    frames: Sequence[pl.DataFrame],
    files: Sequence[str],
    columns: frozenset[str],
    *,
    ar: str | None,
    overhead_tokens: float | None,
    models: Sequence[str],
) -> Checked:
    """Validate the converted rows of all ``files`` together.

    Args:
        frames: from :func:`nla_audit.table.schema.convert`, one a file.
        files: their names, for messages.
        columns: canonical columns the input has.
        ar, overhead_tokens, models: as for :func:`nla_audit.table.completions.load`.

    Raises:
        UserError: with file, row and column.
    """
    door = Door(files)
    rows = _concatenated(frames)
    if rows.is_empty():
        raise UserError(f"{files[0]}: the table has no rows: write the completions again")
    door.forbid(rows, pl.col("model").is_null(), "model", "is empty: name the model")
    door.forbid(
        rows,
        pl.col("model") == RESAMPLING_FLOOR,
        "model",
        "is what reports call a second sample of the reference: give the model another name",
    )
    door.forbid(rows, pl.col("idx").is_null(), "idx", "is empty: number the activation")
    rows = of_models(rows, models, files[0])
    rows, ruler, unread = _one_ruler(rows, ar, door)
    rows = _with_segment_ends(rows, door)
    rows = _text_and_failures(rows, door)
    _check_numbers(rows, door)
    penalties = _length_penalties(rows, door)
    names = ordered(penalties)
    rows = rows.with_columns(
        pl.col("model").replace_strict(penalties, return_dtype=pl.Float64).alias("length_penalty"),
        pl.col("sample").fill_null(0),
    )
    rows = _with_integer_ids(rows)
    baseline, mixed = _baseline(rows, door)
    rows = _sorted_unique(rows.drop(_OF_THE_TABLE), names, door)
    rows, lost = _common_activations(rows, names, files[0])
    rows = _documents_of_activations(rows)
    rows, overhead, overhead_note = _split_tokens(rows, overhead_tokens, columns, door)
    notes = [*unread, *lost, *disagreements(rows), *mixed, *_absences(rows, columns, ruler)]
    if overhead_note:
        notes.append(overhead_note)
    return Checked(
        rows.select(_OUTPUT), names, penalties, ruler, notes, overhead, columns, baseline
    )


def _concatenated(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    has_text_ids = any(frame["idx"].dtype == pl.String for frame in frames)
    if has_text_ids:
        frames = [frame.with_columns(pl.col("idx").cast(pl.String)) for frame in frames]
    return pl.concat(frames, rechunk=False)


def _documents_of_activations(rows: pl.DataFrame) -> pl.DataFrame:
    """Name the document in all rows of an activation where it stands in some, as of one model."""
    if rows["doc_id"].null_count() in (0, rows.height):
        return rows
    known = pl.col("doc_id").drop_nulls().first().over("idx")
    return rows.with_columns(pl.col("doc_id").fill_null(known))


def _one_ruler(
    rows: pl.DataFrame, ar: str | None, door: Door
) -> tuple[pl.DataFrame, str | None, list[str]]:
    """Keep the rows read by one AR; rows that were never scored go with their model.

    Returns:
        The rows, the ruler's name, and a caveat for models that this ruler never read.
    """
    names = rows["ar"].drop_nulls().unique().sort().to_list()
    unscored = pl.col("ar").is_null() & pl.col("fve").fill_nan(None).is_null()
    if ar is None and len(names) > 1:
        raise UserError(
            f'{door.file(rows)}: column "ar" names {len(names)} rulers ({", ".join(names)}), whose '
            "FVE cannot be compared: choose one with --ar"
        )
    if ar is not None and ar not in names:
        raise UserError(
            f'{door.file(rows)}: no ruler {shown(ar)} in column "ar" '
            f"({', '.join(names) or 'none is named'}): choose one of these with --ar"
        )
    if not names:
        return rows, None, []
    ruler = names[0] if ar is None else ar
    if ar is None:
        door.forbid(
            rows,
            pl.col("ar").is_null() & ~unscored,
            "ar",
            f'is empty where other rows name "{ruler}": name the ruler of every scored row, or '
            "choose with --ar",
        )
    is_read = pl.col("ar") == ruler
    read = rows.filter(is_read)["model"].unique()
    others = rows.filter(~pl.col("model").is_in(read.implode()))["model"].unique().sort()
    rows = rows.filter((is_read | unscored) & pl.col("model").is_in(read.implode()))
    note = f'Left out, as the ruler "{ruler}" read none of their rows: {", ".join(others)}.'
    return rows, ruler, [note] if len(others) else []


def _text_and_failures(rows: pl.DataFrame, door: Door) -> pl.DataFrame:
    """Strip explanations, and make failed ones null in text and FVE, apart from empty ones."""
    door.forbid(
        rows,
        pl.col("extracted") & pl.col("explanation").is_null(),
        "explanation",
        'is null though "extracted" is true: write "" for an empty explanation, or extracted = '
        "false for a failed one",
    )
    extracted = pl.col("extracted").fill_null(pl.col("explanation").is_not_null())
    rows = rows.with_columns(extracted)
    return rows.with_columns(
        pl.when("extracted").then(pl.col("explanation").str.strip_chars()).alias("explanation"),
        pl.when("extracted").then(pl.col("fve")).alias("fve"),
    )


def _with_segment_ends(rows: pl.DataFrame, door: Door) -> pl.DataFrame:
    """Ends of segments, in characters of the explanation once it is stripped."""
    if rows["segment_ends"].null_count() == rows.height:
        return rows
    ends, text = pl.col("segment_ends"), pl.col("explanation")
    door.forbid(
        rows,
        (ends.list.first() < 0)
        | (ends.list.last() > text.str.len_chars())
        | (ends.list.diff().list.min() < 0)
        | ends.list.eval(pl.element().is_null()).list.any(),
        "segment_ends",
        "are no ascending places, in characters, of this explanation: correct or remove them",
    )
    before = text.str.len_chars() - text.str.strip_chars_start().str.len_chars()
    length = text.str.strip_chars().str.len_chars()
    row = pl.int_range(pl.len())
    moved = (
        rows.select(row.alias("_at"), ends, before.alias("_before"), length.alias("_length"))
        .filter(pl.col("segment_ends").list.len() > 0)
        .explode("segment_ends")
        .with_columns((pl.col("segment_ends") - pl.col("_before")).clip(0, pl.col("_length")))
        .group_by("_at", maintain_order=True)
        .agg("segment_ends")
    )
    joined = rows.select(row.alias("_at"), ends.alias("_was")).join(
        moved, on="_at", how="left", maintain_order="left"
    )
    return rows.with_columns(joined.select(pl.coalesce("segment_ends", "_was"))["segment_ends"])


def _check_numbers(rows: pl.DataFrame, door: Door) -> None:
    door.forbid(
        rows,
        pl.col("fve").is_nan(),
        "fve",
        "is no measurement: score the row again, leave the field empty, or mark a failed "
        "explanation with extracted = false",
    )
    for name in _FLOATS:
        door.forbid(
            rows, pl.col(name).is_infinite(), name, "is not finite: correct or remove the value"
        )
        number = pl.col(name).fill_nan(None)  # NaN is above all else to polars
        door.forbid(rows, number.abs() > LARGEST_NUMBER, name, TOO_LARGE)
    door.forbid(
        rows,
        pl.col("length_penalty").is_nan(),
        "length_penalty",
        "is no length penalty: correct the value, or leave it empty where there is none",
    )
    for name in ("n_tokens", "content_tokens", "length_penalty"):
        door.forbid(rows, pl.col(name) < 0, name, "is negative: correct the value")
    door.forbid(
        rows,
        pl.col("content_tokens") > pl.col("n_tokens"),
        "content_tokens",
        'is more than "n_tokens", of which it is a part: correct one of them',
    )


def _baseline(rows: pl.DataFrame, door: Door) -> tuple[Baseline, list[str]]:
    """The baseline of column ``fve``; one name only, since FVE by two cannot be compared."""
    scored = pl.col("fve").is_not_null()
    names = rows.filter(scored)["fve_baseline"].drop_nulls().unique().sort().to_list()
    if len(names) > 1:
        door.forbid(
            rows,
            scored & (pl.col("fve_baseline") == names[1]),
            "fve_baseline",
            f'is not the "{names[0]}" of other rows, and FVE by two baselines cannot be compared: '
            "score all rows with one --baseline, or choose with --models",
        )
    door.forbid(
        rows,
        pl.col("fve_baseline_value") <= 0,
        "fve_baseline_value",
        "is no baseline, which is above 0: correct the value or leave it empty",
    )
    return find_baseline(rows)


def _length_penalties(rows: pl.DataFrame, door: Door) -> dict[str, float | None]:
    """Model → length penalty, from the column, else from the name."""
    stated = (
        rows.lazy()
        .select("model", "length_penalty")
        .unique()
        .sort("model", "length_penalty")
        .collect()
    )
    penalties: dict[str, float | None] = {}
    for (name,), group in stated.group_by("model", maintain_order=True):
        model = str(name)
        values = group["length_penalty"].drop_nulls().to_list()
        if is_without_rl(model):
            penalties[model] = None
        elif len(values) > 1:
            door.forbid(
                rows,
                (pl.col("model") == model) & (pl.col("length_penalty") == values[1]),
                "length_penalty",
                f"is not the {values[0]:g} of other rows of this model: give each length penalty "
                "its own model name",
            )
        else:
            penalties[model] = values[0] if values else length_penalty_of(model)
    return penalties


def _with_integer_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """Text ids become integers: their own value where all are integers, else their rank."""
    if rows["idx"].dtype == pl.Int64:
        return rows.with_columns(pl.lit(None, dtype=pl.String).alias("activation_id"))
    stripped = rows.with_columns(pl.col("idx").str.strip_chars())
    if stripped["idx"].str.contains(_INTEGER_ID).all():
        return stripped.with_columns(
            pl.col("idx").cast(pl.Int64), pl.lit(None, dtype=pl.String).alias("activation_id")
        )
    return rows.with_columns(
        pl.col("idx").alias("activation_id"),
        (pl.col("idx").rank("dense") - 1).cast(pl.Int64).alias("idx"),
    )


def _sorted_unique(rows: pl.DataFrame, models: Sequence[str], door: Door) -> pl.DataFrame:
    order = {name: number for number, name in enumerate(models)}
    rows = rows.with_columns(
        pl.col("model").replace_strict(order, return_dtype=pl.UInt32).alias("_model")
    ).sort("idx", "_model", "sample", FILE, ROW)
    key = ("idx", "_model", "sample")
    repeats = rows.select(
        pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in key).alias("repeats")
    )["repeats"].fill_null(False)
    if repeats.any():
        second = int(repeats.arg_max() or 0)
        raise UserError(
            f"{door.where(rows, second)}: same model, idx and sample ({rows['sample'][second]}) as "
            f"{door.where(rows, second - 1).split(' (', maxsplit=1)[0]} "
            f"({count(int(repeats.sum()), 'repeated row')}): remove the repetition, or number "
            'samples in a column "sample"'
        )
    return rows.drop("_model")


def _common_activations(
    rows: pl.DataFrame, models: Sequence[str], file: str
) -> tuple[pl.DataFrame, list[str]]:
    """Rows of the activations that every model explains, and what each model lost to that."""
    if len(models) == 1:
        return rows, []
    n_models = rows.group_by("idx").agg(pl.col("model").n_unique().alias("n_models"))
    common = n_models.filter(pl.col("n_models") == len(models))["idx"]
    if len(common) == n_models.height:
        return rows, []
    had = {
        str(name): int(number)
        for name, number in rows.group_by("model").agg(pl.col("idx").n_unique()).rows()
    }
    if len(common) == 0:
        counts = ", ".join(f"{name} {had[name]:,}" for name in models)
        raise UserError(
            f'{file}: no activation (column "idx") is explained by all {len(models)} models '
            f"({counts}): check that idx numbers the same activations, or choose with --models"
        )
    lost = ", ".join(f"{name} {had[name] - len(common):,}" for name in models)
    note = (
        f"Only the {count(len(common), 'activation')} that every model explains are compared; "
        f"left out per model: {lost}."
    )
    return rows.filter(pl.col("idx").is_in(common.implode())), [note]


def _split_tokens(
    rows: pl.DataFrame, overhead: float | None, columns: frozenset[str], door: Door
) -> tuple[pl.DataFrame, float | None, str | None]:
    """Split ``n_tokens`` into content and overhead; an empty explanation is all overhead."""
    if overhead is not None and not 0 <= overhead < float("inf"):
        raise UserError(f"overhead of {overhead:g} tokens: give a number of at least 0")
    has_text = pl.col("explanation").is_not_null()
    note = None
    if "content_tokens" in columns:
        content = pl.col("content_tokens").fill_nan(None)
    else:
        if overhead is None:
            overhead, note = find_overhead(rows)
        fixed = pl.min_horizontal(pl.col("n_tokens"), pl.lit(overhead, dtype=pl.Float64))
        content = (
            pl.when(pl.col("explanation") == "").then(0.0).otherwise(pl.col("n_tokens") - fixed)
        )
        content = pl.when(pl.col("n_tokens").is_not_null() & (overhead is not None)).then(content)
    rows = rows.with_columns(pl.when(has_text).then(content).alias("content_tokens"))
    rows = rows.with_columns((pl.col("n_tokens") - pl.col("content_tokens")).alias("fixed_tokens"))
    if "content_tokens" in columns:
        median = rows.filter(has_text)["fixed_tokens"].median()
        overhead = float(median) if isinstance(median, int | float) else None
    return rows, overhead, note


def _absences(rows: pl.DataFrame, columns: frozenset[str], ruler: str | None) -> list[str]:
    """Caveats about what the table does not hold."""
    notes = []
    if "fve" not in columns:
        notes.append('No column "fve": nothing can be said about reconstruction.')
    else:
        unscored = rows.filter(pl.col("extracted") & pl.col("fve").is_null()).height
        if unscored:
            notes.append(f"{count(unscored, 'explanation')} without FVE, left out of FVE figures.")
        above = rows.filter(pl.col("fve") > 1 + FVE_ROUNDING).height
        if above:
            notes.append(
                f"{count(above, 'row')} with FVE above 1, which 1 − MSE / baseline cannot reach: "
                "check the column's unit."
            )
        if ruler is None:
            notes.append(
                'No column "ar" names the ruler: FVE is comparable only if one AR read all rows.'
            )
    if "n_tokens" not in columns:
        notes.append('No column "n_tokens": nothing can be said about lengths in tokens.')
    if "extracted" not in columns:
        notes.append('No column "extracted": explanations without text are taken as failed.')
    return notes
