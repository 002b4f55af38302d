"""Variance components of a measure that several samples of an explanation repeat.

The design is that of generalizability theory (Cronbach et al. 1972): activations × models, with
samples inside. The estimates are those of the analysis of unweighted cell means, which need no
equal numbers of samples and no assumption but that samples are independent. Every estimate is a
function of means over activations, so that resampling activations gives its interval.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from nla_audit.stats import UNKNOWN, Floats, Interval, percentile_limits
from nla_audit.table.pairing import column, resampler

#: Without a second sample nothing is known of what samples differ by.
LEAST_SAMPLES = 2
COMPONENTS = ("activation", "model", "activation × model", "sample")

#: Means over activations, `[…, columns]`; how many activations; how often they were drawn: a
#: bootstrap replicate is a sample of a sample, so that what a small sample biases is biased twice.
Estimator = Callable[[Floats, int, int], Floats]


def cells(rows: pl.DataFrame, measure: str) -> pl.DataFrame:
    """One row per (model, idx) with at least :data:`LEAST_SAMPLES` known values of ``measure``.

    Returns:
        ``model, idx, doc_id, mean, squares`` (sum of squared deviations), ``freedom`` (samples
        less one), ``inverse`` (one over the samples), sorted by model and activation.
    """
    value = pl.col(measure)
    return (
        rows.filter(value.is_not_null())
        .group_by("model", "idx")
        .agg(
            pl.col("doc_id").first(),
            mean=value.mean(),
            squares=((value - value.mean()) ** 2).sum(),
            samples=pl.len(),
        )
        .filter(pl.col("samples") >= LEAST_SAMPLES)
        .with_columns(
            freedom=(pl.col("samples") - 1).cast(pl.Float64), inverse=1 / pl.col("samples")
        )
        .sort("model", "idx")
    )


def one_model(of_model: pl.DataFrame, seed: int) -> dict[str, Interval]:
    """``icc`` and ``sample_sd`` of one model's :func:`cells`.

    The intraclass correlation is the share of the variance of one sample that is due to the
    activation: how well one sample tells activations apart.
    """
    columns = np.column_stack(
        [
            column(of_model, "mean"),
            column(of_model, "mean") ** 2,
            *(column(of_model, name) for name in ("squares", "freedom", "inverse")),
        ]
    )
    icc, deviation = _estimated(of_model, columns, _within_model, seed, outputs=2)
    return {"icc": icc, "sample_sd": deviation}


def _within_model(means: Floats, n: int, draws: int) -> Floats:
    mean, square, squares, freedom, inverse = np.moveaxis(means, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        of_samples = squares / freedom
        between = (square - mean**2) * (n / (n - 1)) ** draws - inverse * of_samples
        icc = between / (between + of_samples)
    return np.stack([icc, np.sqrt(of_samples)], axis=-1)


def across_models(of_all: pl.DataFrame, seed: int) -> list[tuple[Interval, Interval]]:
    """Variance and share of each of :data:`COMPONENTS`, over activations that all models have.

    The models are those of the table, not a sample of models: their component is the variance of
    their true means.

    Args:
        of_all: :func:`cells` of at least two models.

    Returns:
        For each component ``(variance, share)``; nothing where no two activations are common.
    """
    models = of_all["model"].unique().sort().to_list()
    if len(models) < 2:
        return []
    parts = [
        of_all.filter(pl.col("model") == model).select(
            "idx", "doc_id", *(pl.col(name).alias(f"{name}_{number}") for name in _PARTS)
        )
        for number, model in enumerate(models)
    ]
    both = parts[0]
    for part in parts[1:]:
        both = both.join(part.drop("doc_id"), on="idx")
    both = both.sort("idx")
    if both.height < 2:
        return []
    means = np.column_stack([column(both, f"mean_{number}") for number in range(len(models))])
    products = (means[:, :, None] * means[:, None, :]).reshape(len(means), -1)
    rest = [
        np.mean([column(both, f"{name}_{number}") for number in range(len(models))], axis=0)
        for name in ("squares", "freedom", "inverse")
    ]
    columns = np.column_stack([means, products, *rest])
    found = _estimated(both, columns, _crossed(len(models)), seed, outputs=2 * len(COMPONENTS))
    return list(zip(found[: len(COMPONENTS)], found[len(COMPONENTS) :], strict=True))


_PARTS = ("mean", "squares", "freedom", "inverse")


def _crossed(models: int) -> Estimator:
    def estimate(means: Floats, n: int, draws: int) -> Floats:
        mean = means[..., :models]
        product = means[..., models : models + models**2]
        product = product.reshape(*means.shape[:-1], models, models)
        squares, freedom, inverse = np.moveaxis(means[..., -3:], -1, 0)
        covariance = product - mean[..., :, None] * mean[..., None, :]
        covariance = covariance * (n / (n - 1)) ** draws
        of_averages = covariance.sum(axis=(-2, -1)) / models**2
        own = np.trace(covariance, axis1=-2, axis2=-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            of_samples = squares / freedom
            # What the models' cells of one activation differ by, their samples included.
            residual = (own - models * of_averages) / (models - 1)
            parts = np.stack(
                [
                    of_averages - residual / models,
                    mean.var(axis=-1, ddof=1) - draws * residual / n,
                    residual - inverse * of_samples,
                    of_samples,
                ],
                axis=-1,
            )
            return np.concatenate([parts, parts / parts.sum(axis=-1, keepdims=True)], axis=-1)

    return estimate


def _estimated(
    frame: pl.DataFrame, columns: Floats, estimate: Estimator, seed: int, *, outputs: int
) -> list[Interval]:
    """``estimate`` of the column means with its intervals."""
    n = len(columns)
    if n < 2:
        return [UNKNOWN] * outputs
    values = estimate(columns.mean(axis=0), n, 1)
    drawn = estimate(resampler(frame, seed).mean_replicates(columns), n, 2)
    intervals = []
    for value, draws in zip(values, drawn.T, strict=True):
        low, high = percentile_limits(draws)
        # A component next to nothing has draws on one side of its estimate only.
        intervals.append(Interval(float(value), min(low, value), max(high, value), n))
    return [UNKNOWN if np.isnan(one.value) else one for one in intervals]
