"""What gets dropped as the length penalty grows, and which of it costs FVE?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from nla_audit.analyzers._drop_verdict import verdict
from nla_audit.analyzers._dropped import (
    cluster_table,
    item_retention,
    price_table,
    watch_table,
)
from nla_audit.analyzers._net_loss import net_loss
from nla_audit.analyzers._reading_error import LARGE_BIAS, Level, ReadingError
from nla_audit.analyzers._trials import calibrated
from nla_audit.completions import Completions
from nla_audit.findings import Figure, Finding, Headline, Metric, Option, analyzer
from nla_audit.pairing import column, resampler
from nla_audit.probes.causal.ruler import PAIR_OPTIONS, open_ruler
from nla_audit.probes.causal.tables import claim_worth_tables
from nla_audit.stats import Interval, chance_corrected, or_none
from nla_audit.text.concepts import parse_concept
from nla_audit.text.kinds import KIND_NAMES, KINDS
from nla_audit.text.reading import (
    KIND_READING_ERROR,
    RESAMPLING_FLOOR,
    Progress,
    Reading,
    read,
)

QUESTION = "What do explanations stop saying as the length penalty grows, and what does that cost?"
#: A kind with fewer reference claims than this in the table gets no rate.
MIN_CLAIMS_OF_A_KIND = 20


METRICS = (
    Metric("n_claims", "count", "neither", "claims of the reference looked for", interval=False),
    Metric(
        "claims_retained",
        "share",
        "higher",
        "share of the reference's claims that the model still makes",
    ),
    Metric(
        "chance_match",
        "share",
        "neither",
        "the same of another activation's explanation by the model",
    ),
    Metric(
        "retained_beyond_chance",
        "share",
        "higher",
        "claims_retained with what chance alone finds taken out",
        interval=False,
    ),
    Metric(
        "added_share",
        "share",
        "neither",
        "share of the model's tokens that the reference does not say",
    ),
    Metric(
        "net_loss_share",
        "share",
        "lower",
        "share of the reference's tokens that is lost, less what is said besides",
    ),
    Metric(
        "known_error_claims_retained",
        "difference of shares",
        "neither",
        "how far claims_retained is off where the truth is known",
        interval=False,
    ),
    Metric(
        "unrecognised_share",
        "share",
        "neither",
        "share of the reference's claims that may be made in words too different to be recognised",
        interval=False,
    ),
    Metric(
        "retained.*",
        "share",
        "higher",
        "claims_retained of one kind of claim, or of one kind of item",
    ),
    Metric(
        "cheap_first",
        "share",
        "higher",
        "how often a dropped claim was worth less to the AR than a kept one; 50 % at random",
        needs="--pair",
    ),
)


@analyzer(
    name="drop-analysis",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={
        "fve": "which dropped claims cost FVE is not known",
        "sample": "no resampling floor: two samples of one model differ too",
        "length_penalty": "models are ordered by name instead of by λ",
    },
    unit="claim of the reference explanation, resampled by activation",
    control="another activation's explanation by the same model (chance), and the reference's own "
    "second sample (the resampling floor)",
    high_means="claims_retained near 1: nearly everything the reference says is still said",
    example="nla-audit drop-analysis completions.parquet --watch 'eval=evaluation|being tested'",
    metrics=METRICS,
    columns={
        "retained": "share",
        "chance": "share",
        "beyond_chance": "share",
        "uncorrected": "share",
        "mean_retained": "share",
        "share_of_dropped": "share",
    },
    order=20,
    options=(
        Option(
            "watch",
            str,
            (),
            "a concept to follow: 'phrase', 'phrase|phrase' or 'name=phrase|phrase'; repeatable",
            multiple=True,
        ),
        Option(
            "similarity",
            str,
            None,
            "sentence-transformers model (name or folder) instead of the built-in similarity",
        ),
        *PAIR_OPTIONS,
    ),
)
def drop_analysis(
    completions: Completions,
    *,
    watch: tuple[str, ...] = (),
    similarity: str | None = None,
    pair: str | None = None,
    activations: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Finding:
    """Retention per kind of claim, item, cluster and watched concept; what dropping costs."""
    concepts = [parse_concept(description) for description in watch]
    ruler = open_ruler(completions, pair, activations)
    reading = read(completions, similarity=similarity, seed=seed, progress=progress)
    error = calibrated(completions, similarity=similarity, seed=seed)[2]
    kinds = _kind_table(completions, reading, error, seed)
    items = item_retention(completions, seed)
    headline = _headline(completions, reading, error, kinds, items, seed=seed)
    order = _order_of_loss(completions, kinds)
    clusters, examples = cluster_table(completions, reading, seed)
    tables = {
        "models": pl.DataFrame(
            [
                {"model": model, **{k: v for k, v in summary.items() if "." not in k}}
                for model, summary in headline.items()
            ],
            infer_schema_length=None,
        ),
        "kinds": kinds,
        "items": items,
        "order_of_loss": order,
        "clusters": clusters,
        "cluster_examples": examples,
        "price_of_dropping": price_table(completions, reading, seed),
    }
    caveats = _caveats(completions, reading, error, kinds)
    if ruler is not None:
        worth, first = claim_worth_tables(completions, reading, ruler, seed)
        tables |= {"claim_worth": worth, "cheap_first": first}
        for row in first.iter_rows(named=True):
            headline[row.pop("model")] |= row
        caveats.append(
            "claim_worth is the FVE that goes when one claim is deleted and the rest read again, "
            "in points; a claim said twice is worth nothing by it."
        )
    if concepts:
        tables["watched"] = watch_table(completions, concepts, headline, seed)
    return Finding(
        analyzer="drop-analysis",
        question=QUESTION,
        reference=completions.reference,
        headline=headline,
        verdict=verdict(completions, reading, headline, kinds),
        caveats=caveats,
        tables=tables,
        figures=_figures(bool(concepts), ruler is not None),
        parameters={
            "seed": seed,
            "similarity": reading.reader.vectors.name,
            "watch": list(watch),
            "pair": pair,
            "activations": activations,
        },
        private_tables=frozenset({"cluster_examples"}),
    )


def _rate(rows: pl.DataFrame, seed: int) -> Interval:
    """Mean ``kept`` over claims, resampled by activation."""
    return resampler(rows, seed).mean(column(rows, "kept"))


def _kind_table(
    completions: Completions, reading: Reading, error: ReadingError, seed: int
) -> pl.DataFrame:
    """Retention of each kind; with an interval only where its bias is measured and small."""
    rows = []
    names = [*completions.models, RESAMPLING_FLOOR]
    for model in names:
        own = reading.claims.filter(pl.col("model") == model)
        chance = reading.chance.filter(pl.col("model") == model)
        if own.height == 0:
            continue
        explanations = reading.explanations.filter(pl.col("model") == model)
        level = Level.of(explanations)
        new = explanations.select("idx", "sample", "new_claims")
        for kind in KIND_NAMES:
            of_kind = own.filter(pl.col("kind") == kind)
            if of_kind.height < MIN_CLAIMS_OF_A_KIND:
                continue
            rate = _rate(of_kind, seed)
            bias = error.of_kind(kind, rate.value, level.length)
            if bias is None or abs(bias) > LARGE_BIAS:
                rate = replace(rate, low=np.nan, high=np.nan)
            else:
                biases = np.array([bias, -_unrecognised(of_kind, new)])
                rate = error.widen_share(rate, biases, KIND_READING_ERROR)
            by_chance = _rate(chance.filter(pl.col("kind") == kind), seed).value
            rows.append(
                {
                    "model": model,
                    "length_penalty": completions.length_penalties.get(model),
                    "kind": kind,
                    "claims": of_kind.height,
                    **rate.entries("retained"),
                    "known_error": bias,
                    "chance": or_none(by_chance),
                    "beyond_chance": or_none(float(chance_corrected(rate.value, by_chance))),
                }
            )
    schema = {
        "model": pl.String,
        "length_penalty": pl.Float64,
        "kind": pl.String,
        "claims": pl.Int64,
        "retained": pl.Float64,
        "retained_low": pl.Float64,
        "retained_high": pl.Float64,
        "known_error": pl.Float64,
        "chance": pl.Float64,
        "beyond_chance": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema)


def _unrecognised(claims: pl.DataFrame, new: pl.DataFrame) -> float:
    """The share of these claims that may be made in words too different to be recognised.

    As many of those that are lost as the same text makes new claims, whatever their kind.
    """
    lost = claims.group_by("idx", "sample").agg(lost=(1 - pl.col("kept")).sum())
    both = lost.join(new, on=["idx", "sample"])
    return float(both.select(pl.min_horizontal("lost", "new_claims").sum()).item()) / claims.height


def _headline(
    completions: Completions,
    reading: Reading,
    error: ReadingError,
    kinds: pl.DataFrame,
    items: pl.DataFrame,
    *,
    seed: int,
) -> Headline:
    headline: Headline = {}
    for model in [*completions.models, RESAMPLING_FLOOR]:
        own = reading.claims.filter(pl.col("model") == model)
        if own.height == 0:
            continue
        summary: dict[str, float | None] = {"n_claims": float(own.height)}
        explanations = reading.explanations.filter(pl.col("model") == model)
        terse = error.terseness.get(model, 0.0)
        level = Level.of(explanations, terse)
        bias = error.at(level)
        rate = error.widen_share(_rate(own, seed), bias.claims)
        summary |= rate.entries("claims_retained")
        chance = reading.chance.filter(pl.col("model") == model)
        by_chance = _rate(chance, seed).widened(error.spread, 0.0, 1.0)
        summary |= by_chance.entries("chance_match")
        beyond = float(chance_corrected(rate.value, by_chance.value))
        summary["retained_beyond_chance"] = or_none(beyond)
        added = resampler(explanations, seed).ratio(
            column(explanations, "tokens_model") - column(explanations, "supported_tokens"),
            column(explanations, "tokens_model"),
        )
        # What is wrongly taken for the reference's is missing from what is added.
        added = error.widen_share(added, -bias.supported / max(level.length, 1e-9))
        summary |= added.entries("added_share")
        summary |= net_loss(explanations, error, seed, terse).entries("net_loss_share")
        summary["known_error_claims_retained"] = (
            float(bias.measured_claims[np.abs(bias.measured_claims).argmax()])
            if error.measured
            else None
        )
        summary["unrecognised_share"] = or_none(level.unrecognised_claims)
        for table, what in ((kinds, "kind"), (items, "item")):
            for row in table.filter(pl.col("model") == model).iter_rows(named=True):
                summary |= {
                    f"retained.{row[what]}{end}": row[f"retained{end}"]
                    for end in ("", "_low", "_high")
                }
        headline[model] = summary
    return headline


def _order_of_loss(completions: Completions, kinds: pl.DataFrame) -> pl.DataFrame:
    """Kinds from the first to go to the last: mean retention over the models shorter than it.

    ``first_lost_at`` is the first model, by λ, that keeps less than half of the kind by its
    interval.
    """
    rows = []
    penalised = [
        model for model in completions.models if (completions.length_penalties[model] or 0) > 0
    ] or [model for model in completions.models if model != completions.reference]
    for kind in KINDS:
        own = kinds.filter((pl.col("kind") == kind.name) & pl.col("model").is_in(penalised))
        if own.height == 0:
            continue
        ordered = own.sort(
            pl.col("model").replace_strict(
                {model: place for place, model in enumerate(penalised)}, return_dtype=pl.Int64
            )
        )
        lost = ordered.filter(pl.col("retained_high") < 0.5)
        rows.append(
            {
                "kind": kind.name,
                "meaning": kind.meaning,
                "claims": own["claims"].max(),
                "mean_retained": own["retained"].mean(),
                "first_lost_at": lost["model"][0] if lost.height else None,
            }
        )
    schema = {
        "kind": pl.String,
        "meaning": pl.String,
        "claims": pl.Int64,
        "mean_retained": pl.Float64,
        "first_lost_at": pl.String,
    }
    return pl.DataFrame(rows, schema=schema).sort("mean_retained", "kind")


def _caveats(
    completions: Completions, reading: Reading, error: ReadingError, kinds: pl.DataFrame
) -> list[str]:
    caveats = [*completions.notes, *reading.left_out]
    if not reading.has_floor:
        caveats.append(
            "The table has one sample per activation, so the resampling floor is unknown: two "
            "samples of the reference would not keep all of each other's claims either. A model "
            "counts as dropping claims where it leaves out more than it adds."
        )
    caveats += assumed_chance(reading)
    failed = completions.rows.filter(pl.col("explanation").is_null()).height
    if failed:
        caveats.append(f"{failed} failed explanations have no text and are left out here.")
    caveats.append(
        "Kinds are told by English cue words; claims in other languages fall under content, "
        "entity or number."
    )
    caveats.append(
        f"Claims are read by {reading.reader.vectors.name}. chance_match is what the same reading "
        "finds in another activation's explanation."
    )
    caveats.append(error.sentence())
    bare = kinds.filter(pl.col("retained_low").is_null())
    if error.measured and bare.height:
        worst = bare.group_by("kind", maintain_order=True).agg(
            pl.col("known_error").sort_by(pl.col("known_error").abs()).last()
        )
        said = [
            f"{kind.replace('_', ' ')} "
            + ("(too few claims to measure)" if bias is None else f"({100 * bias:+.0f} points)")
            for kind, bias in worst.iter_rows()
        ]
        caveats.append(
            "Kinds of claim that have no interval in some model because of their known error: "
            f"{', '.join(said)}."
        )
    return caveats


def assumed_chance(reading: Reading) -> list[str]:
    """What to say where the null was not measured."""
    if not reading.assumed:
        return []
    return [
        f"Too little text of {', '.join(reading.assumed)} to measure what matches by chance: a "
        "usual level is taken, and what is read as kept is a guess."
    ]


def _figures(watched: bool, causal: bool) -> list[Figure]:
    figures = [
        Figure(
            "retained",
            "Claims of the reference that are still made",
            "bar",
            "models",
            x="model",
            y="claims_retained",
            x_label="model",
            y_label="share of claims",
            low="claims_retained_low",
            high="claims_retained_high",
            chance="chance_match",
            percent=True,
            caption="Share of the reference's claims that each model still makes; dashed: how many "
            "would be matched in another activation's explanation.",
        ),
        Figure(
            "kinds",
            "What survives, by kind of claim",
            "heatmap",
            "kinds",
            x="model",
            y="retained",
            group="kind",
            x_label="model",
            y_label="kind of claim",
            percent=True,
            caption="Share of the reference's claims of each kind that are still made; the known "
            "error of each is in the table.",
        ),
        Figure(
            "items",
            "Names, numbers and quotes that survive",
            "line",
            "items",
            x="model",
            y="retained",
            group="item",
            x_label="model",
            y_label="share of items",
            low="retained_low",
            high="retained_high",
            percent=True,
            caption="Share of the reference's items that stand literally in the model's "
            "explanation, corrected for chance.",
        ),
        Figure(
            "price",
            "What dropping a claim costs",
            "bar",
            "price_of_dropping",
            x="kind",
            y="fve_points",
            x_label="kind of claim dropped",
            y_label="FVE points per claim",
            low="fve_points_low",
            high="fve_points_high",
            caption="Change of FVE that goes with dropping one claim of a kind, from a regression "
            "over activations within each model.",
        ),
    ]
    if causal:
        figures.append(
            Figure(
                "worth",
                "What a claim is worth to the AR",
                "bar",
                "claim_worth",
                x="kind",
                y="worth",
                x_label="kind of claim",
                y_label="FVE points lost without the claim",
                low="worth_low",
                high="worth_high",
                chance="elsewhere",
                caption="FVE that goes when one claim of the reference is deleted and the rest is "
                "read again; dashed: the same deletion, read against another activation.",
            )
        )
    if watched:
        figures.append(
            Figure(
                "watched",
                "Watched concepts",
                "line",
                "watched",
                x="model",
                y="retained",
                group="concept",
                x_label="model",
                y_label="share of mentions kept",
                low="retained_low",
                high="retained_high",
                percent=True,
                caption="Of the explanations in which the reference mentions a concept, the share "
                "in which the model still does.",
            )
        )
    return figures
