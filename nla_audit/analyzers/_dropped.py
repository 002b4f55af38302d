"""The parts of the drop analysis that look past the taxonomy: items, clusters, prices, concepts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from nla_audit.findings import Headline
from nla_audit.regression import clustered_regression
from nla_audit.stats import benjamini_hochberg, chance_corrected, derangement, or_none
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, paired, resampler, rows_of_some, with_documents
from nla_audit.text.clusters import cluster_claims
from nla_audit.text.concepts import Concept, all_stems
from nla_audit.text.kinds import KIND_NAMES
from nla_audit.text.reading import RESAMPLING_FLOOR, Reading
from nla_audit.text.said_items import SaidItems, SaidKind

#: Activations whose items are looked up, and claims that are clustered; both are samples for
#: large tables, drawn with the seed, and the tables say how many they stand on.
_ITEM_ACTIVATIONS = 5000
_CLUSTERED_CLAIMS = 4000
_ITEM_NAMES: dict[SaidKind, str] = {
    "quote": "quotes",
    "entity": "named_entities",
    "number": "numbers",
}


def _first_sample(rows: pl.DataFrame, model: str) -> dict[int, str]:
    own = rows.filter(pl.col("model") == model).sort("idx", "sample")
    return dict(
        own.unique("idx", keep="first", maintain_order=True)
        .select("idx", "explanation")
        .iter_rows()
    )


def item_retention(completions: Completions, seed: int) -> pl.DataFrame:
    """Which of the reference's quotes, names and numbers each explanation says.

    ``chance`` is the share that another activation's explanation by the same model says, and
    ``retained`` is corrected for it. How they are looked for: :mod:`nla_audit.text.said_items`.
    """
    rows = completions.rows.filter(pl.col("explanation").is_not_null())
    rows = rows_of_some(rows, _ITEM_ACTIVATIONS, [seed, 5])
    reference = {
        idx: SaidItems(text) for idx, text in _first_sample(rows, completions.reference).items()
    }
    table = []
    for model in completions.models:
        if model == completions.reference:
            continue
        said = {idx: SaidItems(text) for idx, text in _first_sample(rows, model).items()}
        keys = [idx for idx in sorted(said) if idx in reference]
        if not keys:
            continue
        partners = derangement(keys, seed) if len(keys) > 1 else np.full(len(keys), -1)
        counts = {kind: np.zeros((len(keys), 3)) for kind in _ITEM_NAMES}
        for place, idx in enumerate(keys):
            other = said[keys[partners[place]]] if partners[place] >= 0 else None
            for kind, counted in counts.items():
                own = reference[idx]
                items = len(own.of(kind))
                counted[place] = (
                    items,
                    items - len(own.not_said_by(said[idx], kind)),
                    np.nan if other is None else items - len(own.not_said_by(other, kind)),
                )
        frame = with_documents(pl.DataFrame({"idx": keys}), completions)
        for item_kind, name in _ITEM_NAMES.items():
            total, kept, by_chance = counts[item_kind].T
            if total.sum() == 0:
                continue
            draw = resampler(frame, seed)
            rate = draw.ratio(kept, total)
            chance = draw.ratio(by_chance, total).value
            level = 0.0 if np.isnan(chance) else chance
            value, low, high = chance_corrected([rate.value, rate.low, rate.high], level)
            table.append(
                {
                    "model": model,
                    "length_penalty": completions.length_penalties[model],
                    "item": name,
                    "items": int(total.sum()),
                    "retained": or_none(value),
                    "retained_low": or_none(low),
                    "retained_high": or_none(high),
                    "uncorrected": rate.value,
                    "chance": or_none(chance),
                }
            )
    schema = {
        "model": pl.String,
        "length_penalty": pl.Float64,
        "item": pl.String,
        "items": pl.Int64,
        "retained": pl.Float64,
        "retained_low": pl.Float64,
        "retained_high": pl.Float64,
        "uncorrected": pl.Float64,
        "chance": pl.Float64,
    }
    return pl.DataFrame(table, schema=schema)


def cluster_table(
    completions: Completions, reading: Reading, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Dropped claims clustered by their words: sizes, shares per model, central examples."""
    summary_schema = {
        "cluster": pl.Int64,
        "characteristic_words": pl.String,
        "dropped_claims": pl.Int64,
        "share_of_dropped": pl.Float64,
        "most_common_kind": pl.String,
    }
    example_schema = {"cluster": pl.Int64, "rank": pl.Int64, "example": pl.String}
    nothing = pl.DataFrame(schema=summary_schema), pl.DataFrame(schema=example_schema)
    dropped = reading.claims.filter((pl.col("kept") < 0.5) & (pl.col("model") != RESAMPLING_FLOOR))
    # A claim dropped by several models is one claim.
    dropped = dropped.unique(
        ["idx", "reference_sample", "claim"], maintain_order=True, keep="first"
    )
    if dropped.height > _CLUSTERED_CLAIMS:
        generator = np.random.default_rng([seed, 6])
        chosen = np.sort(generator.choice(dropped.height, _CLUSTERED_CLAIMS, replace=False))
        dropped = dropped[chosen.tolist()]
    texts = _texts_of(completions, dropped)
    clusters = cluster_claims(texts, seed=seed)
    if clusters is None:
        return nothing
    kinds = dropped["kind"].cast(pl.String).to_numpy()
    rows, examples = [], []
    for number, name in enumerate(clusters.names):
        inside = clusters.labels == number
        values, counts = np.unique(kinds[inside], return_counts=True)
        rows.append(
            {
                "cluster": number,
                "characteristic_words": name,
                "dropped_claims": int(inside.sum()),
                "share_of_dropped": float(inside.mean()),
                "most_common_kind": str(values[counts.argmax()]),
            }
        )
        examples += [
            {"cluster": number, "rank": rank, "example": texts[place]}
            for rank, place in enumerate(clusters.examples[number])
        ]
    return pl.DataFrame(rows, schema=summary_schema), pl.DataFrame(examples, schema=example_schema)


