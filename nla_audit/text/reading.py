"""Reading a table: every explanation aligned with its reference explanation.

One pass over the table, activation by activation, gives what `drop-analysis` and `rewording`
stand on: for each claim of the reference, the probability that a model's explanation of the same
activation still makes it, the same probability for another activation's explanation (chance),
and for each explanation the share of its own text that the reference accounts for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.completions import Completions
from nla_audit.stats import derangement
from nla_audit.text.claims import Claim, split_claims
from nla_audit.text.segmentation import Evidence, Habits, Segmentation, learn, segment
from nla_audit.text.similarity import Similarity, similarity_named
from nla_audit.text.words import piece_count

#: Activations on which the dictionary is fitted and habits learnt. More changes no rate in the
#: second decimal and would make a large table pay for it.
SAMPLE_ACTIVATIONS = 400
#: Pairs of explanations from which the dictionary is learnt, drawn from all models alike.
_DICTIONARY_PAIRS = 1500
#: Activations per model that are read against another activation's text.
_CHANCE_ACTIVATIONS = 200
#: Of a larger table this many activations are read, drawn with the seed: the intervals of a share
#: are then narrower than the reading's own error, and a million rows take minutes, not an hour.
READ_ACTIVATIONS = 5000
#: A table of at most so many activations keeps its segmentations for the viewer.
KEPT_ACTIVATIONS = 1000
#: Activations read at a time.
_CHUNK = 500
#: Rounds of learning a model's habits, which start from those of all models.
_ROUNDS = 4
#: Standard deviation taken for a reading's own error in a share of claims or tokens. It is common
#: to all activations, so a bootstrap cannot show it; intervals of what is read are widened by it.
#: Most biases on planted sweeps (``benchmarks/reading_error.md``) lie within twice this, not all.
READING_ERROR = 0.02
#: The same for the share of one kind of claim, which rests on telling kinds as well.
KIND_READING_ERROR = 0.03
#: The pseudo-model under which the reference's own second sample is read.
FLOOR = "resampling floor"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reader:
    """A fitted similarity, and how each model walks over the reference's claims."""

    similarity: Similarity
    habits: dict[str, Habits]

    def segment(self, model: str, pairs: Sequence[TextPair]) -> list[Segmentation]:
        """Segment a model's explanations; one never met is read with the initial habits."""
        found = segment(_evidence(pairs, self.similarity), self.habits.get(model, Habits()))
        return _about_the_same(pairs, found)


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
        chance: the same for a sample of activations, each model's explanation being replaced by
            its explanation of another activation and its habits learnt anew from these pairs:
            what the whole procedure finds where there is nothing to find.
        explanations: one row per (model, activation, sample):
            ``tokens_reference, tokens_model, kept_tokens, supported_tokens, overhead_saving``.
        reader: what the table was read with; it reads further explanations in the same way.
        activations_read: how many activations were read, of
        activations: how many there are.
        segmentations: by model, activation and sample; kept for tables of at most
            :data:`KEPT_ACTIVATIONS` activations.
    """

    claims: pl.DataFrame
    chance: pl.DataFrame
    explanations: pl.DataFrame
    reader: Reader
    activations_read: int
    activations: int
    segmentations: dict[tuple[str, int, int], Segmentation]

    def segmented(self, model: str, pairs: Sequence[TextPair]) -> list[Segmentation]:
        """Segmentations of a model's explanations, in their order; read again only if not kept."""
        keys = [(model, pair.idx, pair.sample) for pair in pairs]
        if all(key in self.segmentations for key in keys):
            return [self.segmentations[key] for key in keys]
        return self.reader.segment(model, pairs)

    @property
    def has_floor(self) -> bool:
        """Whether the table holds a second sample of the reference."""
        return FLOOR in self.reader.habits


@dataclass(frozen=True)
class TextPair:
    """A reference explanation and another explanation of the same activation."""

    model: str
    idx: int
    sample: int
    reference_sample: int
    reference: Text
    other: Text


