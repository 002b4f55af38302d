"""How much do the first tokens of an explanation carry, and where does more of it hurt?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from nla_audit.analyzers._curve_numbers import TO_SHARE
from nla_audit.analyzers._curve_studies import (
    against,
    changes_by_length,
    on_shared_activations,
    studies_of,
    summary_of,
)
from nla_audit.analyzers._multiscale_tables import (
    TOKENS,
    fve_by_prefix,
    in_other_units,
    with_whole_texts,
)
from nla_audit.analyzers._multiscale_verdict import caveats, reading_on, verdict
from nla_audit.analyzers._needs import lengths_and_needs
from nla_audit.analyzers._order import order_of_worth
from nla_audit.analyzers._perplexity import perplexities
from nla_audit.analyzers._prefix_texts import broken_words, kinds_first, natural_prefixes
from nla_audit.analyzers._prefixes_read import in_random_order, prefixes_named, prefixes_of_table
from nla_audit.analyzers._said import (
    TEXT_COLUMNS,
    TEXT_METRICS,
    add_to_headline,
    caveats_of_texts,
    said_of_texts,
)
from nla_audit.analyzers._stages import links_named, stages_of
from nla_audit.analyzers.frontier import MARGIN
from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding, Headline, Metric, Option, analyzer
from nla_audit.probes.causal.ruler import PAIR_OPTIONS, open_ruler
from nla_audit.table.completions import Completions
from nla_audit.table.prefix_table import UNITS, PrefixTable

QUESTION = "How much do the first tokens of an explanation carry, and where does more of it hurt?"
_CHANGES = {
    "model": pl.String,
    "length": pl.Int64,
    "fve_change": pl.Float64,
    "fve_change_low": pl.Float64,
    "fve_change_high": pl.Float64,
    "activations": pl.Int64,
}


#: What gives the FVE of beginnings; a table of them does as well.
_PREFIXES = "--prefixes or --pair"
METRICS = (
    *(
        Metric(name, "tokens", "lower", f"first tokens that it takes to {what}")
        for name, what in {
            "tokens_to_fve_0": "an FVE of 0",
            "tokens_to_fve_half": "an FVE of a half",
            TO_SHARE: "80 % of the FVE of whole texts",
        }.items()
    ),
    Metric(
        "area",
        "share",
        "higher",
        "share of the full FVE that is there already, averaged over the tokens of a text",
    ),
    Metric("peak_fve", "FVE", "higher", "FVE at the length where it is highest"),
    Metric("peak_tokens", "tokens", "neither", "that length"),
    Metric("full_fve", "FVE", "higher", "mean FVE of whole texts"),
    Metric("full_tokens", "tokens", "lower", "their length, as the curve has it"),
    Metric("n", "count", "neither", "activations of the curve", interval=False),
    Metric(
        "is_means",
        "yes or no",
        "neither",
        "1 where only means are known, and so no interval",
        interval=False,
    ),
    Metric("mean_full_tokens", "tokens", "lower", "mean length of whole texts", interval=False),
    Metric("lost_after_peak", "FVE", "lower", "FVE lost from the best length to the whole text"),
    Metric(
        "longer_hurts_share",
        "share",
        "lower",
        "share of the activations whose text is read worse whole than at the best length",
        needs=_PREFIXES,
    ),
    Metric(
        "longer_helps_share",
        "share",
        "higher",
        "share of those whose text is read better",
        needs=_PREFIXES,
    ),
    Metric(
        "area_change",
        "difference of shares",
        "higher",
        "area less the reference's",
        needs=_PREFIXES,
    ),
    Metric("full_fve_change", "FVE", "higher", "full_fve less the reference's", needs=_PREFIXES),
    *TEXT_METRICS,
)


@analyzer(
    name="multiscale",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={
        "fve": "FVE of whole texts is not known, where no table of prefixes is given",
        "sample": "what a predecessor says again anyway is not known, nor how well needs are",
        "doc_id": "intervals resample activations instead of documents",
    },
    unit="activation (samples of one activation are averaged first)",
    control="the reference model's text of the same activation, at the same length",
    high_means="area near 1: nearly all of the FVE is there after the first tokens; "
    "lost_after_peak above 0: the model writes on where it no longer helps",
    example="nla-audit multiscale prefix_fve.parquet",
    metrics=METRICS,
    columns={
        "broken": "share",
        "first": "share",
        "function_words": "share",
        "whole": "share",
        **TEXT_COLUMNS,
    },
    order=15,
    door=prefixes_named,
    options=(
        Option(
            "prefixes",
            str,
            None,
            "table of FVE by prefix (model, idx, sample, unit, length, fve) of these completions, "
            "as `score --prefixes` writes it; such a table can also be TABLE itself",
        ),
        *PAIR_OPTIONS,
        Option(
            "margin",
            float,
            MARGIN,
            "a loss of FVE up to this is as good as none",
        ),
        Option(
            "chain",
            str,
            (),
            "models of which each was trained from the one before, first to last: A,B,C; "
            "repeatable",
            multiple=True,
        ),
        Option(
            "base_model",
            str,
            None,
            "a language model (folder, or owner/name on the Hub) that reads explanations for "
            "their perplexity",
        ),
    ),
)
def multiscale(
    table: Completions | PrefixTable,
    *,
    prefixes: str | None = None,
    pair: str | None = None,
    activations: str | None = None,
    margin: float = MARGIN,
    chain: Sequence[str] = (),
    base_model: str | None = None,
    seed: int = 0,
) -> Finding:
    """Curves of FVE by prefix, what is read off them, and what texts say first.

    Args:
        table: completions, or FVE by prefix, of which means alone are enough.
        prefixes: FVE by prefix of the completions.
        pair: AR that reads prefixes of the completions now.
        activations: with ``pair``: what they explain.
        margin: FVE that is as good as none.
        chain: models with commas between them, each trained from the one before.
        base_model: reads explanations for their perplexity.
        seed: of the intervals.

    Raises:
        UserError: ``margin`` is not above 0, or the options do not fit the table.
    """
    if not 0 < margin < float("inf"):
        raise UserError(f"--margin {margin:g}: give the FVE that may be lost, a number above 0")
    completions = table if isinstance(table, Completions) else None
    given = {"prefixes": prefixes, "pair": pair, "chain": chain, "base_model": base_model}
    _check_options(table, given)
    links = [] if completions is None else links_named(completions, chain)
    ruler = None if completions is None else open_ruler(completions, pair, activations)
    curves = prefixes_of_table(table, prefixes, ruler)
    models = curves.models if curves is not None else table.models
    reference = table.reference
    by_unit = {} if curves is None else {unit: studies_of(curves, unit, seed) for unit in UNITS}
    studies = by_unit.get(TOKENS, {})
    headline: Headline = {}
    for model in models:
        summary = summary_of(studies.get(model), seed)
        if completions is not None and model in completions.models:
            summary = with_whole_texts(completions, model, seed, summary)
        headline[model] = summary
    changes = []
    if reference in studies:
        plain = studies[reference]
        for model, study in studies.items():
            if model != reference:
                pair_of = on_shared_activations(study, plain, seed)
                headline[model] |= against(study, plain, pair_of)
                changes += changes_by_length(study.curve, plain.curve, pair_of, seed)
    by_prefix = fve_by_prefix(by_unit)
    tables = {
        "models": pl.DataFrame(),  # when all that goes into it is known
        "fve_by_tokens": by_prefix.filter(pl.col("unit") == TOKENS).drop("unit"),
        "fve_by_other_units": by_prefix.filter(pl.col("unit") != TOKENS),
        "other_units": in_other_units(by_unit),
        "changes_by_prefix": pl.DataFrame(changes, schema=_CHANGES),
        "broken_words": broken_words(completions, curves, seed),
    }
    shuffled = None
    if completions is not None and ruler is not None:
        shuffled = in_random_order(completions, ruler, seed)
    if curves is not None:
        tables["lengths_and_needs"] = lengths_and_needs(curves, seed)
        worth = order_of_worth(curves, completions, shuffled, seed)
        tables |= {"order_of_worth": worth.models, "worth_of_kinds": worth.kinds}
    if completions is not None:
        tables["kinds_by_place"] = kinds_first(completions, seed)
        tables["natural_prefixes"] = natural_prefixes(completions, seed)
        tables["stages"] = stages_of(completions, links, seed)
        if base_model is not None:
            tables["perplexity"] = perplexities(completions, base_model, seed)
    add_to_headline(headline, tables)
    tables["models"] = pl.DataFrame(
        [
            {"model": model, "reading_on": reading_on(summary, margin), **summary}
            for model, summary in headline.items()
        ],
        infer_schema_length=None,
    )
    return Finding(
        analyzer="multiscale",
        question=QUESTION,
        reference=reference,
        headline=headline,
        verdict=" ".join([verdict(headline, reference, margin), *said_of_texts(tables)]),
        caveats=[
            *caveats(table, curves, studies),
            *caveats_of_texts(tables, shuffled is not None),
        ],
        tables=tables,
        figures=_figures(completions is not None),
        parameters={
            "seed": seed,
            "margin": margin,
            "prefixes": prefixes,
            "pair": pair,
            "activations": activations,
            "chain": list(chain),
            "base_model": base_model,
        },
    )


def _check_options(table: Completions | PrefixTable, given: Mapping[str, object]) -> None:
    flags = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if isinstance(table, PrefixTable) and flags:
        raise UserError(
            f"{flags[0]} goes with a table of completions; {table.sources[0].path} holds FVE by "
            "prefix already"
        )
    if given["prefixes"] and given["pair"]:
        raise UserError("--prefixes and --pair: give one of them, each says FVE by prefix")


def _figures(has_texts: bool) -> list[Figure]:
    figures = [
        Figure(
            "curves",
            "FVE by prefix",
            "line",
            "fve_by_tokens",
            x="length",
            y="fve",
            x_label="first tokens of the explanation",
            y_label="mean FVE",
            low="fve_low",
            high="fve_high",
            group="model",
            log_x=True,
            caption="Mean FVE of the first tokens of explanations (the whole of those that are "
            "shorter), with 95 % intervals over activations.",
        ),
        Figure(
            "changes",
            "FVE by prefix against the reference",
            "line",
            "changes_by_prefix",
            x="length",
            y="fve_change",
            x_label="first tokens of the explanation",
            y_label="FVE change against the reference",
            low="fve_change_low",
            high="fve_change_high",
            group="model",
            log_x=True,
            caption="Difference from the reference's text of the same activation, at the same "
            "number of tokens.",
        ),
    ]
    if has_texts:
        figures.append(
            Figure(
                "places",
                "What is said first",
                "bar",
                "kinds_by_place",
                x="kind",
                y="place",
                x_label="kind of claim",
                y_label="mean place (0 first, 1 last)",
                low="place_low",
                high="place_high",
                group="model",
                caption="Mean place of a kind of claim in explanations with several claims.",
            )
        )
    return figures
