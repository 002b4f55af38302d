"""Reading a table: every explanation aligned with its reference explanation.

One pass over the table, activation by activation, gives what `drop-analysis` and `rewording`
stand on: for each claim of the reference, the probability that a model's explanation of the same
activation still makes it, the same probability for another activation's explanation (chance),
and for each explanation the share of its own text that the reference accounts for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.completions import Completions
from nla_audit.stats import derangement
from nla_audit.text.alignment import (
    Matching,
    Order,
    PairEvidence,
    calibrate,
    match,
    measure_order,
    supported_share,
    weights,
)
from nla_audit.text.claims import Claim, split_claims
from nla_audit.text.similarity import Similarity, similarity_named
from nla_audit.text.words import piece_count

#: Activations on which the similarity is fitted, the slack calibrated and chance measured. More
#: changes none of them in the second decimal and would make a large table pay quadratically.
SAMPLE_ACTIVATIONS = 600
#: Other activations' references that each claim meets for the null of the calibration.
_NULL_PARTNERS = 2
_FLOOR = "resampling floor"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ModelCalibration:
    """How the matching of one model's explanations was calibrated."""

    supported_share: float
    slack: float
    order: Order


@dataclass(frozen=True)
class Reading:
    """The aligned table.

    Attributes:
        claims: one row per (model, activation, sample, reference claim):
            ``model, idx, sample, claim, start, end, kind, tokens, kept``, where ``start:end`` is
            the claim's span in the *reference's* explanation, ``tokens`` its share of the
            reference's content tokens and ``kept`` the probability that the model's explanation
            still makes it. ``model`` is :data:`FLOOR` where the reference's other sample of the
            same activation is read instead: the resampling floor.
        chance: the same for a sample of activations, read against another activation's text.
        explanations: one row per (model, activation, sample):
            ``tokens_reference, tokens_model, kept_tokens, supported_tokens, overhead_saving``.
        calibrations: per model.
        similarity: name of the similarity used.
    """

    claims: pl.DataFrame
    chance: pl.DataFrame
    explanations: pl.DataFrame
    calibrations: dict[str, ModelCalibration]
    similarity: str
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def has_floor(self) -> bool:
        """Whether the table holds a second sample of the reference."""
        return FLOOR in self.calibrations


#: The pseudo-model under which the reference's own second sample is read.
FLOOR = _FLOOR


@dataclass(frozen=True)
class _Pair:
    """A reference explanation and another explanation of the same activation."""

    model: str
    idx: int
    sample: int
    reference: _Text
    other: _Text


@dataclass(frozen=True)
class _Text:
    claims: list[Claim]
    tokens: NDArray[np.float64]  #: content tokens of each claim
    content_tokens: float
    fixed_tokens: float


_CACHE: dict[tuple[int, str, str | None, int], tuple[Completions, Reading]] = {}


