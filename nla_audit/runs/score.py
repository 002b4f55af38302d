"""``nla-audit score``: read the texts of any table of completions with any AR.

Another ruler, edited texts, the first tokens of each text: all are texts to be read, each
distinct one once, and scored against the activation of its row, which is found by ``idx``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nla_audit.files import write_parquet
from nla_audit.nla.batching import Notice
from nla_audit.nla.fve import BaselineName, Baselines, baselines_with
from nla_audit.nla.prefixes import prefixes_of
from nla_audit.nla.scoring import RowScores, score_columns, score_rows
from nla_audit.progress import Progress, silent
from nla_audit.record import MODELS, run_record, versions
from nla_audit.runs.activations import Activations, rows_explained
from nla_audit.runs.fit import fitted
from nla_audit.runs.made_from import (
    activations_record,
    baselines_record,
    finished_table,
    is_done,
    table_and_record,
)
from nla_audit.runs.prefix_curves import curve_path, read_curves
from nla_audit.runs.remote import AnyReconstructor, record_of
from nla_audit.shards import Shards, digest_of
from nla_audit.table.completions import SourceFile
from nla_audit.table.model_names import length_penalty_of, ordered
from nla_audit.table.readers import find_tables, read_table
from nla_audit.table.schema import INPUT_COLUMNS
from nla_audit.table.validation import check
from nla_audit.wording import count

#: What another ruler said; a row is the same text without it.
_OF_A_RULER = ("ar", "mse", "nmse", "fve", "fve_baseline", "fve_baseline_value", "reward")
_TEXT_KEY = ("model", "idx", "sample", "explanation", "extracted")
_NO_ACTIVATION = "no activation of this idx"


@dataclass(frozen=True)
class UnscoredTable:
    """The explanations of a table, without any scores.

    Attributes:
        rows: ``model``, ``idx`` (as in the table), ``sample``, ``explanation`` (stripped; null
            where failed) and the other canonical columns.
        has: the columns that the table really had.
        sources: the files.
    """

    rows: pl.DataFrame
    has: frozenset[str]
    sources: tuple[SourceFile, ...]


@dataclass(frozen=True)
class ScoreSettings:
    """How to score.

    Attributes:
        ruler: name of the AR in column ``ar``.
        prefix_tokens: lengths of prefixes to score besides, in tokens of the AR's tokenizer.
        prefixes: units (tokens, claims, segments) in which FVE by prefix is written besides.
        token_budget: tokens read at once, padding included; ``None``: by device.
        baseline: the one that column ``fve`` uses.
        given_baselines: values to use instead of measuring them on the activations.
    """

    ruler: str
    prefix_tokens: tuple[int, ...] = ()
    prefixes: tuple[str, ...] = ()
    token_budget: int | None = None
    baseline: BaselineName = "raw_variance"
    given_baselines: Mapping[BaselineName, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """What :func:`score` wrote.

    Attributes:
        completions: with this ruler's scores.
        prefixes: a row for each of ``prefix_tokens``, if any were asked for.
        curves: FVE by prefix in the long form, if asked for.
    """

    completions: pl.DataFrame
    prefixes: pl.DataFrame | None
    curves: pl.DataFrame | None = None


def read_unscored(paths: Sequence[str]) -> UnscoredTable:
    """Read the explanations of completions tables, whoever scored them.

    Rows that differ in their ruler only are one row. Models are kept whole: nothing here is
    compared, so that they need not explain the same activations.

    Raises:
        UserError: as :func:`nla_audit.table.completions.load`.
    """
    frames, sources, columns = [], [], frozenset[str]()
    for number, table in enumerate(find_tables(paths)):
        read = read_table(table, number)
        without = [pl.lit(None, dtype=INPUT_COLUMNS[name]).alias(name) for name in _OF_A_RULER]
        frames.append(
            read.frame.with_columns(without).unique(_TEXT_KEY, keep="first", maintain_order=True)
        )
        columns |= read.columns
        sources.append(SourceFile(table.name, read.sha256, read.frame.height))
    files = [source.path for source in sources]
    names = {name for frame in frames for name in frame["model"].drop_nulls().unique()}
    penalties = {name: length_penalty_of(name) for name in names}
    checked = [
        check(frames, files, columns, ar=None, overhead_tokens=None, models=[name]).rows
        for name in ordered(penalties)
    ]
    if not checked:  # no model at all: let the check say so
        check(frames, files, columns, ar=None, overhead_tokens=None, models=[])
    rows = pl.concat(checked)
    if rows["activation_id"].null_count() < rows.height:
        rows = rows.with_columns(idx=pl.coalesce("activation_id", pl.col("idx").cast(pl.String)))
    return UnscoredTable(rows, columns - frozenset(_OF_A_RULER), tuple(sources))


def beginnings(texts: UnscoredTable, tokenizer: Any, tokens: int) -> UnscoredTable:
    """The first ``tokens`` of each explanation, as :func:`~nla_audit.nla.prefixes.prefixes_of` cuts
    them; shorter ones stay whole."""
    said = texts.rows["explanation"].to_list()
    known = [text for text in said if text is not None]
    cut = iter(prefixes_of(tokenizer, known, [tokens]))
    first = [None if text is None else next(cut).texts[0] for text in said]
    rows = texts.rows.with_columns(explanation=pl.Series(first, dtype=pl.String))
    return replace(texts, rows=rows)


def score(
    reconstructor: AnyReconstructor,
    texts: UnscoredTable,
    activations: Activations,
    out: Path,
    settings: ScoreSettings,
    *,
    arguments: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> Scored:
    """Score every text against the activation of its row.

    Writes ``out`` (the table with this ruler's scores), with ``prefix_tokens`` also
    ``prefixes_path(out)`` (a row for each text and prefix length), with ``prefixes`` also
    ``curve_path(out)`` (:mod:`nla_audit.runs.prefix_curves`), and the record beside them.
    Takes up a former run of the same settings where it stopped; does nothing if it was finished.

    Args:
        arguments: as passed on the command line, for the record.
        force: score activations of another layer than the AR's.
        progress: told of distinct texts read.
        notice: told what the user should know and does not stop the work.

    Raises:
        UserError: activations of another width or layer, no row with an activation, or ``out``
            is there already and not from this run.
    """
    activations = fitted(activations, reconstructor=reconstructor, force=force)
    places = rows_explained(activations, texts.rows["idx"].to_list(), texts.sources[0].path)
    _tell_of_gaps(activations, places, notice)
    baselines = baselines_with(
        settings.given_baselines, activations.vectors, reconstructor.mse_scale
    )
    progress("hashing the AR", 0, 0)
    computation = {
        "ar": record_of(reconstructor),
        "activations": {"sha256": activations.sha256},
        "tables": [source.sha256 for source in texts.sources],
        "prefix_tokens": list(settings.prefix_tokens),
        **({"prefixes": list(settings.prefixes)} if settings.prefixes else {}),
        "token_budget": settings.token_budget,
        "versions": versions(MODELS),
    }
    labels = {
        "ruler": settings.ruler,
        "baseline": settings.baseline,
        "given_baselines": dict(settings.given_baselines),
    }
    key = digest_of({**computation, "labels": labels})
    if is_done(out, key):
        notice(f"{out}: already finished with these settings; nothing to do")
        return _finished(out, settings)
    shards = Shards(out, digest_of(computation))

    whole = texts.rows["explanation"].to_list()
    readable = [
        text if place is not None else None for text, place in zip(whole, places, strict=True)
    ]
    cuts = _cut(reconstructor, readable, settings.prefix_tokens)
    scores = score_rows(
        reconstructor,
        [*readable, *cuts["text"].to_list()],
        activations.vectors,
        np.array([place or 0 for place in places], dtype=np.int64)[
            np.r_[np.arange(len(readable)), cuts["row"].to_numpy()]
        ],
        token_budget=settings.token_budget,
        shards=shards,
        progress=progress,
        notice=notice,
    )
    of_whole = _part(scores, 0, len(readable))
    of_prefixes = _part(scores, len(readable), len(scores.mse))
    completions = _table(
        texts, activations, of_whole, places=places, settings=settings, baselines=baselines
    )
    prefixes = None
    if settings.prefix_tokens:
        prefixes = _prefix_table(texts, cuts, of_prefixes, settings, baselines)
    curves = None
    if settings.prefixes:
        curves = read_curves(
            reconstructor,
            texts.rows.with_columns(explanation=pl.Series(readable, dtype=pl.String)),
            activations.vectors,
            places,
            units=settings.prefixes,
            lengths=settings.prefix_tokens,
            ruler=settings.ruler,
            baselines=baselines,
            baseline=settings.baseline,
            token_budget=settings.token_budget,
            shards=shards,
            progress=progress,
            notice=notice,
        )
    record = {
        "command": "score",
        "key": key,
        **run_record("score", arguments, MODELS),
        "settings": asdict(settings),
        "tables": [asdict(source) for source in texts.sources],
        "counts": {
            "rows": texts.rows.height,
            "scored": int((~np.isnan(of_whole.mse)).sum()),
            "without_activation": places.count(None),
            "distinct_texts_read": scores.distinct_texts,
        },
        "baselines": baselines_record(baselines, settings.given_baselines, settings.baseline),
        "ar": computation["ar"],
        "activations": activations_record(activations),
    }
    if prefixes is not None:
        write_parquet(prefixes, prefixes_path(out))
    if curves is not None:
        write_parquet(curves, curve_path(out))
    with table_and_record(out, record) as partial:
        completions.write_parquet(partial)
    shards.remove()
    return Scored(completions, prefixes, curves)


def prefixes_path(out: Path) -> Path:
    """``scored.parquet`` → ``scored.prefixes.parquet``."""
    return out.with_name(f"{out.stem}.prefixes{out.suffix}")


def _tell_of_gaps(activations: Activations, places: Sequence[int | None], notice: Notice) -> None:
    missing = places.count(None)
    if missing:
        notice(f"{activations.path}: no activation for {count(missing, 'row')}, left unscored")
    problems = activations.describe_problems()
    if problems is not None:
        notice(problems)


def _finished(out: Path, settings: ScoreSettings) -> Scored:
    prefixes = finished_table(prefixes_path(out)) if settings.prefix_tokens else None
    curves = finished_table(curve_path(out)) if settings.prefixes else None
    return Scored(finished_table(out), prefixes, curves)


def _cut(
    reconstructor: AnyReconstructor, texts: Sequence[str | None], lengths: Sequence[int]
) -> pl.DataFrame:
    """``row`` (place in ``texts``), ``prefix_tokens``, ``text_tokens`` (whole), ``text``."""
    schema = {
        "row": pl.Int64(),
        "prefix_tokens": pl.Int64(),
        "text_tokens": pl.Int64(),
        "text": pl.String(),
    }
    if not lengths:
        return pl.DataFrame(schema=schema)
    distinct = sorted({text for text in texts if text is not None})
    cut = dict(zip(distinct, prefixes_of(reconstructor.tokenizer, distinct, lengths), strict=True))
    rows = [
        (row, length, cut[text].tokens, prefix)
        for row, text in enumerate(texts)
        if text is not None
        for length, prefix in zip(lengths, cut[text].texts, strict=True)
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _part(scores: RowScores, start: int, end: int) -> RowScores:
    return RowScores(
        scores.mse[start:end],
        scores.cosine[start:end],
        scores.reasons[start:end],
        scores.distinct_texts,
    )


def _table(
    texts: UnscoredTable,
    activations: Activations,
    scores: RowScores,
    *,
    places: Sequence[int | None],
    settings: ScoreSettings,
    baselines: Baselines,
) -> pl.DataFrame:
    """The columns that the table had, what it lacked of the activations' keys, the scores."""
    keys = activations.keys[[place or 0 for place in places]]
    known = pl.Series([place is not None for place in places])
    reasons = [
        _NO_ACTIVATION if place is None and text is not None else reason
        for place, text, reason in zip(
            places, texts.rows["explanation"], scores.reasons, strict=True
        )
    ]
    carried = ("doc_id", "position", "source_text")
    names = [
        name
        for name in INPUT_COLUMNS
        if name in texts.has or name in ("model", "length_penalty", "idx", "sample", *carried)
    ]
    filled = {
        name: pl.select(pl.coalesce(texts.rows[name], pl.when(known).then(keys[name]))).to_series()
        for name in carried
    }
    return texts.rows.select(names).with_columns(
        **filled,
        ar=pl.lit(settings.ruler),
        **score_columns(scores, baselines, settings.baseline),
        extracted=texts.rows["explanation"].is_not_null(),
        reason=pl.Series(reasons, dtype=pl.String),
    )


def _prefix_table(
    texts: UnscoredTable,
    cuts: pl.DataFrame,
    scores: RowScores,
    settings: ScoreSettings,
    baselines: Baselines,
) -> pl.DataFrame:
    rows = texts.rows[cuts["row"].to_numpy()].select(
        "model", "length_penalty", "idx", "sample", "doc_id"
    )
    return rows.with_columns(
        cuts["prefix_tokens"],
        cuts["text_tokens"],
        cuts["text"],
        ar=pl.lit(settings.ruler),
        **score_columns(scores, baselines, settings.baseline),
        reason=pl.Series(scores.reasons, dtype=pl.String),
    )
