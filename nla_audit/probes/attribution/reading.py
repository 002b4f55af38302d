"""Take explanations apart word by word and claim by claim, and have an AR read the pieces."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.nla.batching import Notice
from nla_audit.nla.fve import (
    BaselineName,
    Floats,
    baselines_with,
    fraction_of_variance_explained,
)
from nla_audit.nla.scoring import TOO_LONG, readable, score_rows
from nla_audit.probes.attribution.card import DEFAULT_LIMIT
from nla_audit.probes.attribution.scores import NOBODY, Attribution, Explanation, attribute
from nla_audit.progress import Progress, silent
from nla_audit.record import MODELS, versions
from nla_audit.runs.activations import Activations, rows_explained
from nla_audit.runs.fit import fitted
from nla_audit.runs.remote import AnyReconstructor, record_of
from nla_audit.runs.score import UnscoredTable
from nla_audit.shards import Shards, digest_of
from nla_audit.stats import derangement
from nla_audit.wording import count


@dataclass(frozen=True)
class AttributionSettings:
    """How to attribute.

    Attributes:
        seed: of random orders, and of the choice of other activations.
        limit: explanations of each model, the first by ``idx``; ``None`` is all.
        token_budget: tokens read at once.
        baseline: the one that FVE uses.
        given_baselines: values to use instead of measuring them.
    """

    seed: int = 0
    limit: int | None = DEFAULT_LIMIT
    token_budget: int | None = None
    baseline: BaselineName = "raw_variance"
    given_baselines: Mapping[BaselineName, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attributed:
    """What was read, and what could not be.

    Attributes:
        scores: by model and activation.
        models: name → explanations of it that were asked for.
        left_out: ``model, idx, reason`` of those that were not read.
    """

    scores: Attribution
    models: dict[str, int]
    left_out: pl.DataFrame


def attribute_with(
    reader: AnyReconstructor,
    texts: UnscoredTable,
    activations: Activations,
    settings: AttributionSettings,
    *,
    resume: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
    notice: Notice = warnings.warn,
) -> Attributed:
    """What each word, claim and order of claims is worth to ``reader``.

    Args:
        reader: the AR.
        texts: the explanations; of several samples of one activation the first is used.
        activations: what they explain.
        settings: how.
        resume: file beside which batches that were read are kept until all are, so that an
            interrupted run of the same settings goes on there; ``None`` keeps nothing.
        force: read activations of another layer than the AR's.
        progress: told of texts read.
        notice: told what does not stop the work.

    Raises:
        UserError: no explanation with a usable activation, or one that does not fit the AR.
    """
    activations = fitted(activations, reconstructor=reader, force=force)
    rows = _chosen(texts, settings.limit)
    explanations, left_out = _usable(rows, activations, texts, reader, settings.seed)
    baselines = baselines_with(settings.given_baselines, activations.vectors, reader.mse_scale)
    shards = None
    if resume is not None:
        progress("hashing the AR", 0, 0)
        shards = Shards(resume, _key(reader, texts, activations, settings))

    def score(stage: str, asked: Sequence[str], targets: Sequence[int]) -> Floats:
        scores = score_rows(
            reader,
            asked,
            activations.vectors,
            targets,
            token_budget=settings.token_budget,
            shards=shards,
            stage=stage,
            progress=lambda _, done, total: progress(f"reading {stage}", done, total),
            notice=notice,
        )
        return fraction_of_variance_explained(scores.mse, baselines.of(settings.baseline))

    found = attribute(explanations, score, seed=settings.seed)
    if shards is not None:
        shards.remove()
    models = dict(rows.group_by("model", maintain_order=True).len().iter_rows())
    return Attributed(found, models, left_out)


def _chosen(texts: UnscoredTable, limit: int | None) -> pl.DataFrame:
    """The first sample of the first activations of each model."""
    rows = texts.rows.sort("idx", "sample").unique(
        ["model", "idx"], keep="first", maintain_order=True
    )
    order = texts.rows["model"].unique(maintain_order=True).to_list()
    of_model = [rows.filter(pl.col("model") == model) for model in order]
    return pl.concat([part if limit is None else part.head(limit) for part in of_model])


def _usable(
    rows: pl.DataFrame,
    activations: Activations,
    texts: UnscoredTable,
    reader: AnyReconstructor,
    seed: int,
) -> tuple[list[Explanation], pl.DataFrame]:
    """The explanations that can be read, each with another activation; and why others cannot."""
    places = rows_explained(activations, rows["idx"].to_list(), texts.sources[0].path)
    # Before they are taken apart: a long one makes as many texts as it has words.
    fitting = readable(reader, rows["explanation"].str.strip_chars())
    reasons = [
        "no explanation"
        if text is None
        else "no activation of this idx"
        if place is None
        else f"activation: {activations.problems[place]}"
        if place in activations.problems
        else TOO_LONG
        if text.strip() not in fitting
        else None
        for text, place in zip(rows["explanation"], places, strict=True)
    ]
    keys = rows.select(
        "model", pl.col("idx").cast(pl.String), reason=pl.Series(reasons, dtype=pl.String)
    )
    kept = np.flatnonzero([reason is None for reason in reasons])
    if len(kept) == 0:
        first = keys["reason"].drop_nulls()[0]
        raise UserError(
            f"{texts.sources[0].path}: none of the {count(rows.height, 'explanation')} asked for "
            f"can be read (first: {first}): raise --limit or give another table"
        )
    by_document = rows["doc_id"].null_count() == 0
    clusters = rows["doc_id" if by_document else "idx"].cast(pl.String).to_list()
    # One other activation of each, whatever the model: models are compared on equal terms.
    cluster_of = {places[row]: clusters[row] for row in kept}
    own = sorted(place for place in cluster_of if place is not None)
    partners = derangement([cluster_of[place] for place in own], seed)
    other = {
        place: own[partner] if partner >= 0 else NOBODY
        for place, partner in zip(own, partners.tolist(), strict=True)
    }
    found = []
    for row in kept.tolist():
        place = places[row]
        assert place is not None
        model, idx = keys["model"][row], keys["idx"][row]
        text = rows["explanation"][row].strip()
        found.append(Explanation(model, idx, clusters[row], text, place, other[place]))
    return found, keys.filter(pl.col("reason").is_not_null())


def _key(
    reader: AnyReconstructor,
    texts: UnscoredTable,
    activations: Activations,
    settings: AttributionSettings,
) -> str:
    """Hash of all that decides which texts are read, and what they score."""
    return digest_of(
        {
            "command": "attribution",
            "ar": record_of(reader),
            "activations": activations.sha256,
            "tables": [source.sha256 for source in texts.sources],
            "seed": settings.seed,
            "limit": settings.limit,
            "token_budget": settings.token_budget,
            "versions": versions(MODELS),
        }
    )