@dataclass(frozen=True)
class Text:
    """An explanation's claims and what they cost."""

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
    """Read every explanation beside the reference's explanation of the same activation.

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
    reader, chance = _learn(sample, measure, seed)
    every = completions.rows["idx"].unique().sort().to_numpy()
    chosen = _draw(every, READ_ACTIVATIONS, [seed, 4])
    claims, explanations, segmentations = _read_all(completions, chosen, reader, progress)
    reading = Reading(claims, chance, explanations, reader, len(chosen), len(every), segmentations)
    _CACHE.clear()
    _CACHE[key] = (completions, reading)
    return reading


def _sample(completions: Completions, seed: int) -> list[TextPair]:
    every = completions.rows["idx"].unique().sort().to_numpy()
    chosen = _draw(every, SAMPLE_ACTIVATIONS, [seed, 1])
    rows = completions.rows.filter(pl.col("idx").is_in(chosen.tolist()))
    return list(text_pairs(rows, completions.reference))


def _draw(every: NDArray[np.int64], most: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """At most so many activations, in order."""
    if len(every) <= most:
        return every
    return np.sort(np.random.default_rng(seed).choice(every, most, replace=False))


def text_pairs(rows: pl.DataFrame, reference: str) -> Iterator[TextPair]:
    """Pairs of explanations, sample by sample; a failed one has no text and is left out."""
    columns = ["idx", "model", "sample", "explanation", "content_tokens", "fixed_tokens"]
    texts: dict[tuple[str, int], Text] = {}
    current: int | None = None
    kept = rows.filter(pl.col("explanation").is_not_null()).select(columns)
    for idx, model, sample, explanation, content, fixed in kept.iter_rows():
        if idx != current:
            if current is not None:
                yield from _pairs_of(current, texts, reference)
            texts, current = {}, idx
        texts[model, sample] = text_of(explanation, content, fixed)
    if current is not None:
        yield from _pairs_of(current, texts, reference)


def _pairs_of(idx: int, texts: dict[tuple[str, int], Text], reference: str) -> Iterator[TextPair]:
    samples = sorted(sample for model, sample in texts if model == reference)
    if not samples:
        return
    for (model, sample), other in texts.items():
        if model != reference:
            partner = sample if sample in samples else samples[0]
            yield TextPair(model, idx, sample, partner, texts[reference, partner], other)
        elif len(samples) > 1:
            following = samples[(samples.index(sample) + 1) % len(samples)]
            second = texts[model, following]
            yield TextPair(FLOOR, idx, sample, sample, texts[reference, sample], second)


@lru_cache(maxsize=1 << 13)
def text_of(explanation: str, content: float | None = None, fixed: float | None = None) -> Text:
    """An explanation in claims; ``content`` and ``fixed`` tokens are its own, where known."""
    claims = split_claims(explanation)
    pieces = np.array([piece_count(claim.text) for claim in claims], dtype=np.float64)
    total = float(pieces.sum()) if content is None else float(content)
    # Separators and stray marks between claims belong to them in proportion, so that the claims'
    # tokens sum to the explanation's.
    tokens = pieces * (total / pieces.sum()) if pieces.sum() > 0 else pieces
    return Text(claims, tokens, total if claims else float(content or 0.0), float(fixed or 0.0))


def _evidence(pairs: Sequence[TextPair], similarity: Similarity) -> list[Evidence]:
    return similarity.evidence([(pair.reference.claims, pair.other.claims) for pair in pairs])


def _about_the_same(pairs: Sequence[TextPair], found: Sequence[Segmentation]) -> list[Segmentation]:
    """Segmentations in which a claim about a name or number is kept only where that still stands.

    Names and numbers are not paraphrased: "The name Juarez is mentioned" does not keep "The name
    Whitlock is mentioned", however alike the two are said.
    """
    checked = []
    for pair, segmentation in zip(pairs, found, strict=True):
        there = {stem for claim in pair.other.claims for stem in claim.stems}
        stands = [
            not claim.subjects or not claim.subjects.isdisjoint(there)
            for claim in pair.reference.claims
        ]
        checked.append(replace(segmentation, kept=segmentation.kept * stands))
    return checked


def _crossed(pairs: Sequence[TextPair], seed: int) -> list[TextPair]:
    """The same references beside explanations of other activations: the null."""
    partners = derangement([pair.idx for pair in pairs], seed)
    return [
        replace(pair, other=pairs[partner].other)
        for pair, partner in zip(pairs, partners, strict=True)
        if partner >= 0
    ]


def _learn(
    sample: Sequence[TextPair], similarity: Similarity, seed: int
) -> tuple[Reader, pl.DataFrame]:
    generator = np.random.default_rng([seed, 2])
    count = min(_DICTIONARY_PAIRS, len(sample))
    chosen = np.sort(generator.permutation(len(sample))[:count])
    of_all = similarity.fit([(sample[n].reference.claims, sample[n].other.claims) for n in chosen])
    habits = {}
    chance = [_claim_rows([], [])]
    for number, model in enumerate(sorted({pair.model for pair in sample})):
        pairs = [pair for pair in sample if pair.model == model]
        habits[model] = learn(_evidence(pairs, similarity), of_all, _ROUNDS)
        crossed = _crossed(
            pairs[:: max(1, len(pairs) // _CHANCE_ACTIVATIONS)], seed * 1000 + number
        )
        evidence = _evidence(crossed, similarity)
        of_null = learn(evidence, of_all, _ROUNDS)
        chance.append(_claim_rows(crossed, _about_the_same(crossed, segment(evidence, of_null))))
    return Reader(similarity, habits), pl.concat(chance)


def _read_all(
    completions: Completions,
    chosen: NDArray[np.int64],
    reader: Reader,
    progress: Progress | None,
) -> tuple[pl.DataFrame, pl.DataFrame, dict[tuple[str, int, int], Segmentation]]:
    done = 0
    segmentations: dict[tuple[str, int, int], Segmentation] = {}
    claim_rows, explanation_rows = [_claim_rows([], [])], [_explanation_rows([], [])]
    for first in range(0, len(chosen), _CHUNK):
        idx = chosen[first : first + _CHUNK].tolist()
        chunk = completions.rows.filter(pl.col("idx").is_in(idx))
        everything = list(text_pairs(chunk, completions.reference))
        for model in sorted({pair.model for pair in everything}):
            pairs = [pair for pair in everything if pair.model == model]
            found = reader.segment(model, pairs)
            if len(chosen) <= KEPT_ACTIVATIONS:
                keys = ((model, pair.idx, pair.sample) for pair in pairs)
                segmentations |= zip(keys, found, strict=True)
            claim_rows.append(_claim_rows(pairs, found))
            explanation_rows.append(_explanation_rows(pairs, found))
        done += len(idx)
        if progress is not None:
            progress(done, len(chosen))
    columns = ["model", "idx", "sample"]
    return (
        pl.concat(claim_rows).sort([*columns, "claim"]),
        pl.concat(explanation_rows).sort(columns),
        segmentations,
    )


def _claim_rows(pairs: Sequence[TextPair], found: Sequence[Segmentation]) -> pl.DataFrame:
    columns: dict[str, list] = {
        name: [] for name in ("model", "idx", "sample", "claim", "start", "end", "kind", "tokens")
    }
    kept = [segmentation.kept for segmentation in found]
    for pair in pairs:
        claims = pair.reference.claims
        columns["model"] += [pair.model] * len(claims)
        columns["idx"] += [pair.idx] * len(claims)
        columns["sample"] += [pair.sample] * len(claims)
        columns["claim"] += range(len(claims))
        columns["start"] += [claim.start for claim in claims]
        columns["end"] += [claim.end for claim in claims]
        columns["kind"] += [claim.kind for claim in claims]
        columns["tokens"] += pair.reference.tokens.tolist()
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


def _explanation_rows(pairs: Sequence[TextPair], found: Sequence[Segmentation]) -> pl.DataFrame:
    kept_tokens, supported_tokens = [], []
    for pair, segmentation in zip(pairs, found, strict=True):
        supported = segmentation.supported(len(pair.other.claims))
        kept_tokens.append(float(pair.reference.tokens @ segmentation.kept))
        supported_tokens.append(float(pair.other.tokens @ supported))
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