def read(
    completions: Completions,
    *,
    similarity: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reading:
    """Align every explanation with the reference's explanation of the same activation.

    Args:
        similarity: ``None`` for the built-in one, else a sentence-transformers name or folder.
        seed: of the sample and of the null's partners.
        progress: called with (activations done, activations in all).

    The result is kept for the table last read, so that analyzers of one run share it.
    """
    key = (id(completions), completions.reference, similarity, seed)
    cached = _CACHE.get(key)
    if cached is not None and cached[0] is completions:
        return cached[1]
    measure = similarity_named(similarity)
    sample = _sample(completions, seed)
    calibrations, chance = _calibrate(sample, measure, seed)
    claims, explanations = _read_all(completions, measure, calibrations, progress)
    reading = Reading(claims, chance, explanations, calibrations, measure.name)
    _CACHE.clear()
    _CACHE[key] = (completions, reading)
    return reading


def _sample(completions: Completions, seed: int) -> list[_Pair]:
    activations = completions.rows["idx"].unique().sort().to_numpy()
    if len(activations) > SAMPLE_ACTIVATIONS:
        generator = np.random.default_rng([seed, 1])
        activations = np.sort(generator.choice(activations, SAMPLE_ACTIVATIONS, replace=False))
    rows = completions.rows.filter(pl.col("idx").is_in(activations.tolist()))
    return list(_pairs(rows, completions.reference))


def _pairs(rows: pl.DataFrame, reference: str) -> Iterator[_Pair]:
    """Pairs of explanations, sample by sample; a failed one has no text and is left out."""
    columns = ["idx", "model", "sample", "explanation", "content_tokens", "fixed_tokens"]
    texts: dict[tuple[str, int], _Text] = {}
    current: int | None = None
    kept = rows.filter(pl.col("explanation").is_not_null()).select(columns)
    for idx, model, sample, explanation, content, fixed in kept.iter_rows():
        if idx != current:
            if current is not None:
                yield from _pairs_of(current, texts, reference)
            texts, current = {}, idx
        texts[model, sample] = _text(explanation, content, fixed)
    if current is not None:
        yield from _pairs_of(current, texts, reference)


def _pairs_of(idx: int, texts: dict[tuple[str, int], _Text], reference: str) -> Iterator[_Pair]:
    samples = sorted(sample for model, sample in texts if model == reference)
    if not samples:
        return
    for (model, sample), other in texts.items():
        if model != reference:
            partner = sample if sample in samples else samples[0]
            yield _Pair(model, idx, sample, texts[reference, partner], other)
        elif len(samples) > 1:
            following = samples[(samples.index(sample) + 1) % len(samples)]
            yield _Pair(FLOOR, idx, sample, texts[reference, sample], texts[model, following])


def _text(explanation: str, content: float | None, fixed: float | None) -> _Text:
    claims = split_claims(explanation)
    pieces = np.array([piece_count(claim.text) for claim in claims], dtype=np.float64)
    total = float(pieces.sum()) if content is None else float(content)
    # Separators and stray marks between claims belong to them in proportion, so that the claims'
    # tokens sum to the explanation's.
    tokens = pieces * (total / pieces.sum()) if pieces.sum() > 0 else pieces
    return _Text(claims, tokens, total if claims else float(content or 0.0), float(fixed or 0.0))


def _evidence(pairs: Sequence[_Pair], similarity: Similarity) -> list[PairEvidence]:
    """Evidence of pairs, computed once per reference text for all that are compared with it."""
    found: list[PairEvidence | None] = [None] * len(pairs)
    by_reference: dict[int, list[int]] = {}
    for number, pair in enumerate(pairs):
        by_reference.setdefault(id(pair.reference), []).append(number)
    for numbers in by_reference.values():
        reference = pairs[numbers[0]].reference.claims
        others = [pairs[number].other.claims for number in numbers]
        for number, block in zip(numbers, similarity.evidence(reference, others), strict=True):
            other = pairs[number].other.claims
            found[number] = PairEvidence(
                block,
                np.array([claim.sentence for claim in other], dtype=np.int64),
                np.array([claim.sentence for claim in reference], dtype=np.int64),
                np.array([len(claim.stems) for claim in other], dtype=np.float64),
                np.array([claim.parts for claim in other], dtype=np.float64),
                np.array([claim.parts for claim in reference], dtype=np.float64),
            )
    return [evidence for evidence in found if evidence is not None]


def _crossed(pairs: Sequence[_Pair], seed: int) -> list[_Pair]:
    """The same pairs with each reference replaced by another activation's: the null."""
    partners = derangement([pair.idx for pair in pairs], seed)
    return [
        _Pair(pair.model, pair.idx, pair.sample, pairs[partner].reference, pair.other)
        for pair, partner in zip(pairs, partners, strict=True)
        if partner >= 0
    ]


def _calibrate(
    sample: Sequence[_Pair], similarity: Similarity, seed: int
) -> tuple[dict[str, ModelCalibration], pl.DataFrame]:
    similarity.fit([(pair.reference.claims, pair.other.claims) for pair in sample])
    calibrations = {}
    chance_rows: list[pl.DataFrame] = []
    for number, model in enumerate(sorted({pair.model for pair in sample})):
        pairs = [pair for pair in sample if pair.model == model]
        evidence = _evidence(pairs, similarity)
        order = measure_order([pair.evidence for pair in evidence])
        crossed = [
            _crossed(pairs, seed * 1000 + number * 10 + draw) for draw in range(_NULL_PARTNERS)
        ]
        null = [_evidence(pairs_of_draw, similarity) for pairs_of_draw in crossed]
        share = supported_share(*_best(evidence), *_best([pair for draw in null for pair in draw]))
        batch = weights(evidence, order)
        slack = calibrate(batch, _padded_tokens(pairs, batch.row_capacity), share)
        calibrations[model] = ModelCalibration(share, slack, order)
        if null[0]:
            chance_rows.append(_claim_rows(crossed[0], match(weights(null[0], order), slack)))
    chance = pl.concat(chance_rows) if chance_rows else _claim_rows([], None)
    return calibrations, chance


def _best(pairs: Sequence[PairEvidence]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each claim's best evidence, and its weight: its length squared.

    What a claim can show grows with its number of content words; the square is the weight under
    which long claims, whose evidence tells own from other activation, decide.
    """
    usable = [pair for pair in pairs if pair.evidence.size]
    if not usable:
        return np.zeros(0), np.zeros(0)
    best = np.concatenate([pair.evidence.max(axis=1) for pair in usable])
    return best, np.concatenate([pair.other_lengths for pair in usable]) ** 2


def _padded_tokens(pairs: Sequence[_Pair], capacity: NDArray[np.float64]) -> NDArray[np.float64]:
    tokens = np.zeros_like(capacity)
    for number, pair in enumerate(pairs):
        if pair.reference.claims:
            tokens[number, : len(pair.other.tokens)] = pair.other.tokens
    return tokens


def _read_all(
    completions: Completions,
    similarity: Similarity,
    calibrations: dict[str, ModelCalibration],
    progress: Progress | None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    total = completions.rows["idx"].n_unique()
    done = 0
    claim_rows, explanation_rows = [_claim_rows([], None)], [_explanation_rows([], None)]
    for chunk in completions.chunks(500):
        everything = list(_pairs(chunk, completions.reference))
        evidence = _evidence(everything, similarity)
        for model in sorted({pair.model for pair in everything}):
            numbers = [n for n, pair in enumerate(everything) if pair.model == model]
            pairs = [everything[n] for n in numbers]
            matching = _match([evidence[n] for n in numbers], calibrations.get(model))
            claim_rows.append(_claim_rows(pairs, matching))
            explanation_rows.append(_explanation_rows(pairs, matching))
        done += chunk["idx"].n_unique()
        if progress is not None:
            progress(done, total)
    keys = ["model", "idx", "sample"]
    return (
        pl.concat(claim_rows).sort([*keys, "claim"]),
        pl.concat(explanation_rows).sort(keys),
    )


def _match(evidence: Sequence[PairEvidence], calibration: ModelCalibration | None) -> Matching:
    known = calibration or ModelCalibration(float("nan"), 1.0, Order(None))
    return match(weights(evidence, known.order), known.slack)


def _claim_rows(pairs: Sequence[_Pair], matching: Matching | None) -> pl.DataFrame:
    columns: dict[str, list] = {
        name: [] for name in ("model", "idx", "sample", "claim", "start", "end", "kind", "tokens")
    }
    kept: list[NDArray[np.float64]] = []
    rates = matching.kept() if matching is not None else None
    for number, pair in enumerate(pairs):
        claims = pair.reference.claims
        columns["model"] += [pair.model] * len(claims)
        columns["idx"] += [pair.idx] * len(claims)
        columns["sample"] += [pair.sample] * len(claims)
        columns["claim"] += range(len(claims))
        columns["start"] += [claim.start for claim in claims]
        columns["end"] += [claim.end for claim in claims]
        columns["kind"] += [claim.kind for claim in claims]
        columns["tokens"] += pair.reference.tokens.tolist()
        if rates is not None:
            kept.append(rates[number, : len(claims)])
    return pl.DataFrame(
        {**columns, "kept": np.concatenate(kept) if kept else []},
        schema={
            "model": pl.Categorical,
            "idx": pl.Int64,
            "sample": pl.Int32,
            "claim": pl.Int16,
            "start": pl.Int32,
            "end": pl.Int32,
            "kind": pl.Categorical,
            "tokens": pl.Float32,
            "kept": pl.Float32,
        },
    )


def _explanation_rows(pairs: Sequence[_Pair], matching: Matching | None) -> pl.DataFrame:
    kept_tokens, supported_tokens = [], []
    if matching is not None:
        kept, supported = matching.kept(), matching.supported()
        for number, pair in enumerate(pairs):
            ours, theirs = pair.reference.tokens, pair.other.tokens
            kept_tokens.append(float(ours @ kept[number, : len(ours)]))
            supported_tokens.append(float(theirs @ supported[number, : len(theirs)]))
    return pl.DataFrame(
        {
            "model": [pair.model for pair in pairs],
            "idx": [pair.idx for pair in pairs],
            "sample": [pair.sample for pair in pairs],
            "tokens_reference": [pair.reference.content_tokens for pair in pairs],
            "tokens_model": [pair.other.content_tokens for pair in pairs],
            "kept_tokens": kept_tokens,
            "supported_tokens": supported_tokens,
            "overhead_saving": [
                pair.reference.fixed_tokens - pair.other.fixed_tokens for pair in pairs
            ],
        },
        schema={
            "model": pl.String,
            "idx": pl.Int64,
            "sample": pl.Int32,
            "tokens_reference": pl.Float64,
            "tokens_model": pl.Float64,
            "kept_tokens": pl.Float64,
            "supported_tokens": pl.Float64,
            "overhead_saving": pl.Float64,
        },
    )
