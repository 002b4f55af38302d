"""Are reconstructions calibrated, or do they go too far from the mean, or not far enough?"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from nla_audit.findings import Figure, Finding, Headline, Metric, probe
from nla_audit.probes._calibration import projected, rescaled, slope_of
from nla_audit.probes._reconstructions import Reconstructions, reconstructions
from nla_audit.probes.causal.ruler import PAIR_OPTIONS
from nla_audit.stats import interval_in
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import clusters, column, resampler
from nla_audit.wording import count

QUESTION = (
    "Do reconstructions go as far from the mean activation as the truth does, and what does it "
    "cost in FVE where they do not?"
)
_BINS = 5
_SCHEMA = {
    "model": pl.String,
    "bin": pl.Int64,
    "explanations": pl.Int64,
    "length": pl.Float64,
    "projection": pl.Float64,
    "projection_low": pl.Float64,
    "projection_high": pl.Float64,
}


@probe(
    name="shrinkage",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={"doc_id": "intervals resample activations instead of documents"},
    unit="explanation; resampled over activations or documents",
    control="the same reconstructions against another document's activation, whose slope is 0 but "
    "for what all activations share",
    high_means="slope 1: calibrated; below 1: the AR says more than the text tells it, and its "
    "reconstructions lie too far out; above 1: it holds back",
    example="nla-audit shrinkage completions.parquet --pair PAIR --activations a.parquet",
    metrics=(
        Metric("explanations", "count", "neither", "explanations read", interval=False),
        Metric(
            "norm_ratio",
            "ratio",
            "neither",
            "norm of a reconstruction over that of its activation, as the AR gives it",
        ),
        Metric(
            "slope",
            "ratio",
            "neither",
            "how far the activation lies from the mean along the reconstruction, for one step "
            "of the reconstruction",
            chance=True,
        ),
        Metric(
            "confidence_slope",
            "ratio",
            "neither",
            "how much farther activations lie out where reconstructions lie farther out",
        ),
        Metric("fve", "FVE", "higher", "mean FVE of the explanations (raw_variance)"),
        Metric(
            "fve_rescaled",
            "FVE",
            "higher",
            "the same with every reconstruction brought nearer to the mean, or farther from "
            "it, by one factor, which is fitted on other activations",
        ),
        Metric("lost_to_scale", "FVE points", "lower", "by how much fve_rescaled is better"),
        Metric(
            "lost_share",
            "share",
            "lower",
            "lost_to_scale as a share of fve_rescaled, where that is above zero",
        ),
    ),
    options=PAIR_OPTIONS,
)
def shrinkage(
    completions: Completions,
    *,
    pair: str | None = None,
    activations: str | None = None,
    seed: int = 0,
) -> Finding:
    """Slopes of activations on reconstructions, and what one factor would mend."""
    read = reconstructions(completions, pair, activations, for_="shrinkage")
    rows = _measured(read, seed)
    headline: Headline = {}
    bins: list[dict[str, Any]] = []
    for model in completions.models:
        own = rows.filter(pl.col("model") == model)
        if own.height:
            headline[model] = _summary(own, read.ruler.baselines.raw_variance, seed)
            bins += _bins(own, model, seed)
    return Finding(
        analyzer="shrinkage",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(headline, completions.reference),
        caveats=_caveats(read),
        tables={"bins": pl.DataFrame(bins, schema=_SCHEMA)},
        figures=[
            Figure(
                "calibration",
                "How far out reconstructions and activations lie",
                "line",
                "bins",
                x="length",
                y="projection",
                group="model",
                low="projection_low",
                high="projection_high",
                chance="length",
                chance_label="calibrated",
                x_label="distance of the reconstruction from the mean",
                y_label="distance of the activation along it",
                caption="Explanations in fifths by how far out their reconstruction lies.",
            )
        ],
        parameters={"pair": pair, "activations": activations, "seed": seed},
    )


def _measured(read: Reconstructions, seed: int) -> pl.DataFrame:
    """A row an explanation: products with its own and another's activation, errors, norms."""
    predicted, targets = read.predicted - read.mean, read.targets - read.mean
    products, lengths = projected(predicted, targets)
    partner = read.elsewhere(seed)
    others, _ = projected(predicted, targets[partner])
    width = predicted.shape[1]
    factors = np.full(len(predicted), np.nan)
    for model in read.keys["model"].unique():
        own = (read.keys["model"] == model).to_numpy()
        factors[own] = rescaled(products[own], lengths[own] ** 2, clusters(read.keys.filter(own)))
    of_file = read.ruler.activations.vectors[read.rows].astype(np.float64)
    return read.keys.select("model", "idx", "doc_id").with_columns(
        product=products,
        product_elsewhere=np.where(partner >= 0, others, np.nan),
        square=lengths**2,
        length=lengths,
        projection=products / np.where(lengths > 0, lengths, np.nan),
        error=((predicted - targets) ** 2).sum(axis=1) / width,
        rescaled=((factors[:, None] * predicted - targets) ** 2).sum(axis=1) / width,
        norm_ratio=np.linalg.norm(read.raw.astype(np.float64), axis=1)
        / np.linalg.norm(of_file, axis=1),
    )


