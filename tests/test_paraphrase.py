"""Rewording told from omission on a real paraphrase: lines deleted from it at a known rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import mannwhitneyu

from nla_audit.analyzers.drop_analysis import drop_analysis
from nla_audit.table.completions import Completions, from_frame
from nla_audit.text.reading import read

#: Shares of the paraphrase's lines that are deleted at random.
DELETED = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
#: Distance from the deleted share within which the omission share counts as recovered.
TOLERANCE = 0.07
#: AUC of plain TF-IDF cosine on this file is 0.74.
LEAST_AUC = 0.85


#: Seven readings of a hundred explanations.
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Recovered:
    """What one reading found where a share ``deleted`` of the lines had gone."""

    deleted: float
    omitted_tokens: float  #: share of the reference's tokens
    omitted_claims: float  #: share of the reference's claims
    auc: float  #: of kept lines against deleted ones; NaN where all share one fate


@pytest.fixture(scope="module")
def lines(shared: Path) -> pl.DataFrame:
    """One line of an explanation a row, beside its paraphrase by a language model."""
    return pl.read_parquet(shared / "data" / "paraphrase_lines_v3ws.parquet").sort("idx", "line")


@pytest.fixture(scope="module")
def recovered(lines: pl.DataFrame) -> list[Recovered]:
    """The reading at each deleted share."""
    return [_recover(lines, share) for share in DELETED]


def _recover(lines: pl.DataFrame, share: float) -> Recovered:
    completions = _completions(lines, _kept_lines(lines, share, seed=0))
    reading = read(completions)
    tokens = reading.explanations.select(pl.col("kept_tokens", "tokens_reference").sum())
    retained = drop_analysis(completions).headline["paraphrase"]["claims_retained"]
    assert retained is not None
    return Recovered(
        deleted=share,
        omitted_tokens=1 - tokens["kept_tokens"][0] / tokens["tokens_reference"][0],
        omitted_claims=1 - retained,
        auc=_auc(_by_line(lines, share, completions, reading.claims)),
    )


def _kept_lines(lines: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """`idx, line` of what is left when exactly this share of all lines is deleted at random."""
    order = np.random.default_rng(seed).permutation(lines.height)
    return lines[np.sort(order[round(share * lines.height) :]).tolist()].select("idx", "line")


def _completions(lines: pl.DataFrame, kept: pl.DataFrame) -> Completions:
    """The originals as the reference, and what is left of their paraphrases as a model."""
    left = lines.join(kept, on=["idx", "line"], maintain_order="left")
    tables = []
    for model, penalty, rows in (("original", 0.0, lines), ("paraphrase", 0.01, left)):
        texts = rows.group_by("idx", maintain_order=True).agg(
            explanation=pl.col(model).str.strip_chars().str.join("\n")
        )
        # A paraphrase of which no line is left is an empty explanation, not a missing row.
        tables.append(
            lines.select(pl.col("idx").unique())
            .join(texts, on="idx", how="left")
            .select(
                "idx",
                pl.lit(model).alias("model"),
                pl.lit(penalty).alias("length_penalty"),
                pl.col("explanation").fill_null(""),
            )
        )
    return from_frame(pl.concat(tables))


def _by_line(
    lines: pl.DataFrame, share: float, completions: Completions, claims: pl.DataFrame
) -> pl.DataFrame:
    """`is_kept, kept`: whether each line was kept, and the mean over its claims of `kept`."""
    texts = dict(completions.of("original").select("idx", "explanation").iter_rows())
    place = [
        texts[idx][:start].count("\n") for idx, start in claims.select("idx", "start").iter_rows()
    ]
    kept = _kept_lines(lines, share, seed=0).with_columns(is_kept=True)
    fates = lines.join(kept, on=["idx", "line"], how="left", maintain_order="left").select(
        "idx",
        pl.int_range(pl.len()).over("idx").alias("place"),
        pl.col("is_kept").fill_null(False),
    )
    means = (
        claims.with_columns(place=pl.Series(place, dtype=pl.Int64))
        .group_by("idx", "place")
        .agg(pl.col("kept").mean())
    )
    return means.join(fates, on=["idx", "place"])


def _auc(fates: pl.DataFrame) -> float:
    kept = fates.filter("is_kept")["kept"].to_numpy()
    deleted = fates.filter(~pl.col("is_kept"))["kept"].to_numpy()
    if not len(kept) or not len(deleted):
        return float("nan")
    wins = mannwhitneyu(kept, deleted).statistic
    return float(wins / (len(kept) * len(deleted)))


def _rows(recovered: list[Recovered]) -> Iterator[str]:
    yield f"{'deleted':>8} {'tokens omitted':>15} {'claims omitted':>15} {'AUC':>6}"
    for found in recovered:
        yield (
            f"{found.deleted:>8.2f} {found.omitted_tokens:>15.3f} {found.omitted_claims:>15.3f} "
            f"{found.auc:>6.3f}"
        )


def test_omission_share_of_a_paraphrase_is_the_share_of_deleted_lines(
    recovered: list[Recovered],
) -> None:
    print("\nLines deleted from a real paraphrase", *_rows(recovered), sep="\n")
    errors = {
        found.deleted: (found.omitted_tokens - found.deleted, found.omitted_claims - found.deleted)
        for found in recovered
    }
    off = {share: error for share, error in errors.items() if max(map(abs, error)) > TOLERANCE}
    assert not off, f"estimate less truth, tokens and claims: {off}"


def test_kept_lines_are_told_from_deleted_ones(recovered: list[Recovered]) -> None:
    aucs = {found.deleted: found.auc for found in recovered if 0 < found.deleted < 1}
    assert len(aucs) == len(DELETED) - 2
    assert min(aucs.values()) > LEAST_AUC, aucs
