"""Is what is said first worth most?

The gain of a claim is what the text is read better with it than without it and all behind it; the
first is compared with FVE 0, which guessing the mean has. Gains fall along any text that says
things twice or fills up what there is to know, whatever its order. So a fall is no proof: with a
pair the same claims are read in random order too, and what the true order is better by before the
text is whole is the order's own. Kinds are compared at the same place, which no fall can touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from nla_audit.analyzers._multiscale_verdict import CANNOT_TELL
from nla_audit.analyzers._ranks import Floats, spearman
from nla_audit.stats import Interval, or_none, percentile_limits
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import clusters, column, resampler
from nla_audit.table.prefix_table import PrefixTable
from nla_audit.text.claims import split_claims

WORTH_FIRST, WORTH_LAST = "worth most first", "worth most last"
NO_FALL = "gains do not fall"
#: Claims that a text must have for its order to say anything.
_FEWEST = 3
#: Claims of a kind below which its worth is not given.
FEWEST_OF_A_KIND = 100
#: Kinds below which their order is not compared.
_FEWEST_KINDS = 4
#: Places from here on are one.
_LAST_PLACE = 12

ORDER = {
    "model": pl.String,
    "texts": pl.Int64,
    "rho": pl.Float64,
    "rho_low": pl.Float64,
    "rho_high": pl.Float64,
    "p_value": pl.Float64,
    "order_gain": pl.Float64,
    "order_gain_low": pl.Float64,
    "order_gain_high": pl.Float64,
    "kinds": pl.Int64,
    "kinds_rho": pl.Float64,
    "kinds_rho_low": pl.Float64,
    "kinds_rho_high": pl.Float64,
    "order": pl.String,
}
KINDS_WORTH = {
    "model": pl.String,
    "kind": pl.String,
    "worth": pl.Float64,
    "worth_low": pl.Float64,
    "worth_high": pl.Float64,
}


@dataclass(frozen=True)
class Worth:
    """``models`` has a row a model (:data:`ORDER`), ``kinds`` one for each of its kinds that has
    enough claims (:data:`KINDS_WORTH`)."""

    models: pl.DataFrame
    kinds: pl.DataFrame


def order_of_worth(
    table: PrefixTable,
    completions: Completions | None,
    shuffled: PrefixTable | None,
    seed: int,
) -> Worth:
    """What the order of claims is worth, model by model.

    Args:
        table: FVE by prefix, with claims.
        completions: the texts, from which kinds are told.
        shuffled: the same texts with their claims in random order.
    """
    models, kinds = [], []
    for model in table.models:
        curves = _curves(table, model)
        if curves.height == 0:
            continue
        row: dict[str, object] = {"model": model, "texts": curves.height}
        rho, p_value = _fall(curves, seed)
        row |= {**rho.entries("rho"), "p_value": or_none(p_value)}
        gain = None if shuffled is None else _order_gain(curves, _curves(shuffled, model), seed)
        row |= {} if gain is None else gain.entries("order_gain")
        row["order"] = _answer(rho, gain)
        if completions is not None and model in completions.models:
            claims = _claims(curves, completions, model)
            worth, between = _kinds(claims, seed)
            kinds += [{"model": model, **one} for one in worth]
            row |= {"kinds": len(worth), **between.entries("kinds_rho")}
        models.append(row)
    return Worth(pl.DataFrame(models, schema=ORDER), pl.DataFrame(kinds, schema=KINDS_WORTH))


def _curves(table: PrefixTable, model: str) -> pl.DataFrame:
    """``idx, sample, doc_id, fve`` of texts with enough claims, each prefix of which was read."""
    rows = table.rows.filter(
        (pl.col("model") == model) & (pl.col("unit") == "claims") & pl.col("idx").is_not_null()
    )
    texts = rows.group_by("idx", "sample", maintain_order=True).agg(
        pl.col("doc_id").first(), "fve", "length"
    )
    return texts.filter(
        (pl.col("fve").list.len() >= _FEWEST)
        & (pl.col("length").list.last() == pl.col("length").list.len())
        & (pl.col("length").list.first() == 1)
        & ~pl.col("fve").list.eval(pl.element().is_null()).list.any()
    ).drop("length")


def _gains(fve: Sequence[float]) -> Floats:
    return np.diff(np.asarray(fve, dtype=np.float64), prepend=0.0)


def _fall(curves: pl.DataFrame, seed: int) -> tuple[Interval, float]:
    """Mean rank correlation of a claim's place and its gain, and its p-value under a shuffle.

    With gains exchanged within texts a text of n claims has ρ of mean 0 and variance 1 / (n − 1);
    the samples of an activation are taken for one text, so that the test errs on the safe side.
    """
    gains = [_gains(fve) for fve in curves["fve"].to_list()]
    each = np.array([float(spearman(np.arange(len(one), dtype=np.float64), one)) for one in gains])
    rho = resampler(curves, seed).mean(each)
    known = ~np.isnan(each)
    variance = np.array([1 / (len(one) - 1) for one in gains])[known]
    effective = len(np.unique(clusters(curves)[known]))
    if effective == 0:
        return rho, np.nan
    from scipy.special import ndtr  # keeps the import of this module light

    error = np.sqrt(variance.mean() / effective)
    return rho, float(2 * ndtr(-abs(rho.value) / error))


def _order_gain(curves: pl.DataFrame, shuffled: pl.DataFrame, seed: int) -> Interval:
    """FVE that the true order is better by before the text is whole.

    The mean over all prefixes but the last of FVE less that of the shuffled text, less the same of
    the whole texts: that a reader likes the usual order is no worth of what comes first.
    """
    both = curves.join(
        shuffled.select("idx", "sample", other="fve"), on=["idx", "sample"], maintain_order="left"
    ).filter(pl.col("fve").list.len() == pl.col("other").list.len())
    if both.height == 0:
        return Interval(np.nan, np.nan, np.nan, 0, curves.height)
    ahead = [np.subtract(own, other) for own, other in both.select("fve", "other").iter_rows()]
    return resampler(both, seed).mean([one[:-1].mean() - one[-1] for one in ahead])


def _claims(curves: pl.DataFrame, completions: Completions, model: str) -> pl.DataFrame:
    """A row a claim: ``idx, doc_id, kind, place`` (0 first, 1 last) and ``beyond``, its gain less
    the mean gain at its place."""
    texts = {
        (str(idx), sample): text
        for idx, sample, text in completions.of(model)
        .select("idx", "sample", "explanation")
        .iter_rows()
    }
    rows = []
    for idx, sample, document, fve in curves.iter_rows():
        claims = split_claims(texts.get((idx, sample)) or "")
        if len(claims) != len(fve):
            continue
        last = len(claims) - 1
        rows += [
            (idx, document, claim.kind, number / last, min(number, _LAST_PLACE), gain)
            for number, (claim, gain) in enumerate(zip(claims, _gains(fve), strict=True))
        ]
    schema = {
        "idx": pl.String,
        "doc_id": pl.String,
        "kind": pl.String,
        "place": pl.Float64,
        "number": pl.Int64,
        "gain": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        beyond=pl.col("gain") - pl.col("gain").mean().over("number")
    )


def _kinds(claims: pl.DataFrame, seed: int) -> tuple[list[dict[str, object]], Interval]:
    """What each kind is worth at the same place, and whether kinds that come early are worth more.

    The rank correlation is between a kind's mean place and its worth; below 0: worth most first.
    """
    names = (
        claims.group_by("kind").len().filter(pl.col("len") >= FEWEST_OF_A_KIND)["kind"].sort()
    ).to_list()
    unknown = Interval(np.nan, np.nan, np.nan, len(names))
    if not names:
        return [], unknown
    draw = resampler(claims, seed)
    of = np.array([[kind == name for name in names] for kind in claims["kind"].to_list()])
    columns = {
        name: np.where(of, column(claims, name)[:, None], np.nan) for name in ("place", "beyond")
    }
    rows = [
        {"kind": name, **draw.mean(columns["beyond"][:, place]).entries("worth")}
        for place, name in enumerate(names)
    ]
    if len(names) < _FEWEST_KINDS:
        return rows, unknown
    means = [np.nanmean(values, axis=0) for values in columns.values()]
    rho = float(spearman(*means))
    both = draw.mean_replicates(np.hstack(list(columns.values())))
    if len(both) == 0:
        return rows, Interval(rho, np.nan, np.nan, len(names))
    drawn = spearman(*np.hsplit(both, 2))
    return rows, Interval(rho, *percentile_limits(drawn), len(names))


def _answer(rho: Interval, gain: Interval | None) -> str:
    if gain is not None and gain.low > 0:
        return WORTH_FIRST
    if gain is not None and gain.high < 0:
        return WORTH_LAST
    if gain is None and rho.low >= 0:
        return NO_FALL
    return CANNOT_TELL