def _texts_of(completions: Completions, claims: pl.DataFrame) -> list[str]:
    """The text of reference claims, cut out by their spans."""
    wanted = completions.of(completions.reference).filter(
        pl.col("idx").is_in(claims["idx"].unique().to_list())
    )
    by_sample = {
        (idx, sample): text
        for idx, sample, text in wanted.select("idx", "sample", "explanation").iter_rows()
        if text is not None
    }
    return [
        by_sample[idx, sample][start:end]
        for idx, sample, start, end in claims.select(
            "idx", "reference_sample", "start", "end"
        ).iter_rows()
    ]


def price_table(completions: Completions, reading: Reading) -> pl.DataFrame:
    """FVE points per dropped claim of each kind, all kinds and models in one regression.

    The outcome is the paired FVE change of an activation, the features how many claims of each
    kind the model dropped there; an intercept per model takes up what its λ costs on average, so
    prices come from differences between activations of one model. Standard errors are clustered
    by activation, p-values adjusted for the number of kinds (Benjamini & Hochberg).
    """
    schema = {
        "kind": pl.String,
        "dropped_claims": pl.Float64,
        "fve_points": pl.Float64,
        "fve_points_low": pl.Float64,
        "fve_points_high": pl.Float64,
        "p_adjusted": pl.Float64,
        "n": pl.Int64,
    }
    if not completions.has("fve"):
        return pl.DataFrame(schema=schema)
    models = [
        model
        for model in completions.models
        if model != completions.reference and reading.claims.filter(pl.col("model") == model).height
    ]
    sums = (
        reading.claims.filter(pl.col("model") != RESAMPLING_FLOOR)
        .group_by(pl.col("model").cast(pl.String), "idx", pl.col("kind").cast(pl.String))
        .agg((1 - pl.col("kept")).sum().alias("dropped"), pl.col("sample").n_unique())
        .with_columns(pl.col("dropped") / pl.col("sample"))
    )
    if sums.height == 0:
        return pl.DataFrame(schema=schema)
    wide = sums.pivot(on="kind", index=["model", "idx"], values="dropped")
    kinds = [kind for kind in KIND_NAMES if kind in wide.columns]
    wide = wide.with_columns(pl.col(kinds).fill_null(0.0))
    frames = []
    for model in models:
        changes = paired(completions, model, ["fve"]).with_columns(
            change=100 * (pl.col("fve") - pl.col("fve_reference"))
        )
        frames.append(
            changes.filter(pl.col("change").is_not_null()).select("model", "idx", "change")
        )
    if not frames:
        return pl.DataFrame(schema=schema)
    data = pl.concat(frames).join(wide, on=["model", "idx"]).sort("model", "idx")
    intercepts = np.column_stack([(data["model"] == model).to_numpy() for model in models])
    features = np.column_stack([data.select(kinds).to_numpy(), intercepts.astype(np.float64)])
    fit = clustered_regression(column(data, "change"), features, data["idx"].to_numpy())
    count = len(kinds)
    adjusted = benjamini_hochberg(fit.p_value[:count])
    rows = [
        {
            "kind": kind,
            "dropped_claims": float(data[kind].sum()),
            "fve_points": or_none(fit.coefficient[place]),
            "fve_points_low": or_none(fit.coefficient[place] - 1.96 * fit.standard_error[place]),
            "fve_points_high": or_none(fit.coefficient[place] + 1.96 * fit.standard_error[place]),
            "p_adjusted": or_none(adjusted[place]),
            "n": fit.n,
        }
        for place, kind in enumerate(kinds)
    ]
    return pl.DataFrame(rows, schema=schema).sort("fve_points", "kind", nulls_last=True)


