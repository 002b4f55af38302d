"""A planted sweep for the demonstration, and its truth beside what the analyzers estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from nla_audit.findings import Figure, Finding, Headline, Metric
from nla_audit.text.reading import RESAMPLING_FLOOR
from nla_audit.world.sweep.planted import DEFAULT_MODELS, PlantedSweep, default_sweep
from nla_audit.world.sweep.truth import summarise
from nla_audit.world.sweep.wordings import KINDS

QUESTION = "How close do the analyzers come to what was planted?"
#: Distance from the truth within which a rate counts as recovered.
CLOSE = 0.05


@dataclass(frozen=True)
class _Quantity:
    """What one number of a finding estimates: a column of the truth."""

    name: str
    analyzer: str
    metric: str
    truth: str


_QUANTITIES = (
    _Quantity("omission share", "rewording", "omission_share", "omission_of_saving"),
    _Quantity("claims retained", "drop-analysis", "claims_retained", "claims_retained"),
    *(
        _Quantity(f"retained: {kind}", "drop-analysis", f"retained.{kind}", f"retained.{kind}")
        for kind in KINDS
    ),
    _Quantity("tail held", "tail", "holds_tail_rate", "tail_held_rate"),
    _Quantity("wrong names", "faithfulness", "unsupported_name_rate", "spurious_entity_rate"),
    _Quantity("wrong numbers", "faithfulness", "unsupported_number_rate", "spurious_number_rate"),
    _Quantity("verbatim quotes", "faithfulness", "verbatim_quote_rate", "verbatim_quote_rate"),
)


def demo_sweep(activations: int = 400, seed: int = 0) -> PlantedSweep:
    """The default sweep, with two explanations of each activation by the reference.

    The second one shows how much two samples of one model differ (the resampling floor). The
    other models keep one, so that every explanation is compared with the reference's sample 0,
    which the truth is relative to.
    """
    sweep = default_sweep(activations, seed, samples=2)
    keep = (pl.col("sample") == 0) | (pl.col("model") == sweep.reference)
    completions = sweep.completions.filter(keep)
    truth, explanations = sweep.truth.filter(keep), sweep.explanations.filter(keep)
    return replace(
        sweep,
        completions=completions,
        truth=truth,
        explanations=explanations,
        summary=summarise(DEFAULT_MODELS, completions, truth, explanations),
    )


def truth_beside_estimate(sweep: PlantedSweep, findings: Sequence[Finding]) -> Finding:
    """Compare the estimates of ``findings`` with the truth of the ``sweep`` they were made from.

    The omission share (of the tokens that a model saves) is compared only where a model saves
    tokens beyond its interval: where it saves nothing the share divides by nothing.

    Args:
        sweep: from :func:`demo_sweep`.
        findings: of an audit of ``sweep.completions``; quantities of an analyzer that is not
            among them are left out.

    Returns:
        A finding with table ``rates``: ``model, length_penalty, quantity, metric`` (where the
        estimate stands in the findings), ``truth, estimate, estimate_low, estimate_high, error``
        (estimate − truth) and ``covered`` (whether the interval holds the truth; null where
        there is no interval). Null truth, or no estimate, leaves the row out.
    """
    headlines = {finding.analyzer: finding.headline for finding in findings}
    rows = []
    for known in _truths(sweep):
        for quantity in _QUANTITIES:
            estimates = headlines.get(quantity.analyzer, {}).get(str(known["model"]), {})
            row = _row(known, quantity, estimates)
            if row is not None:
                rows.append(row)
    rates = pl.DataFrame(rows, schema=_RATES_SCHEMA)
    return Finding(
        analyzer="planted-truth",
        question=QUESTION,
        reference=sweep.reference,
        headline=_headline(rates),
        verdict=_verdict(rates),
        caveats=[
            "The truth is what this sweep realised, counted from the plan of each explanation, "
            "not the rates that were asked for.",
            "A planted claim has the kind it was planted with; the analyzer reads kinds from cue "
            "words, so a misread kind is part of the error.",
            "Filler phrases state nothing and are no planted claims; the analyzer takes those of "
            "the reference for claims.",
        ],
        tables={"rates": rates},
        figures=[
            Figure(
                "error",
                "Estimate less truth",
                "heatmap",
                "rates",
                x="model",
                y="error",
                group="quantity",
                x_label="model",
                y_label="quantity",
                caption="How far each estimated rate is from the planted one; 0 is exact.",
            )
        ],
        parameters={"close": CLOSE},
        metrics=_METRICS,
    )


_METRICS = (
    Metric("rates", "count", "neither", "rates that were planted and estimated", interval=False),
    Metric(
        "close_share",
        "share",
        "higher",
        f"share of them within {CLOSE:g} of the truth",
        interval=False,
    ),
    Metric(
        "covered_share",
        "share",
        "higher",
        "share of their intervals that hold the truth",
        interval=False,
    ),
    Metric(
        "mean_absolute_error",
        "difference of shares",
        "lower",
        "mean distance from the truth",
        interval=False,
    ),
    Metric(
        "largest_absolute_error",
        "difference of shares",
        "lower",
        "largest distance from the truth",
        interval=False,
    ),
)
_RATES_SCHEMA = {
    "model": pl.String,
    "length_penalty": pl.Float64,
    "quantity": pl.String,
    "metric": pl.String,
    "truth": pl.Float64,
    "estimate": pl.Float64,
    "estimate_low": pl.Float64,
    "estimate_high": pl.Float64,
    "error": pl.Float64,
    "covered": pl.Boolean,
}


def _row(
    known: Mapping[str, object], quantity: _Quantity, estimates: Mapping[str, float | None]
) -> dict[str, object] | None:
    truth, estimate = known.get(quantity.truth), estimates.get(quantity.metric)
    if quantity.metric == "omission_share" and (estimates.get("saving_tokens_low") or 0.0) <= 0.0:
        return None
    if not isinstance(truth, float) or estimate is None:
        return None
    low = estimates.get(f"{quantity.metric}_low")
    high = estimates.get(f"{quantity.metric}_high")
    return {
        "model": known["model"],
        "length_penalty": known["length_penalty"],
        "quantity": quantity.name,
        "metric": f"{quantity.analyzer}: {quantity.metric}",
        "truth": truth,
        "estimate": estimate,
        "estimate_low": low,
        "estimate_high": high,
        "error": estimate - truth,
        "covered": None if low is None or high is None else low <= truth <= high,
    }


def _truths(sweep: PlantedSweep) -> list[dict[str, object]]:
    """One row per model with every column that a quantity names; the floor last."""
    table = sweep.summary.join(
        _omission_of_saving(sweep), on="model", how="left", maintain_order="left"
    )
    rows = table.to_dicts()
    retained = _floor(sweep)
    if retained is not None:
        rows.append(
            {"model": RESAMPLING_FLOOR, "length_penalty": None, "claims_retained": retained}
        )
    return rows


def _omission_of_saving(sweep: PlantedSweep) -> pl.DataFrame:
    """``model, omission_of_saving``: omitted content over saved content, in tokens.

    Fillers and copied tails of the reference count as said and then omitted, as do claims whose
    name or number another has taken the place of, and punctuation between claims goes to the
    claims in proportion, as in the analyzer's account.
    """
    renamed = sweep.truth.group_by("model", "idx", "sample").agg(
        renamed=pl.col("reference_tokens").filter(pl.col("renamed")).sum()
    )
    said = pl.sum_horizontal("stated_tokens", "filler_tokens", "tail_tokens")
    own = sweep.explanations.select(
        "model", "idx", "sample", "omission_saving", content=said + pl.col("separator_tokens")
    )
    reference = sweep.explanations.filter(
        (pl.col("model") == sweep.reference) & (pl.col("sample") == 0)
    ).select(
        "idx",
        reference_content=said + pl.col("separator_tokens"),
        per_said_token=(said + pl.col("separator_tokens")) / said,
        unplanned=pl.col("filler_tokens") + pl.col("tail_tokens"),
    )
    return (
        own.filter(pl.col("model") != sweep.reference)
        .join(renamed, on=["model", "idx", "sample"])
        .join(reference, on="idx")
        .drop_nulls()
        .group_by("model")
        .agg(
            omission_of_saving=(
                (pl.col("omission_saving") + pl.col("renamed") + pl.col("unplanned"))
                * pl.col("per_said_token")
            ).sum()
            / (pl.col("reference_content") - pl.col("content")).sum()
        )
    )


def _floor(sweep: PlantedSweep) -> float | None:
    """Share of the claims of each reference sample that the other one states, both ways."""
    second = sweep.explanations.filter(
        (pl.col("model") == sweep.reference)
        & (pl.col("sample") == 1)
        & pl.col("reference_claims").is_not_null()
    )
    claims = int(second["reference_claims"].sum()) + int(second["stated_claims"].sum())
    shared = int(second["kept_claims"].sum()) + int(second["reworded_claims"].sum())
    return 2.0 * shared / claims if claims else None


def _headline(rates: pl.DataFrame) -> Headline:
    by_model = rates.group_by("model", maintain_order=True).agg(
        rates=pl.len().cast(pl.Float64),
        close_share=(pl.col("error").abs() <= CLOSE).mean(),
        covered_share=pl.col("covered").mean(),
        mean_absolute_error=pl.col("error").abs().mean(),
        largest_absolute_error=pl.col("error").abs().max(),
    )
    return {row.pop("model"): row for row in by_model.to_dicts()}


def _verdict(rates: pl.DataFrame) -> str:
    if rates.height == 0:
        return "No analyzer gave an estimate of anything that was planted."
    close = int((rates["error"].abs() <= CLOSE).sum())
    with_interval = int(rates["covered"].count())
    worst = rates.row(int(rates["error"].abs().arg_max() or 0), named=True)
    return (
        f"{close} of {rates.height} rates are estimated within {CLOSE:g} of the planted truth, and "
        f"{int(rates['covered'].sum())} of {with_interval} intervals cover it; furthest off is "
        f"“{worst['quantity']}” of {worst['model']} (truth {worst['truth']:.2f}, estimate "
        f"{worst['estimate']:.2f})."
    )
