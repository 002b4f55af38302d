"""The table of scores that the steganography probe reads: one row a text that an AR has read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.probes.stego.names import read_names
from nla_audit.probes.stego.unchanged import ANOTHER, OWN, REFERENCE, UNCHANGED, by_scores, by_texts
from nla_audit.table.completions import SourceFile
from nla_audit.table.door import LARGEST_NUMBER, TOO_LARGE
from nla_audit.table.readers import find_tables, joined, read_whole
from nla_audit.table.schema import forbid_other_types, shown

#: Measures of how far the meaning was kept, per text; all optional.
MEANING = (
    "similarity",
    "chance_similarity",
    "unfaithful",
    "shared_words",
    "length_ratio",
    "changed",
)
#: What orders models into a series; optional.
SERIES = ("step", "length_penalty")
#: Names of the pair's own AR, where a table has several and nobody says which it is.
_OWN_NAMES = ("own", "own ar", "pair", "co-trained", "co_trained", "cotrained")
#: Names of variants that a message lists.
_LISTED = 12


@dataclass(frozen=True)
class Scores:
    """Validated scores.

    Attributes:
        rows: ``model, idx, doc_id, texts, ar, variant, fve`` and those of :data:`MEANING` and
            :data:`SERIES` that the table has; sorted by these keys. ``idx`` is text. A missing
            score is null.
        own_ars: model → the AR of its pair.
        has_activations: false where the table holds means alone.
        path: the file, for messages.
        notes: how its names were read, and what was taken for unchanged.
        sources: the files, where the scores come from files.
    """

    rows: pl.DataFrame
    own_ars: Mapping[str, str]
    has_activations: bool
    path: str
    notes: tuple[str, ...] = ()
    sources: tuple[SourceFile, ...] = ()

    @property
    def models(self) -> list[str]:
        """The models, sorted."""
        return sorted(self.rows["model"].unique().to_list())


def read_scores(
    path: str | Path, *, ar: str | None = None, variants: Mapping[str, str] | None = None
) -> Scores:
    """Read and validate tables of scores, as :func:`nla_audit.table.readers.read_whole` reads them.

    Arguments as of :func:`scores_from_frame`.

    Raises:
        UserError: as :func:`scores_from_frame`, or the file cannot be read.
    """
    tables = find_tables([path])
    read = [read_whole(table) for table in tables]
    frame = joined([found for found, _ in read], path)
    sources = tuple(
        SourceFile(Path(table.name).name, sha256, found.height)
        for table, (found, sha256) in zip(tables, read, strict=True)
    )
    scores = scores_from_frame(frame, ar=ar, path=str(path), variants=variants)
    return replace(scores, sources=sources)


def scores_from_frame(
    frame: pl.DataFrame,
    *,
    ar: str | None = None,
    path: str = "<frame>",
    variants: Mapping[str, str] | None = None,
) -> Scores:
    """Validate scores that are in memory.

    Args:
        frame: ``variant`` and ``fve``; ``idx`` unless it holds means alone; optional ``ar``,
            ``model``, ``doc_id``, ``texts`` (``own`` or ``reference``), :data:`MEANING` and
            :data:`SERIES`; ``text``, from which ``changed`` is found where it is missing.
        ar: the pair's own AR, where the table holds several.
        path: what messages call the table.
        variants: name of a variant → transform, for names that are not read by themselves.

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
    forbid_other_types(frame, [*defaults, "variant", "text", *MEANING, *SERIES], file=path)
    forbid_other_types(frame, ["fve"], file=path, numbers=True)
    columns = []
    for name, default in defaults.items():
        column = pl.col(name) if name in frame.columns else pl.lit(default)
        columns.append(column.cast(pl.String).str.strip_chars().alias(name))
    variant = frame["variant"].cast(pl.String).str.strip_chars()
    names, notes = read_names(variant.drop_nulls(), variants, path=path)
    if "changed" not in frame.columns and "text" in frame.columns and has_activations:
        frame = frame.with_columns(pl.col("text").cast(pl.String))
        columns.append(pl.col("text"))
    measures = [_measure(frame, name) for name in (*MEANING, *SERIES) if name in frame.columns]
    fve = _numbers(frame, path)
    rows = frame.select(*columns, variant.replace(names).alias("variant"), *measures)
    rows = rows.with_columns(fve)
    _check_rows(rows, path)
    keys = ["model", "texts", "ar", "variant", "idx"]
    repeated = rows.select(keys).is_duplicated()
    if repeated.any():
        row = int(repeated.arg_max() or 0)
        where = ", ".join(f"{key} {shown(rows[key][row])}" for key in keys[2:])
        raise UserError(f"{path}: row {row}: {where} is there twice: keep one row of each")
    own_ars, of_ars = _own_ars(rows, ar, path)
    notes += of_ars
    if "text" in rows.columns:
        rows = by_texts(rows)
    elif "changed" not in rows.columns and has_activations:
        rows, of_equal = by_scores(rows)
        notes += of_equal
    return Scores(rows.sort(keys), own_ars, has_activations, path, tuple(notes))


