"""What is left of FVE where every direction of the activations counts alike?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding, Headline, Metric, probe
from nla_audit.probes._calibration import projected, rescaled
from nla_audit.probes._reconstructions import Reconstructions, reconstructions
from nla_audit.probes._whitening import FOLDS, cross_fitted
from nla_audit.probes.causal.ruler import PAIR_OPTIONS
from nla_audit.stats import Floats, interval_in
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import clusters, column, resampler
from nla_audit.text.token_kinds import TOKEN_KINDS, token_kind
from nla_audit.wording import count

QUESTION = (
    "How much of the variance do explanations explain where every direction counts alike, and not "
    "the few in which activations vary most?"
)
#: Shares of the activations that the covariance is fitted on, to see whether there are enough.
_SHARES = (0.25, 0.5, 1.0)
#: A covariance is settled where half the activations would give the same FVE within this: a point
#: is what differences between models are told in.
_SETTLED = 0.01
_FEWEST = 20
_OF_NUMBER = {
    "model": pl.String,
    "fitted": pl.Float64,
    "fitted_per_dimension": pl.Float64,
    "shrunk": pl.Float64,
    **dict.fromkeys(("whitened_fve", "whitened_fve_low", "whitened_fve_high"), pl.Float64),
    **{f"whitened_fve_rescaled{end}": pl.Float64 for end in ("", "_low", "_high")},
}
_OF_TOKEN = {
    "model": pl.String,
    "token": pl.String,
    "explanations": pl.Int64,
    **dict.fromkeys(("fve", "fve_low", "fve_high"), pl.Float64),
    **{name: kind for name, kind in _OF_NUMBER.items() if name.startswith("whitened")},
}


@probe(
    name="whitened",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={
        "doc_id": "intervals resample activations instead of documents, and the covariance may "
        "be that of the judged documents",
        "source_text": "no figures by kind of token",
    },
    unit="explanation; resampled over activations or documents",
    control="the same reconstructions against another document's activation",
    high_means="whitened_fve near fve: what is explained is not only the few directions in which "
    "activations vary most; far below: it is",
    example="nla-audit whitened completions.parquet --pair PAIR --activations a.parquet",
    metrics=(
        Metric("explanations", "count", "neither", "explanations read", interval=False),
        Metric("fve", "FVE", "higher", "mean FVE (raw_variance)", chance=True),
        Metric(
            "whitened_fve",
            "FVE",
            "higher",
            "mean FVE in the space whitened by the covariance of other documents' activations",
            chance=True,
        ),
        Metric(
            "whitened_fve_rescaled",
            "FVE",
            "higher",
            "the same with reconstructions brought nearer to the mean there by one factor, "
            "which is fitted on other activations; the mean has 0",
            chance=True,
        ),
    ),
    columns={"shrunk": "share"},
    options=PAIR_OPTIONS,
)
def whitened(
    completions: Completions,
    *,
    pair: str | None = None,
    activations: str | None = None,
    seed: int = 0,
) -> Finding:
    """FVE in whitened space, by how many activations the covariance is from, and by token."""
    read = reconstructions(completions, pair, activations, for_="whitened")
    usable = len(read.ruler.activations.usable_rows())
    documents = len(np.unique(read.documents))
    if usable < _FEWEST or documents < FOLDS:
        raise UserError(
            f"{activations}: {count(usable, 'usable activation')} of {count(documents, 'document')}"
            f"; a covariance needs at least {_FEWEST}, of {FOLDS}: give more, explained or not"
        )
    headline: Headline = {}
    by_number: list[dict[str, Any]] = []
    for share in _SHARES:
        fitted = _measured(read, share, seed)
        for model in completions.models:
            own = fitted.rows.filter(pl.col("model") == model)
            if own.height == 0:
                continue
            summary = _summary(own, seed)
            headline[model] = {"explanations": float(own.height), **summary}
            by_number.append(
                {
                    "model": model,
                    "fitted": fitted.activations,
                    "fitted_per_dimension": fitted.activations / read.predicted.shape[1],
                    "shrunk": fitted.shrinkage,
                    **{name: summary[name] for name in _OF_NUMBER if name in summary},
                }
            )
    numbers = pl.DataFrame(by_number, schema=_OF_NUMBER)
    tokens = _by_token(fitted.rows, completions.models, seed)
    return Finding(
        analyzer="whitened",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(headline, completions.reference),
        caveats=_caveats(read, numbers, tokens),
        tables={"by_number": numbers, "by_token": tokens},
        figures=[
            Figure(
                "number",
                "Whitened FVE by the activations that the covariance is from",
                "line",
                "by_number",
                x="fitted",
                y="whitened_fve_rescaled",
                group="model",
                low="whitened_fve_rescaled_low",
                high="whitened_fve_rescaled_high",
                x_label="activations",
                y_label="whitened FVE, rescaled",
            )
        ],
        parameters={"pair": pair, "activations": activations, "seed": seed},
    )


@dataclass(frozen=True)
class _Fitted:
    """FVE of every explanation under whitenings from one share of the activations."""

    rows: pl.DataFrame
    activations: float
    shrinkage: float


def _measured(read: Reconstructions, share: float, seed: int) -> _Fitted:
    n, width = read.predicted.shape
    partner = read.elsewhere(seed)
    seen, made, seen_elsewhere, made_elsewhere = (np.full((n, width), np.nan) for _ in range(4))
    spread: list[Floats] = []
    fits = []
    # Both are judged in a space that was fitted without the activation that they are held against:
    # one that it was fitted with varies less there than the baseline says.
    for own, whitening in cross_fitted(read.vectors, read.documents, share, seed):
        spread.append((whitening(read.vectors[own]) ** 2).mean(axis=1))
        here = own[read.rows]
        made[here] = whitening(read.predicted[here])
        seen[here] = whitening(read.targets[here])
        there = (partner >= 0) & here[partner]
        made_elsewhere[there] = whitening(read.predicted[there])
        seen_elsewhere[there] = whitening(read.targets[partner[there]])
        fits.append((whitening.fitted, whitening.shrinkage))
    baseline = float(np.concatenate(spread).mean())
    plain = read.ruler.baselines.raw_variance
    frame = read.keys.with_columns(
        fve=1 - ((read.predicted - read.targets) ** 2).mean(axis=1) / plain,
        chance_fve=_known(
            1 - ((read.predicted - read.targets[partner]) ** 2).mean(axis=1) / plain, partner >= 0
        ),
        whitened_fve=1 - ((made - seen) ** 2).mean(axis=1) / baseline,
        chance_whitened_fve=1 - ((made_elsewhere - seen_elsewhere) ** 2).mean(axis=1) / baseline,
        whitened_fve_rescaled=_rescaled_fve(read.keys, made, seen, baseline),
        chance_whitened_fve_rescaled=_rescaled_fve(
            read.keys, made_elsewhere, seen_elsewhere, baseline
        ),
    )
    numbers, shrinkages = np.mean(fits, axis=0)
    return _Fitted(frame, float(numbers), float(shrinkages))


def _known(values: Floats, known: np.ndarray) -> Floats:
    return np.where(known, values, np.nan)


def _rescaled_fve(keys: pl.DataFrame, made: Floats, seen: Floats, baseline: float) -> Floats:
    """FVE `[n]` of ``made`` times the factor that is best for the other half of its model."""
    products, lengths = projected(made, seen)
    known = ~np.isnan(products)
    factors = np.full(len(made), np.nan)
    for model in keys["model"].unique():
        own = known & (keys["model"] == model).to_numpy()
        groups = clusters(keys)[own]
        factors[own] = rescaled(products[own], lengths[own] ** 2, groups)
    return np.asarray(1 - ((factors[:, None] * made - seen) ** 2).mean(axis=1) / baseline)


def _summary(own: pl.DataFrame, seed: int) -> dict[str, float | None]:
    draw = resampler(own, seed)
    summary: dict[str, float | None] = {}
    for name in ("fve", "whitened_fve", "whitened_fve_rescaled"):
        for metric in (name, f"chance_{name}"):
            summary |= draw.mean(column(own, metric)).entries(metric)
    return summary


def _by_token(rows: pl.DataFrame, models: tuple[str, ...], seed: int) -> pl.DataFrame:
    kinds = [None if text is None else token_kind(text) for text in rows["source_text"]]
    of_kind = rows.with_columns(token=pl.Series(kinds, dtype=pl.String))
    found: list[dict[str, Any]] = []
    for model in models:
        for kind in TOKEN_KINDS:
            own = of_kind.filter((pl.col("model") == model) & (pl.col("token") == kind))
            if own.height:
                summary = _summary(own, seed)
                found.append(
                    {
                        "model": model,
                        "token": kind,
                        "explanations": own.height,
                        **{name: summary[name] for name in _OF_TOKEN if name in summary},
                    }
                )
    return pl.DataFrame(found, schema=_OF_TOKEN)


def _verdict(headline: Headline, reference: str) -> str:
    model = reference if reference in headline else next(iter(headline))
    own = headline[model]
    shown = {
        name: interval_in(own, name)
        for name in ("fve", "whitened_fve_rescaled", "chance_whitened_fve_rescaled")
    }
    said = (
        f"{model} has FVE {shown['fve']}, and {shown['whitened_fve_rescaled']} where every "
        "direction counts alike and one factor sets the scale"
    )
    null = shown["chance_whitened_fve_rescaled"]
    if np.isnan(shown["whitened_fve_rescaled"].low):
        return f"{said}: too few activations for an interval."
    if shown["whitened_fve_rescaled"].low <= max(null.high, 0):
        return f"{said}: not shown to be more than another activation's text has ({null})."
    return f"{said}; another activation's text has {null}."


def _caveats(read: Reconstructions, numbers: pl.DataFrame, tokens: pl.DataFrame) -> list[str]:
    half, whole = (
        numbers.filter(pl.col("fitted") == fitted)
        for fitted in numbers["fitted"].unique().sort().tail(2)
    )
    gaps = (whole["whitened_fve_rescaled"] - half["whitened_fve_rescaled"]).abs()
    moved = gaps.max()
    caveats = []
    used = f"{whole['fitted'][0]:,.0f} activations, {whole['fitted_per_dimension'][0]:.1f} for "
    used += "each dimension"
    if isinstance(moved, float) and moved > _SETTLED:
        caveats.append(
            f"The covariance is not settled: it is from {used}, and from half as many the figures "
            f"would differ by up to {moved:.3f}; give more activations, explained or not."
        )
    else:
        caveats.append(f"The covariance is from {used}; half as many give the same figures.")
    if tokens.height == 0:
        caveats.append("No figures by kind of token: the sources are not known.")
    if read.unread:
        caveats.append(f"{count(read.unread, 'explanation')} could not be read against anything.")
    return caveats
