"""The table of scores that the steganography probe reads: one row a text that an AR has read."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.schema import shown

#: Names in use elsewhere → ours.
ALIASES = {
    "original": "unchanged",
    "orig": "unchanged",
    "control": "unchanged",
    "floor": "another",
    "shuffled_pairing": "another",
    "quotes only": "quotes_only",
    "paraphrased": "paraphrase",
}
UNCHANGED, FLOOR = "unchanged", "another"
#: Whose texts: the pair's own explanations, or reference texts (gold, or by the warm start).
OWN, REFERENCE = "own", "reference"
#: Measures of how far the meaning was kept, per text; all optional.
MEANING = (
    "similarity", "chance_similarity", "unfaithful", "shared_words", "length_ratio", "changed"
)  # fmt: skip
#: What orders models into a series; optional.
SERIES = ("step", "length_penalty")
_SUFFIXES = {".parquet", ".csv", ".tsv", ".jsonl", ".ndjson"}


@dataclass(frozen=True)
class Scores:
    """Validated scores.

    Attributes:
        rows: ``model, idx, doc_id, texts, ar, variant, fve`` and those of :data:`MEANING` and
            :data:`SERIES` that the table has; sorted by these keys. ``idx`` is text. A missing
            score is null.
        own_ar: the AR of the pair.
        has_activations: false where the table holds means alone.
        path: the file, for messages.
    """

    rows: pl.DataFrame
    own_ar: str
    has_activations: bool
    path: str

    @property
    def models(self) -> list[str]:
        """The models, sorted."""
        return sorted(self.rows["model"].unique().to_list())


def read_scores(path: str | Path, *, ar: str | None = None) -> Scores:
    """Read and validate a Parquet, CSV, TSV or JSON lines table of scores.

    Raises:
        UserError: as :func:`scores_from_frame`, or the file cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{path}: no such file: name a table with columns idx, variant, ar, fve")
    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(f"{path}: not a known format: use one of {', '.join(sorted(_SUFFIXES))}")
    try:
        if suffix == ".parquet":
            frame = pl.read_parquet(file, glob=False)
        elif suffix in (".csv", ".tsv"):
            separator = "\t" if suffix == ".tsv" else ","
            frame = pl.read_csv(file, separator=separator, infer_schema_length=None, glob=False)
        else:
            frame = pl.read_ndjson(file, infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise UserError(f"{path}: cannot be read ({reason}): write it again") from None
    return scores_from_frame(frame, ar=ar, path=str(path))


def scores_from_frame(
    frame: pl.DataFrame, *, ar: str | None = None, path: str = "<frame>"
) -> Scores:
    """Validate scores that are in memory.

    Args:
        frame: ``variant`` and ``fve``; ``idx`` unless it holds means alone; optional ``ar``,
            ``model``, ``doc_id``, ``texts`` (``own`` or ``reference``), :data:`MEANING` and
            :data:`SERIES`.
        ar: the pair's own AR, where the table holds several.
        path: what messages call the table.

    Raises:
        UserError: a column or a needed variant is missing, a score is no number, a row is there
            twice, or the pair's own AR is not told.
    """
    for name in ("variant", "fve"):
        if name not in frame.columns:
            near = get_close_matches(name, frame.columns, n=1)
            hint = f'rename "{near[0]}"' if near else "needed are idx, variant, ar, fve"
            raise UserError(f'{path}: column "{name}" is missing: {hint}')
    if frame.height == 0:
        raise UserError(f"{path}: the table has no rows: score some texts first")
    has_activations = "idx" in frame.columns
    defaults = {"model": "pair", "ar": "own", "texts": OWN, "idx": "", "doc_id": None}
    columns = []
    for name, default in defaults.items():
        column = pl.col(name) if name in frame.columns else pl.lit(default)
        columns.append(column.cast(pl.String).alias(name))
    variant = pl.col("variant").cast(pl.String).str.strip_chars()
    measures = [
        pl.col(name).cast(pl.Float64, strict=False).fill_nan(None)
        for name in (*MEANING, *SERIES)
        if name in frame.columns
    ]
    fve = _numbers(frame, path)
    rows = frame.select(*columns, variant.replace(ALIASES).alias("variant"), *measures)
    rows = rows.with_columns(fve)
    _check_rows(rows, path)
    keys = ["model", "texts", "ar", "variant", "idx"]
    repeated = rows.select(keys).is_duplicated()
    if repeated.any():
        row = int(repeated.arg_max() or 0)
        where = ", ".join(f"{key} {shown(rows[key][row])}" for key in keys[2:])
        raise UserError(f"{path}: row {row}: {where} is there twice: keep one row of each")
    return Scores(rows.sort(keys), _own_ar(rows, ar, path), has_activations, path)


def _numbers(frame: pl.DataFrame, path: str) -> pl.Series:
    given = frame["fve"]
    numbers = given.cast(pl.Float64, strict=False).fill_nan(None)
    # An empty field or the word NaN is a missing score; any other text is a mistake.
    wrong = numbers.is_null() & given.is_not_null()
    if given.dtype == pl.String:
        wrong &= ~given.str.strip_chars().str.to_lowercase().is_in(["", "nan"])
    elif given.dtype.is_float():
        wrong &= given.is_not_nan()
    infinite = numbers.is_infinite().fill_null(False)
    for mask in (wrong, infinite):
        if mask.any():
            row = int(mask.arg_max() or 0)
            raise UserError(
                f'{path}: row {row}: column "fve" holds {shown(given[row])}: expected a number, '
                "or nothing where there is no score"
            )
    return numbers.alias("fve")


def _check_rows(rows: pl.DataFrame, path: str) -> None:
    for name in ("variant", "idx", "ar", "model", "texts"):
        missing = rows[name].is_null()
        if missing.any():
            raise UserError(f'{path}: row {missing.arg_max()}: column "{name}" is empty: fill it')
    wrong = ~rows["texts"].is_in([OWN, REFERENCE])
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise UserError(
            f'{path}: row {row}: column "texts" holds {shown(rows["texts"][row])}: expected '
            f'"{OWN}" (by the AV) or "{REFERENCE}" (gold, or by the warm start)'
        )
    for needed, meaning in (
        (UNCHANGED, "the explanations as they are"),
        (FLOOR, "other activations' explanations, the floor"),
    ):
        if not (rows["variant"] == needed).any():
            raise UserError(
                f'{path}: no rows with variant "{needed}" ({meaning}): retention needs them'
            )


def _own_ar(rows: pl.DataFrame, ar: str | None, path: str) -> str:
    names = sorted(rows["ar"].unique().to_list())
    listed = ", ".join(map(shown, names))
    if ar is not None:
        if ar not in names:
            raise UserError(f"{path}: no AR {shown(ar)} ({listed}): choose one of these for --ar")
        return ar
    if len(names) == 1:
        return names[0]
    if "own" in names:
        return "own"
    raise UserError(f"{path}: scores by several ARs ({listed}): say with --ar which is the pair's")


def table_of(
    scores: Scores, *, model: str, texts: str, ar: str
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """``variant → [n] FVE`` (NaN where missing) and the ``[n]`` clusters to resample by.

    All variants are aligned by activation; the cluster is the document where it is known.
    """
    rows = scores.rows.filter(
        (pl.col("model") == model) & (pl.col("texts") == texts) & (pl.col("ar") == ar)
    )
    wide = rows.pivot(on="variant", index="idx", values="fve").sort("idx")
    documents = rows.group_by("idx").agg(pl.col("doc_id").drop_nulls().min()).sort("idx")
    known = documents["doc_id"].null_count() == 0
    clusters = (documents["doc_id"] if known else wide["idx"]).to_numpy()
    columns = {
        name: wide[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for name in sorted(wide.columns)
        if name != "idx"
    }
    return columns, clusters
