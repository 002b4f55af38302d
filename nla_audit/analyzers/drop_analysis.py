"""What gets dropped as the length penalty grows, and which of it costs FVE?"""

from __future__ import annotations

import polars as pl

from nla_audit.analyzers._drop_rates import headline_of, kind_table, order_of_loss
from nla_audit.analyzers._drop_verdict import caveats_of, verdict
from nla_audit.analyzers._dropped import cluster_table, item_retention, price_table, watch_table
from nla_audit.analyzers._trials import calibrated
from nla_audit.analyzers._unrecognised import usually_new
from nla_audit.findings import Figure, Finding, Metric, Option, analyzer
from nla_audit.probes.causal.ruler import PAIR_OPTIONS, open_ruler
from nla_audit.probes.causal.tables import claim_worth_tables
from nla_audit.table.completions import Completions
from nla_audit.text.concepts import parse_concept
from nla_audit.text.reading import Progress, read

QUESTION = "What do explanations stop saying as the length penalty grows, and what does that cost?"


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
        "share of the reference's tokens that is lost, less what is new in the reference's wording",
    ),
    Metric(
        "retained_below_floor",
        "difference of shares",
        "neither",
        "claims_retained of a second sample of the reference, or else of an equally long model, "
        "less this model's",
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
        "doc_id": "intervals resample activations instead of documents",
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
    usual = usually_new(completions, reading)
    kinds = kind_table(completions, reading, error, usual, seed)
    items = item_retention(completions, seed)
    headline = headline_of(completions, reading, error, kinds, items, usual=usual, seed=seed)
    order = order_of_loss(completions, kinds)
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
        "price_of_dropping": price_table(completions, reading),
    }
    caveats = caveats_of(completions, reading, error, kinds)
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
            "error of each is in the table of kinds and in the caveats.",
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
            caption="Share of the reference's quotes, names and numbers that the model's "
            "explanation says too (a number also where it is spelt, a name where its initials "
            "or its people are named), corrected for chance.",
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
