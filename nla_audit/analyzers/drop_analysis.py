"""What gets dropped as the length penalty grows, and which of it costs FVE?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from nla_audit.analyzers._causal import PAIR_OPTIONS, claim_worth_tables, open_ruler
from nla_audit.analyzers._dropped import (
    cluster_table,
    item_retention,
    price_table,
    watch_table,
)
from nla_audit.analyzers._reading_error import LARGE_BIAS, LEAST_CLAIMS, ReadingError, terseness
from nla_audit.analyzers._trials import calibrated
from nla_audit.completions import Completions
from nla_audit.findings import Figure, Finding, Headline, Option, analyzer
from nla_audit.pairing import column, equally_long, resampler
from nla_audit.stats import Interval, chance_corrected
from nla_audit.text.concepts import parse_concept
from nla_audit.text.kinds import KIND_NAMES, KINDS
from nla_audit.text.reading import (
    FLOOR,
    KIND_READING_ERROR,
    Progress,
    Reading,
    read,
)

QUESTION = "What do explanations stop saying as the length penalty grows, and what does that cost?"
#: A kind with fewer reference claims than this in the table gets no rate.
MIN_CLAIMS_OF_A_KIND = 20


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
    order=20,
    options=(
        Option(
            "watch", str, (),
            "a concept to follow: 'phrase', 'phrase|phrase' or 'name=phrase|phrase'; repeatable",
            multiple=True,
        ),
        Option(
            "similarity", str, None,
            "sentence-transformers model (name or folder) instead of the built-in similarity",
        ),
        *PAIR_OPTIONS,
    ),
)  # fmt: skip
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
        verdict=_verdict(completions, reading, headline, kinds),
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


def _level(explanations: pl.DataFrame) -> tuple[float, float]:
    """Share of the reference's tokens that is read as kept, and the length over the reference's."""
    whole = float(explanations["tokens_reference"].sum()) or np.nan
    return (
        float(explanations["kept_tokens"].sum()) / whole,
        float(explanations["tokens_model"].sum()) / whole,
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _kind_table(
    completions: Completions, reading: Reading, error: ReadingError, seed: int
) -> pl.DataFrame:
    """Retention of each kind; with an interval only where its bias is measured and small."""
    rows = []
    names = [*completions.models, FLOOR]
    for model in names:
        own = reading.claims.filter(pl.col("model") == model)
        chance = reading.chance.filter(pl.col("model") == model)
        if own.height == 0:
            continue
        length = _level(reading.explanations.filter(pl.col("model") == model))[1]
        for kind in KIND_NAMES:
            of_kind = own.filter(pl.col("kind") == kind)
            if of_kind.height < MIN_CLAIMS_OF_A_KIND:
                continue
            rate = _rate(of_kind, seed)
            bias = error.of_kind(kind, rate.value, length)
            if bias is None or abs(bias) > LARGE_BIAS:
                rate = replace(rate, low=np.nan, high=np.nan)
            else:
                own_error = replace(error, spread=KIND_READING_ERROR)
                rate = own_error.widen(rate, np.array([bias]), 1.0, 0.0, 1.0)
            by_chance = _rate(chance.filter(pl.col("kind") == kind), seed).value
            rows.append(
                {
                    "model": model,
                    "length_penalty": completions.length_penalties.get(model),
                    "kind": kind,
                    "claims": of_kind.height,
                    **rate.entries("retained"),
                    "known_error": bias,
                    "chance": _known(by_chance),
                    "beyond_chance": _known(float(chance_corrected(rate.value, by_chance))),
                }
            )
    schema = {
        "model": pl.String, "length_penalty": pl.Float64, "kind": pl.String, "claims": pl.Int64,
        "retained": pl.Float64, "retained_low": pl.Float64, "retained_high": pl.Float64,
        "known_error": pl.Float64, "chance": pl.Float64, "beyond_chance": pl.Float64,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def _headline(
    completions: Completions,
    reading: Reading,
    error: ReadingError,
    kinds: pl.DataFrame,
    items: pl.DataFrame,
    *,
    seed: int,
) -> Headline:
    terse = terseness(completions)
    headline: Headline = {}
    for model in [*completions.models, FLOOR]:
        own = reading.claims.filter(pl.col("model") == model)
        if own.height == 0:
            continue
        summary: dict[str, float | None] = {"n_claims": float(own.height)}
        explanations = reading.explanations.filter(pl.col("model") == model)
        bias = error.at(*_level(explanations), terse.get(model, 0.0))
        rate = error.widen(_rate(own, seed), bias.claims, 1.0, 0.0, 1.0)
        summary |= rate.entries("claims_retained")
        chance = reading.chance.filter(pl.col("model") == model)
        by_chance = _rate(chance, seed).widened(error.spread, 0.0, 1.0)
        summary |= by_chance.entries("chance_match")
        beyond = float(chance_corrected(rate.value, by_chance.value))
        summary["retained_beyond_chance"] = _known(beyond)
        added = resampler(explanations, seed).ratio(
            column(explanations, "tokens_model") - column(explanations, "supported_tokens"),
            column(explanations, "tokens_model"),
        )
        # What is wrongly taken for the reference's is missing from what is added.
        length = max(_level(explanations)[1], 1e-9)
        added = error.widen(added, -bias.supported / length, 1.0, 0.0, 1.0)
        summary |= added.entries("added_share")
        summary |= net_loss(explanations, error, seed, terse.get(model, 0.0)).entries(
            "net_loss_share"
        )
        summary["known_error_claims_retained"] = (
            float(bias.claims[np.abs(bias.claims).argmax()]) if error.measured else None
        )
        for row in kinds.filter(pl.col("model") == model).iter_rows(named=True):
            name = f"retained.{row['kind']}"
            summary |= {
                name: row["retained"],
                f"{name}_low": row["retained_low"],
                f"{name}_high": row["retained_high"],
            }
        for row in items.filter(pl.col("model") == model).iter_rows(named=True):
            name = f"retained.{row['item']}"
            summary |= {
                name: row["retained"],
                f"{name}_low": row["retained_low"],
                f"{name}_high": row["retained_high"],
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
        "kind": pl.String, "meaning": pl.String, "claims": pl.Int64, "mean_retained": pl.Float64,
        "first_lost_at": pl.String,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema).sort("mean_retained", "kind")


def _verdict(
    completions: Completions, reading: Reading, headline: Headline, kinds: pl.DataFrame
) -> str:
    compared = [model for model in completions.models if model in headline]
    if not compared:
        return "Only one model is in the table, so nothing can have been dropped."
    floor = headline.get(FLOOR, {})
    lossy = [model for model in compared if _loses(headline[model], floor)]
    sentences = []
    if lossy:
        worst = min(lossy, key=lambda model: headline[model]["claims_retained"] or 0.0)
        first = lossy[0]
        sentences.append(
            f"{first} still makes {_percent(headline[first])} of {completions.reference}'s claims"
            + (f", {worst} {_percent(headline[worst])}" if worst != first else "")
            + f" ({_beside(completions, headline, worst)})."
        )
        sentences += _of_kinds(worst, kinds)
    else:
        sentences.append(
            f"No model is shown to drop more of {completions.reference}'s claims than it adds of "
            "its own" + (", or than a second sample drops." if reading.has_floor else ".")
        )
    unclear = [model for model in compared if model not in lossy]
    limits = [
        f"{model} at most {max(0.0, high):.0%}"
        for model in unclear
        if (high := headline[model].get("net_loss_share_high")) is not None
    ]
    if limits:
        sentences.append(
            f"Whether {', '.join(unclear)} drop{'s' if len(unclear) == 1 else ''} anything cannot "
            f"be told: of what {completions.reference} says, net of what is added, "
            f"{', '.join(limits)} can be missing."
        )
    return " ".join(sentences)


def _of_kinds(model: str, kinds: pl.DataFrame) -> list[str]:
    """Which kind goes most and which least, where both are known and the intervals lie apart."""
    known = kinds.filter(
        (pl.col("model") == model)
        & (pl.col("claims") >= LEAST_CLAIMS)
        & pl.col("retained_low").is_not_null()
    ).sort("retained", "kind")
    if known.height < 2:
        return []
    least, most = known.row(0, named=True), known.row(-1, named=True)
    if least["retained_high"] >= most["retained_low"]:
        return []
    named = [
        f"{row['retained']:.0%} [{row['retained_low']:.0%}, {row['retained_high']:.0%}] of the "
        f"{row['claims']} {row['kind'].replace('_', ' ')} claims"
        for row in (least, most)
    ]
    return [
        f"Of the kinds whose reading is known to be within {LARGE_BIAS:.0%}, {model} keeps "
        f"{named[0]} and {named[1]}."
    ]


def net_loss(
    explanations: pl.DataFrame, error: ReadingError, seed: int, terse: float = 0.0
) -> Interval:
    """Tokens of what is left out less tokens of what is added, as a share of the reference's.

    Two samples of one model leave out as much of each other as they add, whatever they differ in;
    so what goes beyond that was dropped.

    Args:
        explanations: of a reading, of one model.
        error: of that reading.
        seed: of the interval.
        terse: see :func:`~nla_audit.analyzers._reading_error.terseness`.
    """
    lost = column(explanations, "tokens_reference") - column(explanations, "kept_tokens")
    added = column(explanations, "tokens_model") - column(explanations, "supported_tokens")
    share = resampler(explanations, seed).ratio(
        lost - added, column(explanations, "tokens_reference")
    )
    return error.widen(share, error.at(*_level(explanations), terse).net_loss)


def _loses(summary: dict[str, float | None], floor: dict[str, float | None]) -> bool:
    """Whether a model drops more than it adds, or more than a second sample of the reference."""
    net, high = summary.get("net_loss_share_low"), summary.get("claims_retained_high")
    if net is not None and net > 0:
        return True
    low = floor.get("claims_retained_low")
    return high is not None and low is not None and high < low


def _beside(completions: Completions, headline: Headline, model: str) -> str:
    """What a rate of claims retained is to be held against: chance, and the resampling floor."""
    chance = headline[model].get("chance_match")
    parts = [] if chance is None else [f"chance: {chance:.0%}"]
    if FLOOR in headline:
        parts.append(f"a second sample of {completions.reference}: {_percent(headline[FLOOR])}")
    else:
        equal = equally_long(completions)
        if equal in headline:
            parts.append(f"{equal}, equally long: {_percent(headline[equal])}")
    return "; ".join(parts) or "chance is not known"


def _percent(summary: dict[str, float | None]) -> str:
    value, low = summary["claims_retained"], summary.get("claims_retained_low")
    if low is None:
        return f"{value:.0%}"
    return f"{value:.0%} [{low:.0%}, {summary['claims_retained_high']:.0%}]"


def _caveats(
    completions: Completions, reading: Reading, error: ReadingError, kinds: pl.DataFrame
) -> list[str]:
    caveats = list(completions.notes)
    if reading.activations_read < reading.activations:
        caveats.append(
            f"Claims were read in {reading.activations_read:,} of {reading.activations:,} "
            "activations, drawn at random."
        )
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
            "retained", "Claims of the reference that are still made", "bar", "models", x="model",
            y="claims_retained", x_label="model", y_label="share of claims",
            low="claims_retained_low", high="claims_retained_high", chance="chance_match",
            percent=True,
            caption="Share of the reference's claims that each model still makes; dashed: how many "
            "would be matched in another activation's explanation.",
        ),
        Figure(
            "kinds", "What survives, by kind of claim", "heatmap", "kinds", x="model",
            y="retained", group="kind", x_label="model", y_label="kind of claim", percent=True,
            caption="Share of the reference's claims of each kind that are still made; the known "
            "error of each is in the table.",
        ),
        Figure(
            "items", "Names, numbers and quotes that survive", "line", "items", x="model",
            y="retained", group="item", x_label="model", y_label="share of items",
            low="retained_low", high="retained_high", percent=True,
            caption="Share of the reference's items that stand literally in the model's "
            "explanation, corrected for chance.",
        ),
        Figure(
            "price", "What dropping a claim costs", "bar", "price_of_dropping", x="kind",
            y="fve_points", x_label="kind of claim dropped", y_label="FVE points per claim",
            low="fve_points_low", high="fve_points_high",
            caption="Change of FVE that goes with dropping one claim of a kind, from a regression "
            "over activations within each model.",
        ),
    ]  # fmt: skip
    if causal:
        figures.append(
            Figure(
                "worth", "What a claim is worth to the AR", "bar", "claim_worth", x="kind",
                y="worth", x_label="kind of claim", y_label="FVE points lost without the claim",
                low="worth_low", high="worth_high", chance="elsewhere",
                caption="FVE that goes when one claim of the reference is deleted and the rest is "
                "read again; dashed: the same deletion, read against another activation.",
            )
        )  # fmt: skip
    if watched:
        figures.append(
            Figure(
                "watched", "Watched concepts", "line", "watched", x="model", y="retained",
                group="concept", x_label="model", y_label="share of mentions kept",
                low="retained_low", high="retained_high", percent=True,
                caption="Of the explanations in which the reference mentions a concept, the share "
                "in which the model still does.",
            )
        )  # fmt: skip
    return figures