def watch_table(
    completions: Completions, concepts: Sequence[Concept], headline: Headline, seed: int
) -> pl.DataFrame:
    """How long watched concepts last: kept mentions against chance and against all claims."""
    rows = completions.rows.filter(pl.col("explanation").is_not_null())
    mentioned = {
        model: {
            idx: [concept.mentioned_in(stems) for concept in concepts]
            for idx, text in _first_sample(rows, model).items()
            for stems in [all_stems(text)]
        }
        for model in completions.models
    }
    reference = mentioned[completions.reference]
    activations = pl.DataFrame({"idx": sorted(reference)}, schema={"idx": pl.Int64})
    activations = with_documents(activations, completions)
    table = []
    for place, concept in enumerate(concepts):
        for model in completions.models:
            own = mentioned[model]
            keys = [idx for idx in sorted(reference) if idx in own and reference[idx][place]]
            all_keys = [idx for idx in sorted(reference) if idx in own]
            kept = resampler(activations.filter(pl.col("idx").is_in(keys)), seed).mean(
                [float(own[idx][place]) for idx in keys]
            )
            base_rate = float(np.mean([own[idx][place] for idx in all_keys])) if all_keys else None
            table.append(
                {
                    "concept": concept.name,
                    "model": model,
                    "length_penalty": completions.length_penalties[model],
                    "mentions_in_reference": len(keys),
                    **kept.entries("retained"),
                    "chance": base_rate,
                    "all_claims_retained": headline.get(model, {}).get("claims_retained"),
                }
            )
    schema = {
        "concept": pl.String,
        "model": pl.String,
        "length_penalty": pl.Float64,
        "mentions_in_reference": pl.Int64,
        "retained": pl.Float64,
        "retained_low": pl.Float64,
        "retained_high": pl.Float64,
        "chance": pl.Float64,
        "all_claims_retained": pl.Float64,
    }
    return pl.DataFrame(table, schema=schema)
