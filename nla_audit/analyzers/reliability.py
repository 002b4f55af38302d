"""Does one sample tell activations apart, or do samples of one activation differ as much?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from nla_audit.analyzers._variance_components import (
    COMPONENTS,
    LEAST_SAMPLES,
    across_models,
    cells,
    one_model,
)
from nla_audit.findings import Figure, Finding, Headline, Metric, analyzer
from nla_audit.stats import interval_in, or_none
from nla_audit.table.completions import Completions
from nla_audit.text.claims import claim_count
from nla_audit.text.words import words
from nla_audit.wording import count

QUESTION = (
    "How much of what explanations differ by is due to the activation, how much to the model, and "
    "how much to the sample that was drawn?"
)
#: Means of so many samples that the rest is a tenth are called reliable (Nunnally 1978 asks 0.9
#: where something is decided by single values).
RELIABLE = 0.9
_FVE, _LENGTH, _CLAIMS = "fve", "length", "claims"
_MEASURES = (_FVE, _LENGTH, _CLAIMS)
_SAID = {_FVE: "FVE", _LENGTH: "length", _CLAIMS: "number of claims"}
_SHARES = {
    "measure": pl.String,
    "component": pl.String,
    "activations": pl.Int64,
    "share": pl.Float64,
    "share_low": pl.Float64,
    "share_high": pl.Float64,
}
_VARIANCES = {"component": pl.String} | {
    f"{measure}{end}": pl.Float64 for measure in _MEASURES for end in ("", "_low", "_high")
}


@analyzer(
    name="reliability",
    question=QUESTION,
    reads=("model", "idx", "explanation", "sample"),
    uses={
        "fve": "reliability of length and claims only",
        "n_tokens": "length is counted in words",
        "doc_id": "intervals resample activations instead of documents",
    },
    unit="activation that the model has explained at least twice; several models are compared on "
    "those that each of them has",
    control="the same with samples exchanged at random between a model's activations: 0",
    high_means="icc near 1: samples of one activation agree, so that one sample tells activations "
    "apart; near 0: a second sample says as little of the first as another activation's",
    example="nla-audit reliability completions.parquet",
    metrics=(
        Metric(
            "activations",
            "count",
            "neither",
            "activations with at least two samples",
            interval=False,
        ),
        *(
            Metric(
                f"{name}_icc",
                "correlation",
                "higher",
                f"share of the variance of one sample's {said} that is due to the activation",
                chance=True,
            )
            for name, said in _SAID.items()
        ),
        Metric("fve_sample_sd", "FVE", "lower", "standard deviation of FVE between samples"),
        Metric(
            "length_sample_sd", "tokens", "neither", "standard deviation of length between samples"
        ),
        Metric(
            "claims_sample_sd",
            "count",
            "neither",
            "standard deviation of the number of claims between samples",
        ),
        *(
            Metric(
                f"{name}_samples_needed",
                "count",
                "lower",
                f"samples of an activation whose mean {said} has a reliability of {RELIABLE:g}; "
                "not known where that of one may be 0",
                interval=False,
            )
            for name, said in _SAID.items()
        ),
    ),
    columns={"share": "share"},
    order=60,
)
def reliability(completions: Completions, *, seed: int = 0) -> Finding:
    """Variance components of FVE, length and number of claims."""
    completions.require("sample", for_="reliability")
    rows = _measured(completions)
    exchanged = _exchanged(rows, seed)
    by_measure = {measure: cells(rows, measure) for measure in _MEASURES}
    by_chance = {measure: cells(exchanged, measure) for measure in _MEASURES}
    headline: Headline = {}
    for model in completions.models:
        own = pl.col("model") == model
        headline[model] = {"activations": float(by_measure[_CLAIMS].filter(own).height)}
        for measure in _MEASURES:
            found = one_model(by_measure[measure].filter(own), seed)
            null = one_model(by_chance[measure].filter(own), seed)
            headline[model] |= found["icc"].entries(f"{measure}_icc")
            headline[model] |= null["icc"].entries(f"chance_{measure}_icc")
            headline[model] |= found["sample_sd"].entries(f"{measure}_sample_sd")
            # A correlation that may be 0 would need any number of samples.
            needed = samples_needed(found["icc"].value) if found["icc"].low > 0 else math.nan
            headline[model][f"{measure}_samples_needed"] = or_none(needed)
    tables = _components(by_measure, seed)
    return Finding(
        analyzer="reliability",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=_verdict(completions, headline, tables["components"]),
        caveats=_caveats(completions, headline),
        tables=tables,
        figures=[
            Figure(
                "components",
                "What explanations differ by",
                "stacked",
                "components",
                x="measure",
                y="share",
                group="component",
                x_label="",
                y_label="share of the variance",
                percent=True,
                caption="Variance of one explanation over all models and activations, by what it "
                "is due to.",
            )
        ],
        parameters={"seed": seed, "reliable": RELIABLE},
    )


def samples_needed(icc: float, reliable: float = RELIABLE) -> float:
    """Samples whose mean is ``reliable`` (Spearman and Brown's formula); NaN where none are."""
    if not icc > 0:
        return math.nan
    if icc >= reliable:
        return 1.0
    needed = reliable / (1 - reliable) * (1 - icc) / icc
    return float(math.ceil(round(needed, 9)))  # 9 and not 10 for a correlation of a half


def _measured(completions: Completions) -> pl.DataFrame:
    """``model, idx, sample, doc_id`` and the three measures; null where an explanation failed.

    Claims are counted only for models that explain an activation twice: of no others is it asked
    how much their samples differ by.
    """
    texts = completions.rows["explanation"].to_list()
    length = (
        completions.rows["n_tokens"].cast(pl.Float64)
        if completions.has("n_tokens")
        else pl.Series([None if text is None else float(len(words(text))) for text in texts])
    )
    repeated = completions.rows.select(
        (pl.len().over("model", "idx") >= LEAST_SAMPLES).any().over("model")
    ).to_series()
    claims = [
        float(claim_count(text)) if is_repeated and text is not None else None
        for text, is_repeated in zip(texts, repeated, strict=True)
    ]
    is_text = pl.col("explanation").is_not_null()
    return completions.rows.with_columns(
        length.alias(_LENGTH), pl.Series(_CLAIMS, claims, dtype=pl.Float64)
    ).select(
        "model",
        "idx",
        "sample",
        "doc_id",
        *(pl.when(is_text).then(pl.col(name)).alias(name) for name in _MEASURES),
    )


def _exchanged(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The measures dealt anew, within each model, among its activations."""
    generator = np.random.default_rng([seed, 15])
    parts = []
    for (_,), own in rows.group_by("model", maintain_order=True):
        order = generator.permutation(own.height)
        parts.append(own.with_columns(own.select(_MEASURES)[order]))
    return pl.concat(parts)


def _components(by_measure: dict[str, pl.DataFrame], seed: int) -> dict[str, pl.DataFrame]:
    """Shares of the variance, a row each; and the variances, which have units, side by side."""
    shares: list[dict[str, Any]] = []
    variances: dict[str, dict[str, Any]] = {name: {"component": name} for name in COMPONENTS}
    for measure, of_all in by_measure.items():
        found = across_models(of_all, seed)
        for name, (variance, share) in zip(COMPONENTS, found, strict=False):
            row = {"measure": measure, "component": name, "activations": share.n}
            shares.append({**row, **share.entries("share")})
            variances[name] |= variance.entries(measure)
    return {
        "components": pl.DataFrame(shares, schema=_SHARES),
        "variances": pl.DataFrame(list(variances.values()), schema=_VARIANCES),
    }


def _verdict(completions: Completions, headline: Headline, components: pl.DataFrame) -> str:
    own = headline[completions.reference]
    known = [measure for measure in _MEASURES if own[f"{measure}_icc"] is not None]
    if not known:
        return (
            "How reliable one sample is cannot be told: no two activations of "
            f"{completions.reference} have two samples."
        )
    parts = [_one(own, measure) for measure in known]
    said = f"Of {completions.reference}, one sample's {'; '.join(parts)}."
    shares = {
        row["component"]: row["share"]
        for row in components.filter(pl.col("measure") == known[0]).iter_rows(named=True)
    }
    if all(shares.get(component) is not None for component in COMPONENTS):
        listed = ", ".join(
            f"{component} {max(shares[component], 0):.0%}" for component in COMPONENTS
        )
        said += f" Of the variance of {_SAID[known[0]]} over all models: {listed}."
    return said


def _one(own: dict[str, float | None], measure: str) -> str:
    said = _SAID[measure]
    interval = interval_in(own, f"{measure}_icc", "activations")
    if np.isnan(interval.low):
        return f"{said} has a reliability of {interval}"
    if interval.low <= 0:
        return f"{said} is not shown to tell activations apart (reliability {interval})"
    needed = own[f"{measure}_samples_needed"]
    enough = "" if needed is None else f", {RELIABLE:g} takes {count(int(needed), 'sample')}"
    return f"{said} has a reliability of {interval}{enough}"


def _caveats(completions: Completions, headline: Headline) -> list[str]:
    caveats = [
        "Samples are taken to be drawn independently: samples that share random numbers agree more."
    ]
    without = [model for model, own in headline.items() if own["claims_icc"] is None]
    if without:
        caveats.append(f"Too few activations with two samples: {', '.join(without)}.")
    if not completions.has("fve"):
        caveats.append("The table has no FVE.")
    if not completions.has("n_tokens"):
        caveats.append("Length is counted in words: the table has no n_tokens.")
    if len(completions.models) > 1:
        caveats.append(
            "The component of the model is the variance of these models' means; other models, or "
            "other length penalties, would have another."
        )
    return caveats
