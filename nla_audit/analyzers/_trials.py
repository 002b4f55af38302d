"""Trials of the reading: twins changed at known rates, read as any table is read.

All changes of one run stand in one table, as the models of a sweep do, so that a table costs one
reading, whatever is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
import polars as pl

from nla_audit.analyzers._reading_error import ReadingError, terseness
from nla_audit.analyzers._twins import DELETED, EXCHANGED, TOGETHER, Twins, changed, twins_of
from nla_audit.errors import UserError
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.reading import Progress, Reading, read_afresh

#: What is tried: a change, and the share of the second text's parts that it takes. The first is
#: the untouched twin, which the truth of the others is reckoned from.
TRIALS = (
    (DELETED, 0.0),
    (DELETED, 0.3),
    (DELETED, 0.7),
    (EXCHANGED, 0.5),
    (EXCHANGED, 1.0),
    (TOGETHER, 1.0),
)
_ORIGINAL = "original"


@dataclass(frozen=True)
class Tried:
    """What was read of changed twins, beside what is true.

    Attributes:
        explanations: one row per run, change and activation: ``run, change, rate, idx,
            tokens_reference, tokens_model, kept_tokens, true_kept_tokens, supported_tokens,
            true_supported_tokens, claims_reference, claims_model, lost_claims,
            new_claims, other_words, content_words``.
        claims: one row per claim of the first text: ``run, change, rate, idx, kind, kept,
            true_kept``.
    """

    explanations: pl.DataFrame
    claims: pl.DataFrame


def try_twins(
    twins: Twins,
    *,
    runs: int,
    similarity: str | None,
    seed: int,
    progress: Progress | None = None,
) -> Tried:
    """Change twins in all ways of :data:`TRIALS` and read them, several times.

    What two untouched twins differ in is not known, unless the second says all of the first: so
    what is true of a changed text is what was read of the untouched one, times the share that is
    left of it. A text run together says all that it said: as large a share of its tokens as before
    stands for something.
    """
    explanations, claims = [], []
    for run in range(runs):
        table, left = _table(twins, run, seed)
        reading = read_afresh(table, similarity=similarity, seed=seed, with_chance=False)
        explanations.append(_explanations(reading, left, run, twins.whole))
        claims.append(_claims(reading, left, run, twins.whole))
        if progress is not None:
            progress(run + 1, runs)
    return Tried(pl.concat(explanations), pl.concat(claims))


def _table(twins: Twins, run: int, seed: int) -> tuple[Completions, pl.DataFrame]:
    """All changes as models of one table, and what is left: ``model, change, rate, idx, left``."""
    count = len(twins.idx)
    models, texts, left = [_ORIGINAL] * count, list(twins.first), []
    for number, (change, rate) in enumerate(TRIALS):
        name = f"{change} {rate:.0%}"
        new, shares = changed(twins, change, rate, [seed + 1000 * run + number, 12])
        models += [name] * count
        texts += new
        left.append(
            pl.DataFrame({"idx": twins.idx, "left": shares}).select(
                pl.lit(name).alias("model"),
                pl.lit(change).alias("change"),
                pl.lit(rate).alias("rate"),
                "idx",
                "left",
            )
        )
    frame = pl.DataFrame(
        {
            "model": models,
            "length_penalty": [float(model != _ORIGINAL) for model in models],
            "idx": twins.idx * (1 + len(TRIALS)),
            "explanation": texts,
        }
    )
    return from_frame(frame, reference=_ORIGINAL), pl.concat(left)


def _explanations(reading: Reading, left: pl.DataFrame, run: int, whole: bool) -> pl.DataFrame:
    rows = reading.explanations.join(left, on=["model", "idx"])
    before = _untouched(rows).select(
        "idx",
        kept="tokens_reference" if whole else "kept_tokens",
        supported="tokens_model" if whole else "supported_tokens",
        own="tokens_model",
    )
    stated = (
        pl.when(pl.col("change") == TOGETHER)
        .then(pl.col("tokens_model") / pl.col("own"))
        .otherwise(pl.col("left"))
        .fill_nan(0.0)
    )
    return (
        rows.join(before, on="idx")
        .select(
            pl.lit(run).alias("run"),
            "change",
            "rate",
            "idx",
            "tokens_reference",
            "tokens_model",
            "kept_tokens",
            (pl.col("kept") * pl.col("left")).alias("true_kept_tokens"),
            "supported_tokens",
            (pl.col("supported") * stated).alias("true_supported_tokens"),
            "claims_reference",
            "claims_model",
            "lost_claims",
            "new_claims",
            "other_words",
            "content_words",
        )
        .sort("change", "rate", "idx")
    )


def _claims(reading: Reading, left: pl.DataFrame, run: int, whole: bool) -> pl.DataFrame:
    rows = reading.claims.select(
        pl.col("model", "kind").cast(pl.String), "idx", "claim", pl.col("kept").cast(pl.Float64)
    ).join(left, on=["model", "idx"])
    before = _untouched(rows).select(
        "idx", "claim", before=pl.lit(1.0) if whole else pl.col("kept")
    )
    return (
        rows.join(before, on=["idx", "claim"])
        .select(
            pl.lit(run).alias("run"),
            "change",
            "rate",
            "idx",
            "claim",
            "kind",
            "kept",
            (pl.col("before") * pl.col("left")).alias("true_kept"),
        )
        .sort("change", "rate", "idx", "claim")
    )


def _untouched(rows: pl.DataFrame) -> pl.DataFrame:
    change, rate = TRIALS[0]
    return rows.filter((pl.col("change") == change) & (pl.col("rate") == rate))


def error_from(tried: Tried, twins: str) -> ReadingError:
    """The reading's error, as trials show it.

    Args:
        tried: the trials, over whose runs the error is averaged.
        twins: what they were made on, in words.
    """
    if tried.claims.is_empty():
        return ReadingError(None, why=f"{twins} make no claims")
    whole = pl.col("tokens_reference").sum()
    by_tokens = tried.explanations.group_by("change", "rate").agg(
        level=pl.col("kept_tokens").sum() / whole,
        supported_level=pl.col("supported_tokens").sum() / whole,
        kept=(pl.col("kept_tokens") - pl.col("true_kept_tokens")).sum() / whole,
        supported=(pl.col("supported_tokens") - pl.col("true_supported_tokens")).sum() / whole,
    )
    of_claims = pl.col("kept") - pl.col("true_kept")
    by_claims = tried.claims.group_by("change", "rate").agg(
        claims=of_claims.mean(), claims_level=pl.col("kept").mean()
    )
    every = by_tokens.join(by_claims, on=["change", "rate"])
    terse = every.filter(pl.col("change") == TOGETHER)
    by_kind = tried.claims.group_by("kind", "change", "rate").agg(
        level=pl.col("kept").mean(), bias=of_claims.mean()
    )
    counts = _untouched(tried.claims).filter(pl.col("run") == pl.col("run").min())["kind"]
    return ReadingError(
        twins=twins,
        curves=_curves(every, ("level", "kept", "supported", "claims")),
        kinds={
            str(kind): _curves(rows, ("level", "bias"))
            for (kind,), rows in by_kind.sort("kind").group_by("kind", maintain_order=True)
        },
        kind_claims=dict(counts.value_counts().iter_rows()),
        overlooked=(
            _overlooked(terse, "level", "kept"),
            _overlooked(terse, "supported_level", "supported"),
            _overlooked(terse, "claims_level", "claims"),
        ),
    )


def _overlooked(terse: pl.DataFrame, level: str, bias: str) -> float:
    """Which share of what is there is not read in texts that are run together."""
    if terse.is_empty():  # no text says anything
        return 0.0
    read, wrong = terse[level][0], terse[bias][0]
    return min(max(-wrong / (read - wrong), 0.0), 0.9) if read > wrong else 0.0


def _curves(rows: pl.DataFrame, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """By change, sorted by the level read; both start at the untouched twins."""
    # Where nothing is said, nothing is read: deletion ends there.
    nothing = np.zeros((1, len(columns)))
    found = {}
    for change, end in ((DELETED, nothing), (EXCHANGED, np.zeros((0, len(columns))))):
        own = pl.concat(
            [_untouched(rows), rows.filter((pl.col("change") == change) & (pl.col("rate") > 0))]
        )
        curve = np.vstack([own.select(columns).to_numpy(), end])
        found[change] = curve[np.argsort(curve[:, 0], kind="stable")]
    return found


_Calibrated: TypeAlias = tuple[Twins | None, Tried | None, ReadingError]


def calibrated(completions: Completions, *, similarity: str | None, seed: int) -> _Calibrated:
    """The reading's error, measured on the table's own twins, once for all analyzers of a run.

    Where the table has no twins there are no trials, and the error says why it is not measured.
    """
    key = _key(completions, similarity, seed)
    if key not in completions.shared:
        begun = completions.shared.pop((*key, "begun"), None)
        completions.shared[key] = (begun or _begun(completions, similarity, seed, partial))()
    return completions.shared[key]


@contextmanager
def trials_begun(
    completions: Completions,
    *,
    seed: int,
    elsewhere: Callable[..., Callable[[], Tried]],
) -> Iterator[None]:
    """Within it the trials of :func:`calibrated` run while the table is read: they do not need it.

    Args:
        elsewhere: given a function and its arguments, calls it in another process, and returns how
            to get what it returns.
    """
    key = _key(completions, None, seed)
    if key not in completions.shared:
        completions.shared[(*key, "begun")] = _begun(completions, None, seed, elsewhere)
    try:
        yield
    finally:
        completions.shared.pop((*key, "begun"), None)


def _key(completions: Completions, similarity: str | None, seed: int) -> tuple[Hashable, ...]:
    return ("reading error", completions.reference, similarity, seed)


def _begun(
    completions: Completions,
    similarity: str | None,
    seed: int,
    elsewhere: Callable[..., Callable[[], Tried]],
) -> Callable[[], _Calibrated]:
    try:
        twins = twins_of(completions, seed, few=similarity is not None)
    except UserError as reason:
        unknown = ReadingError(None, why=str(reason).split(";")[0])
        return lambda: (None, None, unknown)
    tried = elsewhere(try_twins, twins, runs=1, similarity=similarity, seed=seed)
    return lambda: _with_error(completions, twins, tried())


def _with_error(completions: Completions, twins: Twins, tried: Tried) -> _Calibrated:
    return twins, tried, replace(error_from(tried, twins.name), terseness=terseness(completions))
