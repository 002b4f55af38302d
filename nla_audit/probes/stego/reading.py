"""Read every changed text of every explanation, each distinct one once, with one or two ARs."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.llm.interface import Paraphraser
from nla_audit.nla.batching import Notice
from nla_audit.nla.fve import (
    BaselineName,
    Baselines,
    baselines_with,
    fraction_of_variance_explained,
)
from nla_audit.nla.scoring import TOO_LONG, readable, score_rows
from nla_audit.probes.stego.meaning import with_meaning
from nla_audit.probes.stego.writing import write_transform, written_changes
from nla_audit.probes.transforming.cards import TextTransform, transforms
from nla_audit.probes.transforming.run import apply_transform, checked_rows
from nla_audit.progress import Progress, silent
from nla_audit.record import MODELS, versions
from nla_audit.runs.activations import Activations, rows_by_idx, rows_explained
from nla_audit.runs.fit import fitted
from nla_audit.runs.remote import AnyReconstructor, record_of
from nla_audit.runs.score import UnscoredTable
from nla_audit.shards import Shards, digest_of
from nla_audit.text.similarity import similarity_named
from nla_audit.text.words import content_stems, word_spans
from nla_audit.wording import count

#: Value of column ``texts``: the pair's own explanations, or reference texts.
OWN, REFERENCE = "own", "reference"


@dataclass(frozen=True)
class ProbeSettings:
    """How to probe.

    Attributes:
        seed: of the transforms.
        limit: explanations of each model that are probed, the first by ``idx``.
        token_budget: tokens read at once.
        baseline: the one that FVE uses.
        given_baselines: values to use instead of measuring them.
        similarity: sentence-transformers model (name or folder) that says how far a change kept
            the meaning; ``None`` for the built-in similarity.
        force: go on where the activations are of another layer than an AR's.
        written: changes that the paraphraser is asked for; all where none is named.
        cache: path beside which every batch that was read is kept, under a hash of the AR, the
            texts and the activations, so that a run that was stopped reads none twice.
    """

    seed: int = 0
    limit: int | None = None
    token_budget: int | None = None
    baseline: BaselineName = "raw_variance"
    given_baselines: Mapping[BaselineName, float] = field(default_factory=dict)
    similarity: str | None = None
    force: bool = False
    written: tuple[str, ...] = ()
    cache: Path | None = None


def probe(
    readers: Mapping[str, AnyReconstructor],
    texts: UnscoredTable,
    activations: Activations,
    settings: ProbeSettings,
    *,
    writer: Paraphraser,
    reference: UnscoredTable | None = None,
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> pl.DataFrame:
    """Scores of all changed texts.

    Args:
        readers: name → AR; each reads all distinct texts in one pass of full batches.
        texts: the pair's explanations; of several samples of one activation the first is used.
        activations: what they explain.
        settings: how to probe.
        writer: of the transforms that need a language model.
        reference: other explanations of the same activations, the control.
        progress: told of texts written, compared and read.
        notice: told what does not stop the work.

    Returns:
        ``model, idx, doc_id, texts, ar, variant, fve, text, changed, similarity,
        chance_similarity, unfaithful, shared_words, length_ratio, reason``, and the model's
        ``step`` and ``length_penalty``; ``fve`` null where ``reason`` says why. The measures of
        meaning: :mod:`nla_audit.probes.stego.meaning`.

    Raises:
        UserError: no row has an activation, one does not fit an AR, no text does, or there is no
            such similarity.
    """
    # Before anything is written: paraphrases may cost money.
    targets = {name: _Targets.of(reader, activations, settings) for name, reader in readers.items()}
    rows_explained(activations, texts.rows["idx"].to_list(), texts.sources[0].path)
    texts = _fitting(texts, readers, notice)
    reference = None if reference is None else _fitting(reference, readers, notice)
    similarity = similarity_named(settings.similarity)
    written = written_changes(settings.written)
    sources = [(OWN, texts), *([(REFERENCE, reference)] if reference is not None else [])]
    frames = []
    own_models = texts.rows["model"].unique(maintain_order=True).to_list()
    for kind, table in sources:
        for model in table.rows["model"].unique(maintain_order=True).to_list():
            rows = _explanations(table, model, settings.limit)
            changed = _changed(rows, settings.seed, written, writer, progress)
            # Reference texts are a control of every model whose texts are probed.
            names = [model] if kind == OWN else own_models
            frames += [
                changed.with_columns(model=pl.lit(name), texts=pl.lit(kind)) for name in names
            ]
            if kind == REFERENCE:
                break  # one set of reference texts, the first in the order of models
    made = (
        with_meaning(
            pl.concat(frames), similarity=similarity, seed=settings.seed, progress=progress
        )
        .drop("before", "label")
        .join(_series_columns(texts), on="model", maintain_order="left")
    )
    places = rows_by_idx(activations, made["idx"].to_list())
    return pl.concat(
        [
            _read(
                name,
                reader,
                made,
                places=places,
                targets=targets[name],
                settings=settings,
                progress=progress,
                notice=notice,
            )
            for name, reader in readers.items()
        ]
    )


@dataclass(frozen=True)
class _Targets:
    """What one AR is held against: the activations as it was trained to see them."""

    activations: Activations
    baselines: Baselines

    @classmethod
    def of(
        cls, reader: AnyReconstructor, activations: Activations, settings: ProbeSettings
    ) -> _Targets:
        seen = fitted(activations, reconstructor=reader, force=settings.force)
        given = settings.given_baselines
        return cls(seen, baselines_with(given, seen.vectors, reader.mse_scale))


def _fitting(
    table: UnscoredTable, readers: Mapping[str, AnyReconstructor], notice: Notice
) -> UnscoredTable:
    """The explanations that some AR has room for; changing others costs time, and serves none."""
    said = table.rows["explanation"].str.strip_chars()
    fitting = set[str]().union(*(readable(reader, said) for reader in readers.values()))
    fits = pl.Series([text is None or text in fitting for text in said], dtype=pl.Boolean)
    missing = int((~fits).sum())
    if missing and said.filter(fits).null_count() == fits.sum():
        raise UserError(
            f"{table.sources[0].path}: no explanation can be read ({TOO_LONG}): give shorter ones, "
            "or probe their beginnings with --prefix-tokens"
        )
    if missing:
        notice(f"{table.sources[0].path}: {count(missing, 'explanation')} left out: {TOO_LONG}")
    return replace(table, rows=table.rows.filter(fits))


def _series_columns(texts: UnscoredTable) -> pl.DataFrame:
    """``model, step, length_penalty``: what orders the models into a series, null if unknown."""
    return texts.rows.group_by("model", maintain_order=True).agg(
        pl.col("step", "length_penalty").drop_nulls().first()
    )


def _explanations(table: UnscoredTable, model: str, limit: int | None) -> pl.DataFrame:
    rows = table.rows.filter(pl.col("model") == model).sort("idx", "sample")
    rows = rows.unique("idx", keep="first", maintain_order=True)
    return rows if limit is None else rows.head(limit)


def _changed(
    rows: pl.DataFrame,
    seed: int,
    written: Sequence[TextTransform],
    writer: Paraphraser,
    progress: Progress,
) -> pl.DataFrame:
    """The transforms of the explanations in ``rows``: all rules, and what is to be written."""
    before: list[str | None] = rows["explanation"].to_list()
    has_documents = rows["doc_id"].null_count() == 0
    labels = rows["doc_id" if has_documents else "idx"].to_list()
    frames = []
    by_rule = [card for card in transforms().values() if not card.is_written]
    for number, card in enumerate(by_rule):
        progress("changing texts", number, len(by_rule))
        after = apply_transform(card, before, labels, seed=seed)
        frames.append(checked_rows(card, before, after))
    for card in written:
        after = write_transform(card, before, writer, progress=progress)
        frames.append(checked_rows(card, before, after))
    made = pl.concat(frames)
    origin = made["row"].to_numpy()
    pairs = list(zip([before[row] for row in origin], made["text"], strict=True))
    return made.with_columns(
        idx=rows["idx"][origin].cast(pl.String),
        doc_id=rows["doc_id"][origin],
        before=pl.Series([before[row] for row in origin], dtype=pl.String),
        label=pl.Series([labels[row] for row in origin]).cast(pl.String),
        shared_words=pl.Series([_shared(old, new) for old, new in pairs], dtype=pl.Float64),
        length_ratio=pl.Series([_ratio(old, new) for old, new in pairs], dtype=pl.Float64),
    ).drop("row")


def _shared(before: str | None, after: str | None) -> float | None:
    """Share of the content stems of two texts that both have (Jaccard)."""
    if before is None or after is None:
        return None
    ours, theirs = _stems(before), _stems(after)
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else None


def _ratio(before: str | None, after: str | None) -> float | None:
    if before is None or after is None:
        return None
    words = _word_count(before)
    return _word_count(after) / words if words else None


# Every explanation is compared with each of its changed texts.
_CACHED = 1 << 12


@lru_cache(maxsize=_CACHED)
def _stems(text: str) -> frozenset[str]:
    return frozenset(content_stems(text))


@lru_cache(maxsize=_CACHED)
def _word_count(text: str) -> int:
    return sum(1 for _ in word_spans(text))


def _read(
    name: str,
    reader: AnyReconstructor,
    made: pl.DataFrame,
    *,
    places: Sequence[int | None],
    targets: _Targets,
    settings: ProbeSettings,
    progress: Progress,
    notice: Notice,
) -> pl.DataFrame:
    # Explanations are stripped before an AR reads them (docs/failures.md): so are changed ones.
    readable = [
        None if text is None or place is None else text.strip()
        for text, place in zip(made["text"], places, strict=True)
    ]
    activations, baselines = targets.activations, targets.baselines
    shards = None
    if settings.cache is not None:
        progress(f"hashing the AR ({name})", 0, 0)
        key = _reading_key(reader, readable, places, activations, settings)
        shards = Shards(settings.cache, key)
    scores = score_rows(
        reader,
        readable,
        activations.vectors,
        [place or 0 for place in places],
        token_budget=settings.token_budget,
        shards=shards,
        progress=lambda stage, done, total: progress(f"{stage} ({name} AR)", done, total),
        notice=notice,
    )
    fve = fraction_of_variance_explained(scores.mse, baselines.of(settings.baseline))
    reasons = [
        "no activation of this idx" if place is None else own or of_score
        for place, own, of_score in zip(places, made["reason"], scores.reasons, strict=True)
    ]
    return made.with_columns(
        ar=pl.lit(name),
        fve=pl.Series(np.asarray(fve), nan_to_null=True),
        reason=pl.Series(reasons, dtype=pl.String),
    )


def _reading_key(
    reader: AnyReconstructor,
    texts: Sequence[str | None],
    places: Sequence[int | None],
    activations: Activations,
    settings: ProbeSettings,
) -> str:
    """Hash of all that changes what an AR makes of these texts and activations."""
    rows = hashlib.sha256()
    for text, place in zip(texts, places, strict=True):
        rows.update(json.dumps([text, place]).encode())
    return digest_of(
        {
            "ar": record_of(reader),
            "activations": activations.sha256,
            "rows": rows.hexdigest(),
            "token_budget": settings.token_budget,
            "versions": versions(MODELS),
        }
    )
