"""Reading a table: every explanation aligned with its reference explanation.

One pass over the table gives what `drop-analysis` and `rewording` stand on: for each claim of the
reference, the share of it that a model's explanation of the same activation still makes; the same
for another activation's explanation (chance); and for each explanation the share of its own text
that the reference accounts for. The alignment knows no direction
(:mod:`nla_audit.text.alignment`): with the roles of two models exchanged, what was left out is what
is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.table.completions import Completions
from nla_audit.table.pairing import with_documents
from nla_audit.text.alignment import Store, align
from nla_audit.text.fits import Fit, beside, crossed, fit_matches, most_by_chance, untaught
from nla_audit.text.pairs import RESAMPLING_FLOOR, TextPair, text_pairs
from nla_audit.text.pieces import Pieces
from nla_audit.text.reading_rows import rows_of_claims, rows_of_explanations
from nla_audit.text.segmentation import Segmentation
from nla_audit.text.vectors import TextVectors, vectors_named

#: Activations on which similarities are fitted and the null is measured.
SAMPLE_ACTIVATIONS = 400
#: Of a larger table this many activations are read, drawn with the seed: the intervals of a share
#: are then narrower than the reading's own error.
READ_ACTIVATIONS = 1000
#: Activations read at a time.
_CHUNK = 200
#: Standard deviation taken for a reading's own error in a share of claims or tokens. It is common
#: to all activations, so a bootstrap cannot show it; intervals of what is read are widened by it.
#: Measured on real texts with known omissions (``benchmarks/reading_truth.md``).
READING_ERROR = 0.025
#: The same for the share of one kind of claim, which rests on telling kinds as well.
KIND_READING_ERROR = 0.04
#: Two texts of one activation share their subject, and other claims about it may be taken for the
#: same: where matches lie close to the null, this share of what is read as said again, by judges'
#: marks over what they give to matches beyond doubt (``benchmarks/reading_subjects.md``).
OTHER_CLAIMS = 0.3

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Aligner:
    """Vectors fitted on a table, and what similarities mean for each of its models."""

    vectors: TextVectors
    fits: dict[str, Fit]

    def segment(self, model: str, pairs: Sequence[TextPair]) -> list[Segmentation]:
        """Which claims of the reference each explanation of a model still makes."""
        if not pairs:
            return []
        return self.segmented(model, pairs, Store.of(_texts(pairs), self.vectors))

    def segmented(self, model: str, pairs: Sequence[TextPair], store: Store) -> list[Segmentation]:
        """The same of explanations whose vectors are known."""
        fit = self.fits.get(model) or untaught(self.vectors)
        return fit.segmented(pairs, store)


@dataclass(frozen=True)
class Reading:
    """The aligned table.

    Attributes:
        claims: one row per (model, activation, sample, reference claim):
            ``model, idx, sample, reference_sample, claim, start, end, kind, tokens, kept``, where
            ``start:end`` is the claim's span in that sample of the *reference*, ``tokens`` its
            share of the reference's content tokens and ``kept`` the expected share of it that the
            model's explanation still makes. ``model`` is :data:`RESAMPLING_FLOOR` where the
            reference's other sample of the same activation is read instead.
        chance: the same for a sample of activations, each model's explanation being replaced by
            its explanation of another activation and the matches fitted anew:
            what the whole procedure finds where there is nothing to find.
        explanations: one row per (model, activation, sample):
            ``tokens_reference, tokens_model, kept_tokens, supported_tokens, overhead_saving``, and
            how many claims either makes (``claims_reference, claims_model``), how many of the
            reference's are not found again (``lost_claims``) and how many of the model's own are
            not found in the reference (``new_claims``). Where the table names documents, all
            three have ``doc_id``, a number, by which intervals are resampled.
        reader: what the table was read with; it reads further explanations in the same way.
        activations_read: how many activations were read, of
        activations: how many there are.
        segmentations: of what was read, by model, activation and sample.
    """

    claims: pl.DataFrame
    chance: pl.DataFrame
    explanations: pl.DataFrame
    reader: Aligner
    activations_read: int
    activations: int
    segmentations: dict[tuple[str, int, int], Segmentation]

    def segmented(self, model: str, pairs: Sequence[TextPair]) -> list[Segmentation]:
        """Segmentations of a model's explanations, in their order; read only if they were not."""
        keys = [(model, pair.idx, pair.sample) for pair in pairs]
        if all(key in self.segmentations for key in keys):
            return [self.segmentations[key] for key in keys]
        return self.reader.segment(model, pairs)

    @property
    def idx(self) -> set[int]:
        """Those that were read."""
        return {idx for _, idx, _ in self.segmentations}

    @property
    def assumed(self) -> list[str]:
        """Models of which too little is there to measure what matches by chance."""
        return sorted(model for model, fit in self.reader.fits.items() if not fit.measured)

    @property
    def left_out(self) -> list[str]:
        """That claims were not read everywhere, in a sentence; nothing where they were."""
        if self.activations_read == self.activations:
            return []
        return [
            f"Claims were read in {self.activations_read:,} of {self.activations:,} activations, "
            "drawn at random."
        ]

    def other_claims(self, model: str) -> float:
        """Which share of what a model is read to say again may be other claims on the subject."""
        fit = self.reader.fits.get(model)
        return 0.0 if fit is None else OTHER_CLAIMS * fit.sentences.close

    def found_by_chance(self, model: str) -> float:
        """Which share of the claims is found in a model's texts of other activations."""
        share = self.chance.filter(pl.col("model") == model)["kept"].mean()
        return float(share) if isinstance(share, float) else 0.0

    @property
    def has_floor(self) -> bool:
        """Whether the table holds a second sample of the reference."""
        return RESAMPLING_FLOOR in self.reader.fits


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

    The table keeps the result, so that analyzers of one run share it.
    """
    key = ("reading", completions.reference, similarity, seed)
    if key not in completions.shared:
        completions.shared[key] = read_afresh(
            completions, similarity=similarity, seed=seed, progress=progress
        )
    return completions.shared[key]


def read_afresh(
    completions: Completions,
    *,
    similarity: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    with_chance: bool = True,
) -> Reading:
    """:func:`read`, of a table that no other analyzer will ask for.

    Args:
        with_chance: whether :attr:`Reading.chance` is wanted; else it is empty.
    """
    every = completions.rows["idx"].unique().sort().to_numpy()
    chosen = _draw(every, READ_ACTIVATIONS, [seed, 4])
    sampled = _draw(chosen, SAMPLE_ACTIVATIONS, [seed, 1])
    reader, chance, known = _learn(
        _rows(completions, sampled), vectors_named(similarity), seed, with_chance
    )
    # What the null was measured beside is read already.
    parts = chain(known, _parts(completions, np.setdiff1d(chosen, sampled), reader))
    claims, explanations, kept = _read_all(parts, len(chosen), progress)
    claims, chance, explanations = (
        with_documents(frame, completions) for frame in (claims, chance, explanations)
    )
    return Reading(claims, chance, explanations, reader, len(chosen), len(every), kept)


def _draw(every: NDArray[np.int64], most: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """At most so many activations, in order."""
    if len(every) <= most:
        return every
    return np.sort(np.random.default_rng(seed).choice(every, most, replace=False))


def _rows(completions: Completions, activations: NDArray[np.int64]) -> dict[str, list[TextPair]]:
    """The pairs of explanations of some activations, by model."""
    rows = completions.rows.filter(pl.col("idx").is_in(activations.tolist()))
    pairs = list(text_pairs(rows, completions.reference))
    models = sorted({pair.model for pair in pairs})
    return {model: [pair for pair in pairs if pair.model == model] for model in models}


#: A model's pairs of explanations, and which claims each still makes.
_Part = tuple[str, list[TextPair], list[Segmentation]]


def _parts(completions: Completions, chosen: NDArray[np.int64], reader: Aligner) -> Iterable[_Part]:
    for first in range(0, len(chosen), _CHUNK):
        by_model = _rows(completions, chosen[first : first + _CHUNK])
        store = Store.of(_texts(*by_model.values()), reader.vectors)
        for model, pairs in by_model.items():
            yield model, pairs, reader.segmented(model, pairs, store)


def _texts(*several: Sequence[TextPair]) -> Iterable[Pieces]:
    return (
        side.pieces for pairs in several for pair in pairs for side in (pair.reference, pair.other)
    )


def _learn(
    by_model: dict[str, list[TextPair]], vectors: TextVectors, seed: int, with_chance: bool
) -> tuple[Aligner, pl.DataFrame, list[_Part]]:
    """Fit each model's matches; chance; and what was read on the way."""
    texts = list({id(text): text for text in _texts(*by_model.values())}.values())
    vectors.fit([sentence for text in texts for sentence in text.sentences])
    every = [pair for pairs in by_model.values() for pair in pairs]
    vectors.learn(
        [(pair.reference.pieces.words, pair.other.pieces.words) for pair in every],
        len({pair.idx for pair in every}),
    )
    store = Store.of(texts, vectors)
    fits: dict[str, Fit] = {}
    chance, known = [rows_of_claims([], [])], []
    for model, pairs in by_model.items():
        own = align(beside(pairs), store, most=most_by_chance(pairs, store, seed))
        others = crossed(pairs, seed)
        null = [align(beside(one), store, own.expected.elsewhere()) for one in others]
        fits[model], details = fit_matches(pairs, own, null, vectors, store)
        known.append((model, pairs, fits[model].segmentations(pairs, own, details)))
        if with_chance and len(null) > 1:
            # One part of the null beside the rest: the procedure where nothing is to be found.
            nothing, details = fit_matches(others[0], null[0], null[1:], vectors, store)
            found = nothing.segmentations(others[0], null[0], details)
            chance.append(rows_of_claims(others[0], found))
    return Aligner(vectors, fits), pl.concat(chance), known


def _read_all(
    parts: Iterable[_Part], activations: int, progress: Progress | None
) -> tuple[pl.DataFrame, pl.DataFrame, dict[tuple[str, int, int], Segmentation]]:
    kept: dict[tuple[str, int, int], Segmentation] = {}
    claims, explanations = [rows_of_claims([], [])], [rows_of_explanations([], [])]
    seen: set[int] = set()
    for model, pairs, found in parts:
        kept |= zip(((model, pair.idx, pair.sample) for pair in pairs), found, strict=True)
        claims.append(rows_of_claims(pairs, found))
        explanations.append(rows_of_explanations(pairs, found))
        seen |= {pair.idx for pair in pairs}
        if progress is not None:
            progress(len(seen), activations)
    if progress is not None:
        progress(activations, activations)
    columns = ["model", "idx", "sample"]
    return (
        pl.concat(claims).sort([*columns, "claim"]),
        pl.concat(explanations).sort(columns),
        kept,
    )
