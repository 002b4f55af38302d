"""FVE by prefix in the long form: the beginnings of every explanation, read by an AR.

Lengths count tokens of the AR, claims, or the segments that a table's ``segment_ends`` give. The
last prefix of a text is always the whole of it. One row is one prefix
(:mod:`nla_audit.table.prefix_table` reads the table).
"""

from __future__ import annotations

import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nla_audit.errors import UserError
from nla_audit.nla.batching import Notice
from nla_audit.nla.fve import BaselineName, Baselines
from nla_audit.nla.prefixes import token_ends
from nla_audit.nla.scoring import TOO_LONG, score_columns, score_rows
from nla_audit.progress import Progress, silent
from nla_audit.shards import Shards
from nla_audit.text.claims import split_claims
from nla_audit.text.words import WordBreaks

if TYPE_CHECKING:
    from nla_audit.runs.remote import AnyReconstructor

#: Every length up to here is read unless lengths are given, and every twentieth part more then.
_DENSE = 32
_STEP = 1.05
_LONGEST = 4096

_SCHEMA = {
    "row": pl.Int64(),
    "unit": pl.String(),
    "length": pl.Int64(),
    "tokens": pl.Int64(),
    "text_tokens": pl.Int64(),
    "text": pl.String(),
    "broken_word": pl.Boolean(),
}


def _default_lengths() -> tuple[int, ...]:
    """Lengths in tokens that are read where none are given."""
    lengths = list(range(1, _DENSE + 1))
    while lengths[-1] < _LONGEST:
        lengths.append(max(lengths[-1] + 1, round(lengths[-1] * _STEP)))
    return tuple(lengths)


def curve_path(out: Path) -> Path:
    """``scored.parquet`` → ``scored.prefix_fve.parquet``."""
    return out.with_name(f"{out.stem}.prefix_fve{out.suffix}")


def cut_all(
    tokenizer: Any,
    texts: Sequence[str | None],
    segment_ends: Sequence[Sequence[int] | None],
    *,
    units: Sequence[str],
    lengths: Sequence[int] = (),
    room: int | None = None,
) -> pl.DataFrame:
    """The prefixes of every text.

    Args:
        tokenizer: of the AR.
        texts: ``[n]``; ``None`` has no prefixes, an empty text is its own only one.
        segment_ends: ``[n]`` ends of segments, in characters of the text; ``None``: has none.
        units: of ``tokens``, ``claims`` and ``segments``.
        lengths: in tokens; those of :func:`_default_lengths` where empty.
        room: tokens that are read at all. A text of thousands of claims is written out once for
            each: what nothing can read is not.

    Returns:
        ``row`` (place in ``texts``), ``unit, length, tokens`` (of the prefix), ``text_tokens`` (of
        the whole), ``text`` (null beyond the room) and ``broken_word`` (whether it ends within a
        word of the text).

    Raises:
        UserError: segments are asked for and no text has any; or the tokenizer does not know
            where its tokens are.
    """
    if "segments" in units and all(ends is None for ends in segment_ends):
        raise UserError(
            'prefixes in segments: the table has no column "segment_ends": leave segments out of '
            "--prefixes"
        )
    wanted = sorted(set(lengths) or _default_lengths())
    distinct = sorted({text for text in texts if text is not None})
    ends_of = dict(zip(distinct, token_ends(tokenizer, distinct), strict=True))
    rows: list[tuple[int, str, int, int, int, str | None, bool]] = []
    for row, (text, segments) in enumerate(zip(texts, segment_ends, strict=True)):
        if text is None:
            continue
        ends, breaks = ends_of[text], WordBreaks(text)
        for unit in units:
            for length, end in _ends(text, unit, ends, segments, wanted):
                tokens = len(ends) if end >= len(text) else bisect_right(ends, end)
                prefix = None
                if room is None or tokens <= room:
                    prefix = text if end >= len(text) else text[:end].strip()
                rows.append((row, unit, length, tokens, len(ends), prefix, breaks.at(end)))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _ends(
    text: str,
    unit: str,
    token_ends_: Sequence[int],
    segments: Sequence[int] | None,
    wanted: Sequence[int],
) -> Iterator[tuple[int, int]]:
    """Length and end in characters of each prefix of ``text``; the last is the whole text."""
    if unit == "tokens":
        whole = len(token_ends_)
        for length in wanted:
            if length >= whole:
                break
            yield length, token_ends_[length - 1] if length else 0
    else:
        if unit == "claims":
            segments = [claim.end for claim in split_claims(text)]
        if segments is None:
            return
        # What stands behind the last end is one more segment, and belongs to the last claim.
        is_open = unit == "segments" and text[segments[-1] if segments else 0 :].strip() != ""
        whole = max(len(segments) + is_open, 1 if text else 0)
        yield from zip(range(1, whole), segments, strict=False)
    yield whole, len(text)


def read_curves(
    reconstructor: AnyReconstructor,
    rows: pl.DataFrame,
    vectors: npt.NDArray[np.float32],
    places: Sequence[int | None] | npt.NDArray[np.int64],
    *,
    units: Sequence[str],
    lengths: Sequence[int] = (),
    ruler: str | None,
    baselines: Baselines,
    baseline: BaselineName = "raw_variance",
    token_budget: int | None = None,
    shards: Shards | None = None,
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> pl.DataFrame:
    """FVE of every prefix of every explanation, in the long form.

    Args:
        rows: ``[n]`` explanations: ``model, length_penalty, idx, sample, doc_id, explanation``
            and, for segments, ``segment_ends``.
        vectors: ``[m, d_model]`` activations.
        places: ``[n]`` rows of ``vectors``; explanations without one are null.
        units, lengths: as for :func:`cut_all`.
        ruler: what the AR is called in the table, if it is.
        baseline: the one that column ``fve`` uses.
        token_budget, shards, progress, notice: as for :func:`nla_audit.nla.scoring.score_rows`.

    Returns:
        ``model, length_penalty, idx, sample, doc_id, unit, length, fve``, and what else is known.

    Raises:
        UserError: as :func:`cut_all`.
    """
    texts = rows["explanation"].to_list()
    segments = (
        rows["segment_ends"].to_list() if "segment_ends" in rows.columns else [None] * len(texts)
    )
    cuts = cut_all(
        reconstructor.tokenizer,
        texts,
        segments,
        units=units,
        lengths=lengths,
        room=reconstructor.longest_prompt,
    )
    row = cuts["row"].to_numpy()
    scores = score_rows(
        reconstructor,
        cuts["text"].to_list(),
        vectors,
        np.array([place or 0 for place in places], dtype=np.int64)[row],
        token_budget=token_budget,
        shards=shards,
        # Batches are numbered within what is read, which the units decide.
        stage=f"prefixes-{'-'.join(units)}",
        progress=lambda _, done, total: progress("reading prefixes", done, total),
        notice=notice,
    )
    columns = score_columns(scores, baselines, baseline)
    keys = rows[row].select("model", "length_penalty", "idx", "sample", "doc_id")
    return keys.with_columns(
        cuts["unit"],
        cuts["length"],
        fve=columns["fve"],
        tokens=cuts["tokens"],
        text_tokens=cuts["text_tokens"],
        mse=columns["mse"],
        ar=pl.lit(ruler, dtype=pl.String),
        fve_baseline=columns["fve_baseline"],
        fve_baseline_value=columns["fve_baseline_value"],
        reason=pl.select(
            pl.when(cuts["text"].is_null())
            .then(pl.lit(TOO_LONG))
            .otherwise(pl.Series(scores.reasons, dtype=pl.String))
        ).to_series(),
        broken_word=cuts["broken_word"],
    )
