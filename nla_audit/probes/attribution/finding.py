"""Where in an explanation the reconstruction comes from: words, quotes, claims, their order.

Not a question to a table of completions: it needs readings of texts that are taken apart
(:mod:`nla_audit.probes.attribution.scores`).

Differences of FVE are in points (hundredths). Every one stands beside *elsewhere*, the same
texts read against another activation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from nla_audit.findings import Figure, Finding, Headline
from nla_audit.probes.attribution.card import CARD, QUESTION
from nla_audit.probes.attribution.pieces import INSIDE, OUTSIDE, PUNCTUATION
from nla_audit.probes.attribution.scores import (
    ARRANGEMENTS,
    GREEDY,
    GREEDY_ELSEWHERE,
    MOST_CLAIMS,
    OWN,
    RANDOM,
    RANDOM_ORDERS,
    REJOINED,
    WRITTEN,
    Attribution,
)
from nla_audit.probes.attribution.tables import (
    POINTS,
    arrangement_of,
    gain_of,
    gain_over,
    resampler_of,
    tables_of,
)
from nla_audit.probes.attribution.verdict import sentences
from nla_audit.regression import clustered_regression
from nla_audit.stats import MIN_CLUSTERS, UNKNOWN, Interval
from nla_audit.table.pairing import column
from nla_audit.wording import count

#: FVE of one text in two batches differs by less.
_SAME_FVE = 1e-4


def attribution(
    scores: Attribution,
    *,
    models: Mapping[str, int],
    left_out: pl.DataFrame,
    seed: int = 0,
    notes: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> Finding:
    """The finding, each model on its own.

    Args:
        scores: of the explanations taken apart.
        models: name → explanations that were asked for; in the order to be shown.
        left_out: ``model, idx, reason`` of explanations that were not read.
        seed: of the intervals.
        notes: caveats that only the caller knows.
        parameters: of the reading, for the record.
    """
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
    headline: Headline = {}
    verdicts, caveats = [], list(notes)
    for model in models:
        part = _of_model(scores, model)
        found = tables_of(part, seed)
        numbers = _headline(part, seed)
        for name, rows in found.items():
            tables[name] += [{"model": model, **row} for row in rows]
        headline[model] = {
            "explanations": float(part.texts.height),
            "left_out": float((left_out["model"] == model).sum()),
            **{
                key: value
                for name, number in numbers.items()
                for key, value in number.entries(name).items()
            },
        }
        name = f"{model}: " if len(models) > 1 else ""
        verdicts.append(name + sentences(numbers))
        caveats += [name + caveat for caveat in _caveats(part, left_out, model)]
    caveats += _reading_notes(scores)
    finding = Finding(
        analyzer="attribution",
        question=QUESTION,
        reference=None,
        headline=headline,
        verdict=" ".join(verdicts),
        caveats=caveats,
        tables={
            name: pl.DataFrame(rows, infer_schema_length=None)
            for name, rows in tables.items()
            if rows
        },
        figures=[figure for figure in _figures(several=len(models) > 1) if tables[figure.table]],
        parameters={"seed": seed, "random_orders": RANDOM_ORDERS, **(parameters or {})},
        private_tables=frozenset({"costliest_words"}),
    )
    return CARD.sign(finding)


_TABLES = (
    "token_kinds",
    "quotes",
    "prefixes",
    "claim_kinds",
    "orders",
    "order_curves",
    "costliest_words",
)


def _of_model(scores: Attribution, model: str) -> Attribution:
    frames = {
        name: getattr(scores, name).filter(pl.col("model") == model)
        for name in ("texts", "tokens", "claims", "orders", "curves")
    }
    return replace(scores, **frames)


def _headline(part: Attribution, seed: int) -> dict[str, Interval]:
    """The numbers by which a model is quoted."""
    texts, tokens, claims = part.texts, part.tokens, part.claims
    draw = resampler_of(texts, seed)
    written, rejoined = (
        {name: arrangement_of(part.orders, name, joints) for name in ARRANGEMENTS}
        for joints in (WRITTEN, REJOINED)
    )
    order_draw = resampler_of(written[OWN], seed)
    search = gain_over(written[OWN], written[GREEDY], "fve", order_draw)
    elsewhere = gain_over(written[OWN], written[GREEDY_ELSEWHERE], "elsewhere", order_draw)
    return {
        "fve": draw.mean(column(texts, "fve")),
        "fve_above_chance": draw.mean(column(texts, "fve") - column(texts, "elsewhere")),
        "token_saliency": _mean_points(tokens, "saliency", seed),
        "token_saliency_elsewhere": _mean_points(tokens, "saliency_elsewhere", seed),
        "claim_saliency": _mean_points(claims, "saliency", seed),
        "claim_saliency_elsewhere": _mean_points(claims, "saliency_elsewhere", seed),
        **_quoted_shares(part, seed),
        "quoted_over_unquoted": _quoted_over_unquoted(tokens),
        "accrual": _accrual(part, seed),
        "order_gain": gain_over(rejoined[OWN], rejoined[GREEDY], "fve", order_draw)
        if sees_separators(part)
        else UNKNOWN,
        "order_gain_searched": search,
        "order_gain_searched_elsewhere": elsewhere,
        "own_over_random": order_draw.mean(
            POINTS * (column(rejoined[OWN], "fve") - column(rejoined[RANDOM], "fve"))
        ),
        "kendall_tau": order_draw.mean(column(written[GREEDY], "kendall_tau")),
        "kendall_tau_elsewhere": order_draw.mean(column(written[GREEDY_ELSEWHERE], "kendall_tau")),
    }


def sees_separators(part: Attribution) -> bool:
    """Whether the AR reads rejoined claims otherwise than as they are written.

    A tokenizer that drops white space makes both one text to it, and a gain that was selected on
    the one is not tested on the other.
    """
    written, rejoined = (
        part.orders.filter(pl.col("joints") == joints).sort("idx", "arrangement")
        for joints in (WRITTEN, REJOINED)
    )
    apart = np.abs(column(written, "fve") - column(rejoined, "fve"))
    return bool(np.any(apart > _SAME_FVE))


def _mean_points(frame: pl.DataFrame, name: str, seed: int) -> Interval:
    return resampler_of(frame, seed).mean(POINTS * column(frame, name))


def _quoted_shares(part: Attribution, seed: int) -> dict[str, Interval]:
    """Share of the tokens, and of the FVE gained by prefixes, of quotations with their marks.

    With them, because what a quotation adds may come with the mark that closes it.
    """
    tokens = part.tokens
    draw = resampler_of(tokens, seed)
    quoted = (tokens["place"] != OUTSIDE).to_numpy()
    marginal = column(tokens, "marginal")
    gain = resampler_of(part.texts, seed).mean(gain_of(part.texts))
    share = draw.ratio(np.where(quoted, marginal, 0 * marginal), marginal)
    return {
        "quoted_token_share": draw.mean(quoted.astype(float)),
        "quoted_gain_share": share if gain.low > 0 else UNKNOWN,
    }


def _quoted_over_unquoted(tokens: pl.DataFrame) -> Interval:
    """Points by which deleting a word inside quotes costs more than one outside, beyond elsewhere.

    Words only: the punctuation outside would make quotes look good.
    """
    is_word = (tokens["place"] == INSIDE) | (
        (tokens["place"] == OUTSIDE) & (tokens["kind"] != PUNCTUATION)
    )
    words = tokens.filter(is_word)
    beyond = column(words, "saliency") - np.nan_to_num(column(words, "saliency_elsewhere"))
    known = ~np.isnan(beyond)
    inside = (words["place"] == INSIDE).to_numpy()[known].astype(float)
    if inside.sum() == 0 or inside.sum() == len(inside):
        return UNKNOWN
    fit = clustered_regression(
        POINTS * beyond[known],
        np.column_stack([np.ones_like(inside), inside]),
        words["cluster"].to_numpy()[known],
    )
    value, error = float(fit.coefficient[1]), 1.96 * float(fit.standard_error[1])
    clusters = words.filter(pl.Series(known)).group_by("place").agg(pl.col("cluster").n_unique())
    if clusters["cluster"].to_numpy().min() < MIN_CLUSTERS:
        error = np.nan  # quotes in a few explanations: their spread is not known
    return Interval(value, value - error, value + error, int(known.sum()))


def _accrual(part: Attribution, seed: int) -> Interval:
    """Share of the gain that is there on average over a text; 0.5 where it comes evenly."""
    # Half-way between the prefixes before and after each token, so that an even rise gives 0.5.
    so_far = part.tokens.group_by("idx").agg(
        (pl.col("fve_prefix") - pl.col("marginal") / 2).mean().alias("so_far"),
        pl.col("marginal").null_count().alias("unknown"),
    )
    rows = part.texts.join(so_far, on="idx", how="left", maintain_order="left")
    gain = gain_of(rows)
    done = column(rows, "so_far") - column(rows, "fve_empty")
    done = np.where(column(rows, "unknown") == 0, done, np.nan)
    draw = resampler_of(rows, seed)
    return draw.ratio(done, gain) if draw.mean(gain).low > 0 else UNKNOWN


def _caveats(part: Attribution, left_out: pl.DataFrame, model: str) -> list[str]:
    caveats = []
    reasons = left_out.filter(pl.col("model") == model)["reason"].value_counts().sort("reason")
    for reason, number in reasons.iter_rows():
        caveats.append(f"{count(number, 'explanation')} left out: {reason}.")
    empty = int((part.texts["tokens"] == 0).sum())
    if empty:
        caveats.append(f"{count(empty, 'explanation')} are empty: they have FVE, and no words.")
    clusters = part.texts["cluster"].n_unique()
    if clusters < MIN_CLUSTERS:
        caveats.append(
            f"{count(clusters, 'activation')} (documents, where they are known): no interval below "
            f"{MIN_CLUSTERS}; raise --limit."
        )
    unscored = part.tokens["saliency"].null_count() + part.claims["saliency"].null_count()
    if unscored:
        caveats.append(f"{count(unscored, 'deletion')} left a text that has no score.")
    few = int((part.texts["claims"] < 2).sum())
    if few:
        caveats.append(f"{count(few, 'explanation')} of fewer than two claims: no order to search.")
    if part.orders.height and not sees_separators(part):
        caveats.append(
            "This AR does not see how claims are separated: the gain of the order searched for "
            "cannot be tested on rejoined texts, and has to be compared with what the same search "
            "gains for another activation."
        )
    if part.texts["elsewhere"].null_count() == part.texts.height:
        caveats.append("No other activation to read against: nothing is compared with chance.")
    return caveats


def _reading_notes(scores: Attribution) -> list[str]:
    notes = [
        "Words are deleted one at a time: what is said twice costs nothing, and saliencies need "
        "not sum to FVE. What prefixes add does.",
        "The greedy search looks for orders whose beginnings carry much; a better whole order may "
        "exist. Its gain is judged on rejoined texts, where it was not selected.",
    ]
    if scores.not_searched:
        notes.append(
            f"{count(scores.not_searched, 'explanation')} of more than {MOST_CLAIMS} claims: no "
            "order searched."
        )
    return notes


def _figures(*, several: bool) -> list[Figure]:
    group = "model" if several else None
    figures = [
        Figure(
            "token-kinds",
            "What deleting a token costs",
            "bar",
            "token_kinds",
            x="kind",
            y="saliency",
            low="saliency_low",
            high="saliency_high",
            chance="saliency_elsewhere",
            group=group,
            x_label="kind of token",
            y_label="FVE points per token",
            caption="FVE lost with one token. Dashes: the same, read against another activation.",
        ),
        Figure(
            "prefixes",
            "FVE of the first tokens",
            "line",
            "prefixes",
            x="tokens_read",
            y="fve",
            low="fve_low",
            high="fve_high",
            chance="elsewhere",
            group=group,
            log_x=True,
            x_label="tokens read",
            y_label="FVE",
            caption="Mean over explanations; one that is no longer than that counts whole. "
            "Dashes: read against another activation.",
        ),
        Figure(
            "claim-kinds",
            "What deleting a claim costs",
            "bar",
            "claim_kinds",
            x="kind",
            y="saliency",
            low="saliency_low",
            high="saliency_high",
            chance="saliency_elsewhere",
            group=group,
            x_label="kind of claim",
            y_label="FVE points per claim",
            caption="FVE lost with one claim. Dashes: the same, read against another activation.",
        ),
    ]
    if not several:
        figures.append(
            Figure(
                "orders",
                "FVE by order of the claims",
                "line",
                "order_curves",
                x="claims_read",
                y="fve",
                low="fve_low",
                high="fve_high",
                group="arrangement",
                x_label="claims read",
                y_label="FVE",
                caption="Claims in the AV's own order, in the order of a greedy search, and in "
                "random ones; separated in another way than when the order was searched.",
            )
        )
    return figures
