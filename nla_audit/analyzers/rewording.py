"""How much of what a length penalty saves is omission, and how much is terser wording?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from nla_audit.analyzers._extractive import extractiveness
from nla_audit.analyzers._floor import floor_of
from nla_audit.analyzers._net_loss import NetLoss, net_loss
from nla_audit.analyzers._reading_error import Level, ReadingError
from nla_audit.analyzers._rewording_verdict import caveats, verdict
from nla_audit.analyzers._trials import calibrated
from nla_audit.analyzers._unrecognised import usually_new
from nla_audit.findings import Figure, Finding, Headline, Metric, Option, analyzer
from nla_audit.probes.causal.ruler import PAIR_OPTIONS, open_ruler
from nla_audit.probes.causal.tables import fve_parts
from nla_audit.stats import or_none
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler, with_documents
from nla_audit.text.reading import RESAMPLING_FLOOR, Progress, Reading, read

QUESTION = (
    "How much of the tokens that a length penalty saves is omission, and how much is terser "
    "wording of what is still said?"
)
PARTS = ("omission", "rewording", "addition", "overhead")
_SAVED_BY = {
    "omission": "by saying less",
    "rewording": "by terser wording",
    "addition": "by saying other things (below 0: spent on them)",
    "overhead": "on tags and end token",
}
METRICS = (
    Metric("n", "count", "neither", "explanations beside the reference's", interval=False),
    Metric("saving_tokens", "tokens", "higher", "tokens saved in an explanation"),
    *(
        metric
        for part, what in _SAVED_BY.items()
        for metric in (
            Metric(f"{part}_tokens", "tokens", "neither", f"tokens saved {what}"),
            Metric(f"{part}_share", "share", "neither", f"share of the saving that is {what}"),
        )
    ),
    Metric(
        "net_omission_tokens",
        "tokens",
        "neither",
        "tokens saved by saying less: no longer said less newly said, in the reference's wording",
    ),
    Metric(
        "terser_wording_tokens",
        "tokens",
        "neither",
        "tokens saved by saying all of it, what is new too, in fewer words",
    ),
    Metric(
        "omission_lead_tokens",
        "tokens",
        "neither",
        "net_omission_tokens less terser_wording_tokens",
    ),
    Metric(
        "reading_error_tokens",
        "tokens",
        "neither",
        "standard deviation of the reading's own error in omission_lead_tokens",
        interval=False,
    ),
    Metric(
        "unrecognised_tokens",
        "tokens",
        "neither",
        "tokens of omission that may be said in words too different to be recognised",
        interval=False,
    ),
    Metric(
        "evening_tokens",
        "tokens",
        "neither",
        "how many of the tokens no longer said would have to be said unrecognised for omission and "
        "terser wording to be even",
        interval=False,
    ),
    Metric(
        "reading_bias_tokens",
        "tokens",
        "neither",
        "how much nearer to 0 omission_lead_tokens may lie for the reading's bias",
        interval=False,
    ),
    Metric(
        "novel_word_share",
        "share",
        "neither",
        "share of the content words that the reference's explanation lacks",
        chance=True,
    ),
    Metric(
        "subsequence_share",
        "share",
        "neither",
        "share of the words that are a subsequence of the reference's",
    ),
    Metric(
        "order_kept",
        "share",
        "neither",
        "share of the shared words that stand in the reference's order",
    ),
    Metric(
        "fve_change_reread", "FVE", "higher", "FVE less the reference's, read again", needs="--pair"
    ),
    *(
        Metric(f"fve_by_{part}", "FVE", "higher", f"what {part} adds to that", needs="--pair")
        for part in ("omission", "rewording", "additions")
    ),
)


@analyzer(
    name="rewording",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={
        "n_tokens": "tokens are estimated from the text by counting word pieces",
        "sample": "no resampling floor: two samples of one model differ too",
        "doc_id": "intervals resample activations instead of documents",
    },
    unit="activation: a model's explanation beside the reference's",
    control="the reference's own second sample (where the table has one), and another "
    "activation's reference",
    high_means="net_omission_tokens near saving_tokens: savings come from saying less; "
    "terser_wording_tokens near them: the same is said in fewer tokens",
    example="nla-audit rewording completions.parquet --reference p0.0",
    metrics=METRICS,
    columns={"share": "share"},
    order=30,
    options=(
        Option(
            "similarity",
            str,
            None,
            "sentence-transformers model (name or folder) instead of the built-in similarity",
        ),
        *PAIR_OPTIONS,
    ),
)
def rewording(
    completions: Completions,
    *,
    similarity: str | None = None,
    pair: str | None = None,
    activations: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Finding:
    """Split token savings exactly into omission, rewording, additions and overhead."""
    ruler = open_ruler(completions, pair, activations)
    reading = read(completions, similarity=similarity, seed=seed, progress=progress)
    error = calibrated(completions, similarity=similarity, seed=seed)[2]
    savings = split_savings(reading)
    extractive = extractiveness(completions, seed)
    headline: Headline = {}
    usual = usually_new(completions, reading)
    for model in [*completions.models, RESAMPLING_FLOOR]:
        rows = savings.filter(pl.col("model") == model)
        if rows.height:
            explanations = reading.explanations.filter(pl.col("model") == model)
            terse, other = error.terseness.get(model, 0.0), reading.other_claims(model)
            level = Level.of(explanations, terse, usual, other)
            rows = with_documents(rows, completions)
            by_chance = reading.found_by_chance(model)
            net = net_loss(explanations, error, level, seed, by_chance=by_chance)
            headline[model] = _summary(rows, error, level, net, seed)
    for model, measures in extractive.items():
        headline.setdefault(model, {}).update(measures)
    if ruler is not None:
        for model, parts in fve_parts(completions, reading, ruler, seed).items():
            headline.setdefault(model, {}).update(parts)
    shares = pl.DataFrame(
        [
            {"model": model, "part": part, **_share(headline[model], part)}
            for model in headline
            for part in PARTS
            if "saving_tokens" in headline[model]
        ],
        infer_schema_length=None,
    )
    waterfall = _waterfall(savings, completions.models)
    floor, floor_name = floor_of(completions, headline)
    return Finding(
        analyzer="rewording",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=verdict(completions, headline),
        caveats=caveats(completions, reading, error, headline),
        tables={
            "parts": shares,
            "waterfall": waterfall,
            "waterfall_by_model": _by_model(waterfall, headline.get(floor, {})),
            "activations": savings.head(0) if savings.height > 50_000 else savings,
        },
        figures=[
            Figure(
                "parts",
                "Where the savings come from",
                "stacked",
                "parts",
                x="model",
                y="tokens",
                x_label="model",
                y_label="tokens saved per explanation",
                group="part",
                caption="Tokens saved against the reference, split exactly. Below zero: tokens "
                "spent, on what the reference does not say or on longer wording.",
            ),
            Figure(
                "waterfall",
                "From the reference's tokens to each model's",
                "waterfall",
                "waterfall",
                x="step",
                y="tokens",
                low="start",
                group="model",
                x_label="",
                y_label="tokens per explanation",
                caption="Mean content tokens of the reference, less those for claims no longer "
                "made and those saved by fewer words, plus those for claims newly made and the "
                "difference in overhead: what is left is the model's. Each bar begins where the "
                "one before it ended. "
                + (
                    f"What {floor_name} leaves out and adds, too, is not taken off: see the table."
                    if floor
                    else "What two samples of one model differ in is not known here, and so not "
                    "taken off."
                ),
            ),
        ],
        parameters={
            "seed": seed,
            "similarity": reading.reader.vectors.name,
            "pair": pair,
            "activations": activations,
        },
    )


def split_savings(reading: Reading) -> pl.DataFrame:
    """Each explanation's token saving and its four parts, which sum to it exactly.

    Omission is the reference's tokens for claims that are no longer made; addition the (negative)
    tokens for what the reference does not say; overhead the difference of the fixed tokens;
    rewording the rest: the reference's tokens for what both say less the model's. The share
    columns are null where nothing is saved or spent.
    """
    parts = reading.explanations.with_columns(
        saving=pl.col("tokens_reference") - pl.col("tokens_model") + pl.col("overhead_saving"),
        omission=pl.col("tokens_reference") - pl.col("kept_tokens"),
        addition=pl.col("supported_tokens") - pl.col("tokens_model"),
        overhead=pl.col("overhead_saving"),
    ).with_columns(
        rewording=pl.col("saving") - pl.col("omission") - pl.col("addition") - pl.col("overhead")
    )
    shares = [
        pl.when(pl.col("saving").abs() > 1e-9)
        .then(pl.col(part) / pl.col("saving"))
        .alias(f"{part}_share")
        for part in PARTS
    ]
    keys = ("model", "idx", "sample", "tokens_reference", "tokens_model")
    return parts.select(*keys, "saving", *PARTS, *shares)


def _waterfall(savings: pl.DataFrame, models: Sequence[str]) -> pl.DataFrame:
    """Steps from the reference's content to the model's; each starts where the last one ended."""
    rows: list[dict[str, object]] = []
    for model in models:
        own = savings.filter(pl.col("model") == model)
        if own.is_empty():
            continue
        content = float(column(own, "tokens_reference").mean())
        steps = [("reference", 0.0, content)]
        for part, name in (
            ("omission", "no longer said"),
            ("rewording", "fewer words"),
            ("addition", "newly said"),
            ("overhead", "overhead"),
        ):
            start = steps[-1][1] + steps[-1][2]
            steps.append((name, start, -float(column(own, part).mean())))
        steps.append(("model", 0.0, steps[-1][1] + steps[-1][2]))
        rows += [
            {"model": model, "step": name, "start": start, "tokens": tokens}
            for name, start, tokens in steps
        ]
    schema = {"model": pl.String, "step": pl.String, "start": pl.Float64, "tokens": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def _by_model(waterfall: pl.DataFrame, floor: Mapping[str, float | None]) -> pl.DataFrame:
    """The steps as columns; beside them what goes beyond the resampling floor, where there is one.

    Two samples of one model leave out some of each other and say other things instead; only what
    goes beyond that was dropped, or is new.

    Args:
        waterfall: of all models.
        floor: the headline of what shows the floor, or bounds it; empty without one.
    """
    if waterfall.is_empty():
        return waterfall.select("model")
    # "model" and "reference" are steps too.
    step = pl.col("step").str.replace_all(" ", "_")
    ends = pl.col("step").is_in(["reference", "model"])
    named = waterfall.with_columns(
        pl.when(ends).then(step + "_tokens").otherwise(step).alias("step")
    )
    wide = named.pivot(on="step", index="model", values="tokens", maintain_order=True)
    for name, part in (("no_longer_said", "omission"), ("newly_said", "addition")):
        usual = floor.get(f"{part}_tokens")
        if usual is not None:
            # A step is what is spent, a part what is saved.
            wide = wide.with_columns((pl.col(name) + usual).alias(f"{name}_beyond_floor"))
    return wide


def _summary(
    rows: pl.DataFrame, error: ReadingError, level: Level, net: NetLoss, seed: int
) -> dict[str, float | None]:
    draw = resampler(rows, seed)
    saving, reference = column(rows, "saving"), column(rows, "tokens_reference")
    summary: dict[str, float | None] = {"n": float(rows.height)}
    saved = draw.mean(saving)
    summary |= saved.entries("saving_tokens")
    # Shares of a saving that may be none would divide by almost nothing.
    has_shares = saved.excludes(0.0) or (np.isnan(saved.low) and abs(saved.value) > 1e-9)
    tokens, own = float(reference.mean()), float(column(rows, "tokens_model").mean())
    bias = error.at(level)
    # What is read wrongly as said or not said is missing from the rewording, or too much there.
    errors = {
        "omission": (bias.omission, tokens),
        "addition": (bias.addition, own),
        "rewording": (bias.rewording, float(np.hypot(tokens, own))),
        "overhead": (np.zeros(1), 0.0),
    }
    for part in PARTS:
        values = column(rows, part)
        shift, spread = errors[part]
        mean = error.widen(draw.mean(values), shift * tokens, error.spread * spread)
        summary |= mean.entries(f"{part}_tokens")
        if has_shares:
            scale = 1 / saved.value
            share = error.widen(
                draw.ratio(values, saving),
                shift * tokens * scale,
                error.spread * spread * abs(scale),
            )
            summary |= share.entries(f"{part}_share")
        else:
            summary[f"{part}_share"] = None
    summary |= net.omission.entries("net_omission_tokens")
    summary |= net.terser.entries("terser_wording_tokens")
    summary |= net.lead.entries("omission_lead_tokens")
    summary["reading_error_tokens"] = net.error
    summary["reading_bias_tokens"] = net.bias
    summary["evening_tokens"] = net.evening
    summary["unrecognised_tokens"] = or_none(level.unrecognised_kept * tokens)
    return summary


def _share(summary: dict[str, float | None], part: str) -> dict[str, float | None]:
    return {
        "tokens": summary[f"{part}_tokens"],
        "tokens_low": summary.get(f"{part}_tokens_low"),
        "tokens_high": summary.get(f"{part}_tokens_high"),
        "share": summary[f"{part}_share"],
        "share_low": summary.get(f"{part}_share_low"),
        "share_high": summary.get(f"{part}_share_high"),
    }
