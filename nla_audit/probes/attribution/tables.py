"""The tables of an attribution: by kind of token and claim, by length, by order of claims.

Differences of FVE are in points (hundredths). Every one stands beside *elsewhere*, the same
texts read against another activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from nla_audit.probes.attribution.pieces import PLACES, PUNCTUATION, TOKEN_KINDS
from nla_audit.probes.attribution.scores import (
    ARRANGEMENTS,
    CURVES,
    OWN,
    REJOINED,
    WRITTEN,
    Attribution,
)
from nla_audit.stats import MIN_CLUSTERS, UNKNOWN, Interval, Resampler
from nla_audit.table.pairing import column

#: FVE points in an FVE of 1.
POINTS = 100.0
#: Lengths of the prefixes that are shown, in tokens; about as many at each scale.
_LENGTHS = (0, 1, 2, 3, 5, 8, 12, 20, 30, 45, 70, 100, 150, 220, 330, 500)
#: Words shown as those that cost most.
_COSTLIEST = 15


def gain_of(texts: pl.DataFrame) -> np.ndarray:
    """``[texts]`` FVE above that of the empty text."""
    return column(texts, "fve") - column(texts, "fve_empty")


def resampler_of(frame: pl.DataFrame, seed: int) -> Resampler:
    """The bootstrap for the rows of ``frame``, by its column ``cluster``."""
    return Resampler(frame["cluster"].to_numpy(), seed=seed)


def tables_of(part: Attribution, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Name → rows; of one model. Numbers have a 95 % interval from activations drawn anew."""
    whole = resampler_of(part.texts, seed).mean(gain_of(part.texts))
    has_gain = whole.low > 0
    return {
        "token_kinds": _by(part.tokens, "kind", TOKEN_KINDS, seed, has_gain=has_gain),
        "quotes": _by(part.tokens, "place", PLACES, seed, has_gain=has_gain),
        "prefixes": _prefixes(part, seed, has_gain=has_gain),
        "claim_kinds": _claims(part.claims, seed),
        "orders": _orders(part, seed),
        "order_curves": _curves(part.curves, seed),
        "costliest_words": _costliest(part.tokens, seed),
    }


def _by(
    tokens: pl.DataFrame, name: str, values: Sequence[str], seed: int, *, has_gain: bool
) -> list[dict[str, Any]]:
    """Saliency and marginal FVE of the tokens of each kind or place, and their share of all.

    ``gain_share`` is of the FVE that reading adds word by word, and the shares sum to 1; there
    are none where nothing is gained.
    """
    if tokens.height == 0:
        return []
    draw = resampler_of(tokens, seed)
    marginal = column(tokens, "marginal")
    rows = []
    for value in values:
        here = (tokens[name] == value).to_numpy()
        share = draw.ratio(np.where(here, marginal, 0 * marginal), marginal)
        rows.append(
            {
                name: value,
                "tokens": int(here.sum()),
                **draw.mean(here.astype(float)).entries("token_share"),
                **_points(draw, tokens, "saliency", here),
                **_points(draw, tokens, "saliency_elsewhere", here),
                **_points(draw, tokens, "marginal", here),
                **_points(draw, tokens, "marginal_elsewhere", here),
                **(share if has_gain else UNKNOWN).entries("gain_share"),
            }
        )
    return rows


def _points(
    draw: Resampler, frame: pl.DataFrame, name: str, here: np.ndarray
) -> dict[str, float | None]:
    """Mean of a column over the rows ``here``, in points."""
    return draw.mean(np.where(here, POINTS * column(frame, name), np.nan)).entries(name)


def _prefixes(part: Attribution, seed: int, *, has_gain: bool) -> list[dict[str, Any]]:
    """FVE of the first tokens, and what each of those since the former row added."""
    tokens, texts = part.tokens, part.texts
    if tokens.height == 0:
        return []
    draw, token_draw = resampler_of(texts, seed), resampler_of(tokens, seed)
    longest = int(texts["tokens"].to_numpy().max())
    lengths = [*(length for length in _LENGTHS if length < longest), longest]
    gain = gain_of(texts)
    rows = []
    for before, length in pairwise([-1, *lengths]):
        own, other = _at_length(part, length)
        so_far = own - column(texts, "fve_empty")
        share = draw.ratio(np.where(np.isnan(gain), np.nan, so_far), gain)
        number = tokens["token"].to_numpy() + 1
        here = (number > before) & (number <= length)
        added = _points(token_draw, tokens, "marginal", here) if here.any() else {}
        rows.append(
            {
                "tokens_read": length,
                **draw.mean(own).entries("fve"),
                **draw.mean(other).entries("elsewhere"),
                **(share if has_gain else UNKNOWN).entries("gain_share"),
                **{
                    name.replace("marginal", "points_per_token"): value
                    for name, value in added.items()
                },
            }
        )
    return rows


