"""The table that everything else is computed from: one row for each text that was asked for.

Rows are keyed by model, activation, kind of direction and strength. The text of an unplanted
activation (strength 0) stands once for every kind of direction, since its component is measured
along each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.errors import UserError, first_line
from nla_audit.files import sha256_of
from nla_audit.probes.sensitivity.controls import CONCEPT, KINDS
from nla_audit.table.completions import SourceFile

#: Column → type. ``component`` and the four after it are cosines.
SCHEMA: dict[str, pl.DataType] = {
    "model": pl.String(),
    "length_penalty": pl.Float64(),
    "ar": pl.String(),
    "concept": pl.String(),
    "idx": pl.String(),
    "doc_id": pl.String(),
    "kind": pl.String(),
    "direction": pl.String(),
    #: Share of the activation's norm that was added along the direction.
    "strength": pl.Float64(),
    #: Cosine of the activation with the direction before, and by how much planting raised it.
    "projection": pl.Float64(),
    "planted": pl.Float64(),
    "explanation": pl.String(),
    "n_tokens": pl.Int64(),
    "content_tokens": pl.Int64(),
    #: Characters of the explanation up to each end of a segment, of AVs that end segments.
    "segment_ends": pl.List(pl.Int64()),
    #: Whether the explanation names the concept in one of its words; null where there is none.
    "named": pl.Boolean(),
    #: Tokens, claims, and segments before the first mention.
    "first_token": pl.Int64(),
    "first_claim": pl.Int64(),
    "first_segment": pl.Int64(),
    #: Cosine of the reconstruction with the planted direction, and with the concept's.
    "component": pl.Float64(),
    "concept_component": pl.Float64(),
    #: Cosine of the reconstruction with the planted activation, with the same one unplanted, and
    #: with another activation that was planted alike.
    "fit": pl.Float64(),
    "fit_unplanted": pl.Float64(),
    "fit_elsewhere": pl.Float64(),
    #: Cosine of the nearest claim with what the concept is, by a sentence model.
    "nearness": pl.Float64(),
    #: Whether a language model says that the explanation names the concept, where first, and why
    #: there is no answer that could be used.
    "llm_named": pl.Boolean(),
    "llm_first_token": pl.Int64(),
    "llm_first_claim": pl.Int64(),
    "llm_first_segment": pl.Int64(),
    "llm_reason": pl.String(),
    "reason": pl.String(),
}
#: Without these nothing can be computed.
_NEEDED = ("model", "idx", "kind", "strength", "named")
#: What two rows may not have in common.
_KEY = ("model", "idx", "kind", "strength")


def read_table(path: Path) -> tuple[pl.DataFrame, SourceFile]:
    """A table that an earlier run wrote.

    Raises:
        UserError: no such file, not Parquet, a column that is missing or of another type, two
            rows of one key, or no row of the concept.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        frame = pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a whole Parquet file ({first_line(error)})") from None
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise UserError(
            f'{path}: column "{missing[0]}" is missing: give the table that `nla-audit '
            "sensitivity` wrote"
        )
    try:
        frame = frame.select(
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
            for name, kind in SCHEMA.items()
        )
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: a column of another type ({first_line(error)})") from None
    check(frame, str(path))
    return frame, SourceFile(str(path), sha256_of(path), frame.height)


def check(frame: pl.DataFrame, path: str) -> None:
    """Refuse a table whose numbers could not be what they are called.

    Raises:
        UserError: as :func:`read_table`.
    """
    for name in _KEY:
        if frame[name].null_count():
            place = frame[name].is_null().arg_max()
            raise UserError(f'{path}: row {place}: column "{name}" is empty')
    unknown = frame.filter(~pl.col("kind").is_in(KINDS))
    if unknown.height:
        raise UserError(
            f"{path}: kind {unknown['kind'][0]!r} is none of {', '.join(KINDS)}: correct it"
        )
    strengths = frame["strength"].to_numpy()
    if not (np.isfinite(strengths).all() and (strengths >= 0).all()):
        raise UserError(f"{path}: a strength is negative or no number")
    twice = frame.filter(frame.select(_KEY).is_duplicated())
    if twice.height:
        row = twice.row(0, named=True)
        raise UserError(
            f"{path}: model {row['model']}, idx {row['idx']}, {row['kind']}, strength "
            f"{row['strength']:g} occurs twice: keep one"
        )
    if frame.filter(pl.col("kind") == CONCEPT).height == 0:
        raise UserError(f"{path}: no row of the concept itself (kind {CONCEPT})")