def _measure(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A column of numbers or truths, which a CSV holds as text."""
    column = pl.col(name)
    if frame.schema[name] == pl.String:
        truths = {"true": "1", "false": "0"}
        column = column.str.strip_chars().str.to_lowercase().replace(truths)
    return column.cast(pl.Float64, strict=False).fill_nan(None).alias(name)


def _numbers(frame: pl.DataFrame, path: str) -> pl.Series:
    given = frame["fve"]
    if given.dtype == pl.String:
        given = given.str.strip_chars()
    numbers = given.cast(pl.Float64, strict=False).fill_nan(None)
    # An empty field or the word NaN is a missing score; any other text is a mistake.
    wrong = numbers.is_null() & given.is_not_null()
    if given.dtype == pl.String:
        wrong &= ~given.str.to_lowercase().is_in(["", "nan"])
    elif given.dtype.is_float():
        wrong &= given.is_not_nan()
    too_large = (numbers.abs() > LARGEST_NUMBER).fill_null(False)  # and what is infinite
    no_number = "is no number: write one, or nothing where there is no score"
    for mask, why in ((wrong, no_number), (too_large, TOO_LARGE)):
        if mask.any():
            row = int(mask.arg_max() or 0)
            raise UserError(
                f'{path}: row {row}: column "fve" holds {shown(given[row])}, which {why}'
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
    if not (rows["variant"] == UNCHANGED).any():
        found = ", ".join(map(shown, rows["variant"].unique().sort()[:_LISTED]))
        raise UserError(
            f'{path}: no rows with variant "{UNCHANGED}" (the explanations as they are) among '
            f"{found}: retention needs them (--variant NAME={UNCHANGED} if they have another name)"
        )


def _own_ars(rows: pl.DataFrame, ar: str | None, path: str) -> tuple[dict[str, str], list[str]]:
    """Model → its pair's AR, and which were taken for it.

    That is ``ar``, or the one that is called so; for a model that it did not read, the only one
    that did.
    """
    names = sorted(rows["ar"].unique().to_list())
    listed = ", ".join(map(shown, names))
    if ar is not None and ar not in names:
        raise UserError(f"{path}: no AR {shown(ar)} ({listed}): choose one of these for --own-ar")
    chosen = ar or _called_own(names)
    is_text = (pl.col("texts") == OWN) & (pl.col("variant") == UNCHANGED)
    read_by: dict[str, list[str]] = {name: [] for name in sorted(rows["model"].unique().to_list())}
    for model, reader in rows.filter(is_text).select("model", "ar").unique().sort("ar").iter_rows():
        read_by[model].append(reader)
    own_ars, notes = {}, []
    for model, readers in read_by.items():
        if len(readers) == 1 and readers != [chosen]:
            own_ars[model] = readers[0]
            if len(names) > 1:
                notes.append(f"{shown(model)} was read by {shown(readers[0])} alone: its own AR.")
        elif chosen is None:
            raise UserError(
                f"{path}: scores by several ARs ({listed}): say with --own-ar which is the pair's"
            )
        else:
            own_ars[model] = chosen
    return own_ars, notes


def _called_own(names: list[str]) -> str | None:
    """The AR that by its name is the pair's, ``None`` where that is not clear."""
    if len(names) == 1:
        return names[0]
    called = [name for name in names if name.lower() in _OWN_NAMES]
    if "own" in names:
        return "own"
    return called[0] if len(called) == 1 else None


#: Before the names of variants where these name columns.
_MARK = "variant "


def same_texts(scores: Scores, model: str) -> pl.DataFrame:
    """``variant, idx`` of the changes that left an explanation of ``model`` as it was."""
    if "changed" not in scores.rows.columns or not scores.has_activations:
        return pl.DataFrame(schema={"variant": pl.String, "idx": pl.String})
    return (
        scores.rows.filter(
            (pl.col("model") == model)
            & (pl.col("texts") == OWN)
            & (pl.col("changed") == 0)
            & ~pl.col("variant").is_in([UNCHANGED, ANOTHER])
        )
        .select("variant", "idx")
        .unique()
    )


def table_of(
    scores: Scores, *, model: str, texts: str, ar: str, changed_only: bool = False
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """``variant → [n] FVE`` (NaN where missing) and the ``[n]`` clusters to resample by.

    All variants are aligned by activation; the cluster is the document where it is known.

    With ``changed_only`` a variant has no score where it changed no text of the pair's own, for
    the controls too: they are compared on the same activations. (What a change leaves alone in
    a reference text, where it found a code in the pair's own, is a loss of nothing, and counts.)
    """
    rows = scores.rows.filter(
        (pl.col("model") == model) & (pl.col("texts") == texts) & (pl.col("ar") == ar)
    )
    if changed_only:
        same = same_texts(scores, model).with_columns(same=True)
        rows = rows.join(same, on=["variant", "idx"], how="left", maintain_order="left")
        rows = rows.with_columns(fve=pl.when(pl.col("same").is_null()).then("fve"))
    # Marked, since a variant of a stranger's table may be called "idx".
    marked = rows.select("idx", "fve", variant=_MARK + pl.col("variant"))
    wide = marked.pivot(on="variant", index="idx", values="fve").sort("idx")
    documents = rows.group_by("idx").agg(pl.col("doc_id").drop_nulls().min()).sort("idx")
    known = documents["doc_id"].null_count() == 0
    clusters = (documents["doc_id"] if known else wide["idx"]).to_numpy()
    names = sorted(name for name in wide.columns if name != "idx")
    values = wide.select(pl.col(names).cast(pl.Float64).fill_null(np.nan)).to_numpy(order="fortran")
    found = {name.removeprefix(_MARK): values[:, place] for place, name in enumerate(names)}
    return found, clusters