def _summary(own: pl.DataFrame, baseline: float, seed: int) -> dict[str, float | None]:
    draw = resampler(own, seed)
    error, better = column(own, "error"), column(own, "rescaled")
    rescaled_fve = draw.mean(1 - better / baseline)
    lost = draw.ratio(error - better, baseline - better).entries("lost_share")
    # A share of nothing is no number.
    lost = lost if rescaled_fve.low > 0 else dict.fromkeys(lost)
    return {
        "explanations": float(own.height),
        **draw.mean(own["norm_ratio"]).entries("norm_ratio"),
        **draw.ratio(own["product"], own["square"]).entries("slope"),
        **draw.ratio(column(own, "product_elsewhere"), own["square"]).entries("chance_slope"),
        **slope_of(own, "length", "projection", seed).entries("confidence_slope"),
        **draw.mean(1 - error / baseline).entries("fve"),
        **rescaled_fve.entries("fve_rescaled"),
        **draw.mean(100 * (error - better) / baseline).entries("lost_to_scale"),
        **lost,
    }


def _bins(own: pl.DataFrame, model: str, seed: int) -> list[dict[str, Any]]:
    """Fifths by length; fewer where there are not that many explanations."""
    ordered = own.sort("length", "idx")
    found = []
    for number, part in enumerate(np.array_split(np.arange(own.height), _BINS), start=1):
        if len(part) == 0:
            continue
        rows = ordered[part]
        draw = resampler(rows, seed)
        found.append(
            {
                "model": model,
                "bin": number,
                "explanations": len(part),
                "length": draw.mean(rows["length"]).value,
                **draw.mean(column(rows, "projection")).entries("projection"),
            }
        )
    return found


def _verdict(headline: Headline, reference: str) -> str:
    model = reference if reference in headline else next(iter(headline))
    own = headline[model]
    slope = interval_in(own, "slope")
    if np.isnan(slope.low):
        return "Too few activations to tell whether reconstructions are calibrated."
    if not slope.excludes(1):
        return f"Reconstructions of {model} are not shown to be off their scale: slope {slope}."
    side = "too far from the mean" if slope.value < 1 else "not far enough from the mean"
    return (
        f"Reconstructions of {model} lie {side}: the activation lies {slope} of the way along "
        f"them. One factor for all would make FVE {own['fve_rescaled']:.3f} of {own['fve']:.3f}."
    )


def _caveats(read: Reconstructions) -> list[str]:
    caveats = []
    if read.ruler.scorer.mse_scale is not None:
        caveats.append(
            "This AR is judged by direction: its norm was not trained (norm_ratio means nothing), "
            "and slopes are those of vectors scaled to one norm, which cannot lie near the mean."
        )
    if read.unread:
        caveats.append(f"{count(read.unread, 'explanation')} could not be read against anything.")
    return caveats