def _at_length(part: Attribution, length: int) -> tuple[np.ndarray, np.ndarray]:
    """``[texts]`` FVE after ``length`` tokens, of all where a text is no longer than that."""
    if length == 0:
        return column(part.texts, "fve_empty"), column(part.texts, "elsewhere_empty")
    ends = part.tokens.filter(pl.col("token") == length - 1).select(
        "idx", "fve_prefix", "elsewhere_prefix"
    )
    joined = part.texts.join(ends, on="idx", how="left", maintain_order="left")
    is_longer = (joined["tokens"] >= length).to_numpy()
    return (
        np.where(is_longer, column(joined, "fve_prefix"), column(joined, "fve")),
        np.where(is_longer, column(joined, "elsewhere_prefix"), column(joined, "elsewhere")),
    )


def _claims(claims: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Saliency of the claims of each kind, the costliest first."""
    if claims.height == 0:
        return []
    draw = resampler_of(claims, seed)
    rows = []
    for kind in sorted(claims["kind"].unique()):
        here = (claims["kind"] == kind).to_numpy()
        rows.append(
            {
                "kind": kind,
                "claims": int(here.sum()),
                **_points(draw, claims, "saliency", here),
                **_points(draw, claims, "saliency_elsewhere", here),
            }
        )
    return sorted(rows, key=lambda row: -_number(row["saliency"]))


def _number(value: Any) -> float:
    return -np.inf if value is None else float(value)


def _orders(part: Attribution, seed: int) -> list[dict[str, Any]]:
    """FVE of each arrangement of the claims, and its gain over the own order."""
    rows = []
    for joints in (WRITTEN, REJOINED):
        own = arrangement_of(part.orders, OWN, joints)
        draw = resampler_of(own, seed) if own.height else None
        for name in ARRANGEMENTS:
            if draw is None:
                continue
            other = arrangement_of(part.orders, name, joints)
            row = {"arrangement": name, "joints": joints, "explanations": own.height}
            row |= draw.mean(column(other, "fve")).entries("fve")
            if name != OWN:
                row |= gain_over(own, other, "fve", draw).entries("gain")
                row |= gain_over(own, other, "elsewhere", draw).entries("gain_elsewhere")
                row |= draw.mean(column(other, "kendall_tau")).entries("kendall_tau")
            if joints == REJOINED and name in CURVES:
                begun = (
                    part.curves.filter(pl.col("arrangement") == name)
                    .group_by("idx")
                    .agg(pl.col("cluster").first(), pl.col("fve").mean())
                    .sort("idx")
                )
                row |= (
                    resampler_of(begun, seed)
                    .mean(column(begun, "fve"))
                    .entries("fve_of_beginnings")
                )
            rows.append(row)
    return rows


def arrangement_of(orders: pl.DataFrame, name: str, joints: str) -> pl.DataFrame:
    return orders.filter((pl.col("arrangement") == name) & (pl.col("joints") == joints)).sort("idx")


def gain_over(own: pl.DataFrame, other: pl.DataFrame, name: str, draw: Resampler) -> Interval:
    """Points by which ``other`` is above ``own``; both by ``idx``, the same ones."""
    return draw.mean(POINTS * (column(other, name) - column(own, name)))


def _curves(curves: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """FVE after the first claims; a text that has no more of them stays where it ended."""
    rows = []
    for name in CURVES:
        chosen = curves.filter(pl.col("arrangement") == name)
        if chosen.height == 0:
            continue
        wide = chosen.pivot(on="claims_read", index=["idx", "cluster"], values="fve").sort("idx")
        claims = chosen.group_by("idx").agg(pl.col("claims").first()).sort("idx")["claims"]
        draw = resampler_of(wide, seed)
        last = np.full(wide.height, np.nan)
        for number in range(1, int(claims.to_numpy().max()) + 1):
            last = np.where(claims.to_numpy() >= number, column(wide, str(number)), last)
            reached = int((claims >= number).sum())
            rows.append(
                {
                    "arrangement": name,
                    "claims_read": number,
                    "explanations_as_long": reached,
                    **draw.mean(last).entries("fve"),
                }
            )
    return rows


def _costliest(tokens: pl.DataFrame, seed: int) -> list[dict[str, Any]]:
    """The words whose deletion costs most, of those in enough explanations for an interval."""
    words = tokens.filter(pl.col("kind") != PUNCTUATION).with_columns(
        word=pl.col("text").str.to_lowercase(),
        beyond=POINTS * (pl.col("saliency") - pl.col("saliency_elsewhere").fill_null(0.0)),
    )
    common = (
        words.group_by("word")
        .agg(pl.col("cluster").n_unique())
        .filter(pl.col("cluster") >= MIN_CLUSTERS)["word"]
        .sort()
    )
    rows = []
    for word in common:
        here = words.filter(pl.col("word") == word)
        rows.append(
            {
                "word": word,
                "occurrences": here.height,
                **resampler_of(here, seed).mean(column(here, "beyond")).entries("saliency_beyond"),
            }
        )
    rows.sort(key=lambda row: (-_number(row["saliency_beyond"]), row["word"]))
    return rows[:_COSTLIEST]
