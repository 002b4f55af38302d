"""What do shorter explanations cost in FVE?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl

from nla_audit.analyzers._front import common_means, front_and_knee, matrix
from nla_audit.analyzers._frontier_verdict import CANNOT_TELL, answer, to_tell, verdict
from nla_audit.analyzers._lengths import mean_tokens, token_saving
from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding, Headline, Metric, Option, analyzer
from nla_audit.stats import UNKNOWN
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, paired, resampler

QUESTION = "What do shorter explanations cost in FVE, and where does the price turn?"
#: FVE quantiles reported beside the mean: per-activation FVE has a heavy low tail (docs/object.md).
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
#: CJK share above which failed injection is suspected: the marker is a CJK character, and an AV
#: that never saw its vector describes the marker (docs/failures.md).
_CJK_ALARM = 0.05
#: FVE that a model may lose and still be said to lose none: about half of what RL gained over
#: the warm start in the published sweep (0.532 to 0.585, docs/published.md).
MARGIN = 0.03


METRICS = (
    Metric("n", "count", "neither", "explanations of the model", interval=False),
    Metric("mean_tokens", "tokens", "lower", "mean length of all that was generated"),
    Metric("mean_content_tokens", "tokens", "lower", "mean length of the text alone"),
    Metric("mean_overhead_tokens", "tokens", "neither", "mean length of tags and end token"),
    Metric("fve_mean", "FVE", "higher", "mean FVE of the reconstructions"),
    Metric("fve_median", "FVE", "higher", "median FVE of the reconstructions"),
    Metric("fve_missing", "count", "lower", "explanations without an FVE", interval=False),
    Metric("extraction_rate", "share", "higher", "share of the outputs that hold an explanation"),
    Metric("empty_rate", "share", "lower", "share of the explanations that say nothing"),
    Metric("cjk_share", "share", "lower", "share of CJK characters in the explanations"),
    Metric("token_saving", "share", "higher", "share of the reference's tokens that is saved"),
    Metric("fve_change", "FVE", "higher", "FVE less that of the reference, within activations"),
)


@analyzer(
    name="frontier",
    question=QUESTION,
    reads=("model", "idx", "explanation", "n_tokens", "fve"),
    uses={
        "length_penalty": "models are ordered by name instead of by λ",
        "cjk": "no alarm for explanations that describe the injection marker",
        "doc_id": "intervals resample activations instead of documents",
    },
    unit="activation (samples of one activation are averaged first)",
    control="the reference model's explanation of the same activation",
    high_means="fve_change above 0: the model reconstructs better than the reference; "
    "token_saving near 1: almost nothing of the reference's length is left",
    example="nla-audit frontier completions.parquet --reference p0.0",
    metrics=METRICS,
    columns={"as_good_with_fewer_tokens": "share", "share_of_replicates": "share"},
    options=(
        Option(
            "margin",
            float,
            MARGIN,
            "A loss of FVE up to this is as good as none. A model is said to lose none only where "
            "its interval excludes a greater loss; where it excludes neither, nothing is told.",
        ),
    ),
    order=10,
)
def frontier(completions: Completions, *, margin: float = MARGIN, seed: int = 0) -> Finding:
    """Tokens and FVE per model, paired changes, the Pareto front, prices and the knee.

    Raises:
        UserError: a column is missing, or ``margin`` is not above 0.
    """
    if not 0 < margin < float("inf"):
        raise UserError(f"--margin {margin:g}: give the FVE that may be lost, a number above 0")
    completions.require("n_tokens", "fve", for_="frontier")
    headline: Headline = {}
    rows, distribution = [], []
    failed = completions.rows.filter(~pl.col("extracted"))["n_tokens"].drop_nulls().to_numpy()
    failed_tokens = float(failed.mean()) if len(failed) else None
    for model in completions.models:
        summary = _summary(completions, model, failed_tokens, seed)
        headline[model] = summary
        rows.append(
            {"model": model, "length_penalty": completions.length_penalties[model], **summary}
        )
        distribution += _quantiles(completions, model, seed)
    changes = pl.DataFrame(
        [
            _change(completions, model, headline[model], margin=margin, seed=seed)
            for model in completions.models
            if model != completions.reference
        ]
    )
    means = common_means(completions)
    front, knee = front_and_knee(means, completions.models, seed)
    prices = _prices(completions, means, seed)
    order = {model: number for number, model in enumerate(completions.models)}
    models = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("model").is_in(front).alias("on_pareto_front"),
        # A model without RL is no point of the sweep: no line leads through it.
        pl.when(pl.col("length_penalty").is_null())
        .then(pl.lit("without RL"))
        .otherwise(pl.lit("length penalty sweep"))
        .alias("course"),
    )
    return Finding(
        analyzer="frontier",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=verdict(completions, changes, knee, margin),
        caveats=_caveats(completions, headline, means),
        tables={
            "models": models,
            "paired_changes": changes,
            "fve_distribution": pl.DataFrame(distribution).sort(
                pl.col("model").replace_strict(order, return_dtype=pl.Int64),
                "quantile",
                maintain_order=True,
            ),
            "marginal_prices": prices,
            "knee": knee,
        },
        figures=_figures(),
        parameters={
            "seed": seed,
            "margin": margin,
            "overhead_tokens": completions.overhead_tokens,
            "fve_baseline": completions.baseline.name,
            "fve_baseline_value": completions.baseline.value,
        },
    )


def _summary(
    completions: Completions, model: str, failed_tokens: float | None, seed: int
) -> dict[str, float | None]:
    rows = completions.of(model)
    draw = resampler(rows, seed)
    failed = rows["explanation"].is_null()
    # Whether a failed one would have been empty is not known, so it has no part in that rate.
    empty = (rows["explanation"].str.strip_chars() == "").cast(pl.Float64).fill_null(np.nan)
    summary: dict[str, float | None] = {"n": float(rows.height)}
    summary |= mean_tokens(rows, draw, failed_tokens).entries("mean_tokens")
    summary |= draw.mean(column(rows, "content_tokens")).entries("mean_content_tokens")
    summary |= draw.mean(column(rows, "fixed_tokens")).entries("mean_overhead_tokens")
    fve = draw.mean(column(rows, "fve"))
    summary |= fve.entries("fve_mean")
    summary |= draw.quantile(column(rows, "fve"), 0.5).entries("fve_median")
    summary["fve_missing"] = float(fve.missing)
    summary |= draw.share(1.0 - failed.cast(pl.Float64).to_numpy()).entries("extraction_rate")
    summary |= draw.share(empty.to_numpy()).entries("empty_rate")
    summary |= draw.share(column(rows, "cjk")).entries("cjk_share")
    pairs = paired(completions, model, ["n_tokens", "fve", "extracted"])
    draw = resampler(pairs, seed)
    summary |= token_saving(pairs, draw, failed_tokens).entries("token_saving")
    change = column(pairs, "fve") - column(pairs, "fve_reference")
    summary |= draw.mean(change).entries("fve_change")
    return summary


def _quantiles(completions: Completions, model: str, seed: int) -> list[dict]:
    rows = completions.of(model)
    draw = resampler(rows, seed)
    values = column(rows, "fve")
    return [
        {"model": model, "quantile": q, **draw.quantile(values, q).entries("fve")}
        for q in _QUANTILES
    ]


def _change(
    completions: Completions,
    model: str,
    summary: dict[str, float | None],
    *,
    margin: float,
    seed: int,
) -> dict[str, object]:
    pairs = paired(completions, model, ["n_tokens", "fve"])
    draw = resampler(pairs, seed)
    saved = column(pairs, "n_tokens_reference") - column(pairs, "n_tokens")
    change = column(pairs, "fve") - column(pairs, "fve_reference")
    comparable = ~np.isnan(change)
    compared = int(comparable.sum())
    low, high = summary["fve_change_low"], summary["fve_change_high"]
    loss = answer(low, high, margin)
    at_no_cost = np.where(comparable, (change >= 0) & (saved > 0), np.nan)
    return {
        "model": model,
        "activations": pairs.height,
        "compared": compared,
        "tokens_saved": draw.mean(saved).value,
        **{key: summary[key] for key in ("token_saving", "token_saving_low", "token_saving_high")},
        **{key: summary[key] for key in ("fve_change", "fve_change_low", "fve_change_high")},
        "fve_change_median": draw.quantile(change, 0.5).value,
        **draw.share(at_no_cost).entries("as_good_with_fewer_tokens"),
        "loss": loss,
        "activations_to_tell": (
            to_tell(compared, low, high, margin) if loss == CANNOT_TELL else None
        ),
    }


def _prices(completions: Completions, means: pl.DataFrame, seed: int) -> pl.DataFrame:
    """FVE points (hundredths) that each further token buys, between neighbours by length."""
    schema = {
        "shorter": pl.String,
        "longer": pl.String,
        "tokens": pl.Float64,
        "fve_points": pl.Float64,
        "fve_points_per_token": pl.Float64,
        "fve_points_per_token_low": pl.Float64,
        "fve_points_per_token_high": pl.Float64,
    }
    if means.height == 0 or len(completions.models) < 2:
        return pl.DataFrame(schema=schema)
    models = completions.models
    tokens, fve = matrix(means, "n_tokens", models), matrix(means, "fve", models)
    one_row = means.unique("idx", maintain_order=True).sort("idx")
    draw = resampler(one_row, seed)
    order = np.argsort(tokens.mean(axis=0), kind="stable")
    rows = []
    for shorter, longer in pairwise(order):
        more_tokens = tokens[:, longer] - tokens[:, shorter]
        more_fve = 100 * (fve[:, longer] - fve[:, shorter])
        length = draw.mean(more_tokens)
        # A price per token means nothing where the lengths themselves do not differ.
        price = draw.ratio(more_fve, more_tokens) if length.excludes(0.0) else UNKNOWN
        rows.append(
            {
                "shorter": models[shorter],
                "longer": models[longer],
                "tokens": length.value,
                "fve_points": float(more_fve.mean()),
                **price.entries("fve_points_per_token"),
            }
        )
    return pl.DataFrame(rows, schema=schema)


def _caveats(completions: Completions, headline: Headline, means: pl.DataFrame) -> list[str]:
    caveats = list(completions.notes)
    activations = completions.rows["idx"].n_unique()
    common = means["idx"].n_unique()
    if common < activations:
        caveats.append(
            f"The front, the knee and the prices use the {common} of {activations} activations "
            "for which every model has an FVE."
        )
    for model, summary in headline.items():
        if (summary["fve_missing"] or 0) > 0:
            caveats.append(
                f"{model}: {summary['fve_missing']:.0f} of {summary['n']:.0f} explanations have no "
                "FVE (failed extraction or not scored); they count in tokens, not in FVE."
            )
        if (summary["cjk_share"] or 0) > _CJK_ALARM:
            caveats.append(
                f"{model}: {summary['cjk_share']:.0%} of its characters are CJK. If the source is "
                "not, the injection may have failed and the AV may be describing the marker."
            )
    caveats.append(
        f"FVE is by one ruler ({completions.ar or 'the AR is not named in the table'}). "
        + completions.baseline.sentence()
    )
    return caveats


def _figures() -> list[Figure]:
    return [
        Figure(
            "tradeoff",
            "Length against FVE",
            "line",
            "models",
            x="mean_tokens",
            y="fve_mean",
            x_label="mean tokens of an explanation",
            y_label="mean FVE",
            low="fve_mean_low",
            high="fve_mean_high",
            label="model",
            group="course",
            caption="Mean FVE of each model against its mean length, with 95 % intervals over "
            "activations.",
        ),
        Figure(
            "changes",
            "Paired FVE change",
            "bar",
            "paired_changes",
            x="model",
            y="fve_change",
            x_label="model",
            y_label="FVE change against the reference",
            low="fve_change_low",
            high="fve_change_high",
            caption="Change of FVE within the same activation, with 95 % intervals.",
        ),
        Figure(
            "distribution",
            "FVE quantiles",
            "line",
            "fve_distribution",
            x="quantile",
            y="fve",
            x_label="quantile of activations",
            y_label="FVE",
            group="model",
            caption="Quantiles of per-activation FVE: the low tail is where models differ most.",
        ),
    ]
