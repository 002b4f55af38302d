"""How far the detectors of mentions are to be trusted: false alarms, agreement, missing answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from nla_audit.probes.sensitivity.controls import CONCEPT, RANDOM, VARIANCE
from nla_audit.probes.sensitivity.cube import (
    DETECTORS,
    LLM,
    NEARNESS,
    WORDS,
    cubes,
    is_known,
    unanswered,
    with_said,
)
from nla_audit.probes.sensitivity.verdict import percent
from nla_audit.stats import or_none
from nla_audit.table.pairing import resampler
from nla_audit.wording import count, verb

_CALLED = {NEARNESS: "similarity", LLM: "the language model"}
#: Reasons of missing answers that are named, the most frequent ones.
_REASONS = 3
#: What a mention is, by detector.
_MEANS = {
    WORDS: "Not named means: in none of the concept's words. What is carried unsaid may be said in "
    "others; read the examples, or name more words.",
    NEARNESS: "Named means: a claim nearer to what the concept is than nearly all of unplanted "
    "explanations.",
    LLM: "Named means: a language model says that the explanation names it, and quotes where. It "
    "is asked about each text once, with the concept's name and what it is.",
}


def detector_table(table: pl.DataFrame, models: Sequence[str], seed: int) -> pl.DataFrame:
    """Of each detector: what it finds where nothing was planted, and where a control was.

    ``found_of_words`` is the share of the explanations that name the concept in its words in
    which the detector finds it.
    """
    rows: list[dict[str, Any]] = []
    for detector in filter(lambda one: is_known(table, one), DETECTORS):
        marked, _ = with_said(table, detector)
        for model, cube in cubes(marked, models, seed).items():
            unplanted = cube.resampler.share(cube.of(CONCEPT, "said")[:, 0])
            in_words = (cube.of(CONCEPT, "named") == 1) & ~np.isnan(cube.of(CONCEPT, "said"))
            found = np.where(in_words, cube.of(CONCEPT, "said"), 0).sum(axis=1)
            row = {
                "detector": detector,
                "model": model,
                **unplanted.entries("false_alarms"),
                "n": unplanted.n,
                **cube.resampler.share_of(found, in_words.sum(axis=1)).entries("found_of_words"),
                "unanswered": unanswered(cube.rows, detector).height,
            }
            for kind in (RANDOM, VARIANCE, CONCEPT):
                known = kind in cube.kinds
                share = cube.resampler.share(cube.of(kind, "said")[:, -1]) if known else None
                row[f"named_{kind}"] = None if share is None else or_none(share.value)
            rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def blindness(marked: pl.DataFrame, detector: str, seed: int) -> str | None:
    """Why a detector tells nothing, in half a sentence; ``None`` where that is not so.

    A detector that works finds the concept more often where it is named in its own words than in
    unplanted explanations that do not. Where too few name it in words that cannot be told.

    Args:
        marked: the table with what the detector says, over all models.
        detector: its name.
        seed: of the interval.
    """
    if detector == WORDS:
        return None
    rows = marked.filter(
        (pl.col("kind") == CONCEPT) & pl.col("said").is_not_null() & pl.col("named").is_not_null()
    )
    said, in_words = (rows[name].cast(pl.Float64).to_numpy() for name in ("said", "named"))
    unplanted = (rows["strength"].to_numpy() == 0) & (in_words == 0)
    own, other = resampler(rows, seed), unplanted.astype(np.float64)
    apart = own.ratio_difference(said * in_words, in_words, said * other, other)
    if not apart.low <= 0:  # an unknown interval is not below 0 either
        return None
    found, false = (own.share_of(said * where, where).value for where in (in_words, other))
    return (
        f"{_CALLED[detector]} finds it in {percent(found)} of the explanations that name it in its "
        f"words and in {percent(false)} of unplanted ones that do not, and so does not tell them "
        "apart"
    )


def caveats_of(table: pl.DataFrame, detector: str) -> list[str]:
    """What a mention is to a detector, and what it gave no answer to."""
    caveats = [_MEANS[detector]]
    lost = unanswered(table, detector).unique("explanation")
    if lost.height:
        texts = table["explanation"].drop_nulls().n_unique()
        reasons = lost["llm_reason"].fill_null("no reason kept").str.replace_all(r"\d+", "n")
        often = reasons.value_counts(sort=True).sort(
            "count", "llm_reason", descending=[True, False]
        )
        told = ", ".join(f"{number:,} {why}" for why, number in often.head(_REASONS).iter_rows())
        caveats.append(
            f"Of {count(texts, 'distinct explanation')} {lost.height:,} "
            f"{verb(lost.height, 'has', 'have')} no answer that can be used ({told}) and "
            f"{verb(lost.height, 'is', 'are')} missing."
        )
    return caveats
