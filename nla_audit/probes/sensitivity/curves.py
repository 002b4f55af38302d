"""What explanations name by strength: shares, thresholds, places, the price in tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from nla_audit.probes.sensitivity.controls import CONCEPT
from nla_audit.probes.sensitivity.cube import Cube
from nla_audit.probes.sensitivity.psychometric import Threshold, threshold
from nla_audit.stats import MIN_CLUSTERS, Interval, percentile_limits

#: Column that counts the tokens of an explanation, and what stands in for it.
_LENGTHS = ("content_tokens", "n_tokens")


def share_table(study: Mapping[str, Cube]) -> pl.DataFrame:
    """``model, kind, strength, named`` with its interval, ``n`` and ``missing``."""
    rows: list[dict[str, Any]] = []
    for model, cube in study.items():
        for kind in cube.kinds:
            said = cube.of(kind, "said")
            for level, strength in enumerate(cube.strengths):
                share = cube.resampler.share(said[:, level])
                rows.append(
                    {
                        "model": model,
                        "kind": kind,
                        "strength": float(strength),
                        **share.entries("named"),
                        "n": share.n,
                        "missing": share.missing,
                    }
                )
    return pl.DataFrame(rows, infer_schema_length=None)


def thresholds(study: Mapping[str, Cube]) -> dict[str, Threshold]:
    """α50 of each model; the same activations are drawn for all, so that they can be compared."""
    return {
        model: threshold(cube.strengths, cube.of(CONCEPT, "said"), cube.clusters, seed=cube.seed)
        for model, cube in study.items()
    }


def ratio(found: Threshold, reference: Threshold) -> Interval:
    """By which factor a threshold is above another; no interval where one leaves the ladder.

    Where the bootstrap meets an end of the ladder the factor is bounded on one side at most, and
    it is not given.
    """
    if found.value is None or reference.value is None:
        return Interval(np.nan, np.nan, np.nan, 0)
    bounded = None not in (found.low, found.high, reference.low, reference.high)
    low, high = percentile_limits(found.draws / reference.draws) if bounded else (np.nan, np.nan)
    return Interval(found.value / reference.value, low, high, len(found.draws))


def threshold_table(found: Mapping[str, Threshold], reference: str) -> pl.DataFrame:
    """A row for each model."""
    rows = [
        {
            "model": model,
            "alpha50": one.value,
            "alpha50_low": one.low,
            "alpha50_high": one.high,
            "said_of_it": one.told(),
            "guess": None if np.isnan(one.guess) else one.guess,
            "lapse": None if np.isnan(one.lapse) else one.lapse,
            "slope": None if np.isnan(one.slope) else one.slope,
            **ratio(one, found[reference]).entries("times_reference"),
        }
        for model, one in found.items()
    ]
    floats = [name for name in rows[0] if name not in ("model", "said_of_it")]
    return pl.DataFrame(rows, schema_overrides=dict.fromkeys(floats, pl.Float64))


def place_table(study: Mapping[str, Cube]) -> pl.DataFrame:
    """Where the concept is first named, among the explanations that name it."""
    rows: list[dict[str, Any]] = []
    for model, cube in study.items():
        said = cube.of(CONCEPT, "said") == 1
        tokens, claims, segments = (
            cube.of(CONCEPT, f"first_{unit}") for unit in ("token", "claim", "segment")
        )
        for level, strength in enumerate(cube.strengths):
            # Detection by embeddings tells no place.
            here = said[:, level] & ~np.isnan(claims[:, level])
            before = np.where(here, tokens[:, level], np.nan)
            first_claim = np.where(here, claims[:, level] == 0, np.nan)
            in_segment = segments[:, level]
            has_segments = here & ~np.isnan(in_segment)
            first_segment = np.where(has_segments, in_segment == 0, np.nan)
            rows.append(
                {
                    "model": model,
                    "strength": float(strength),
                    "mentions": int(here.sum()),
                    **cube.resampler.mean(before).entries("tokens_before"),
                    **cube.resampler.share(first_claim).entries("in_first_claim"),
                    **cube.resampler.share(first_segment).entries("in_first_segment"),
                    **cube.resampler.mean(np.where(has_segments, in_segment, np.nan)).entries(
                        "segments_before"
                    ),
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def price(cube: Cube, level: int, *, named: bool | None = None) -> Interval:
    """Tokens that explanations grow by at a strength, paired with the unplanted ones.

    Args:
        cube: the model.
        level: place of the strength.
        named: of those alone that name the concept, or that do not.
    """
    name = next((one for one in _LENGTHS if cube.rows[one].null_count() < cube.rows.height), None)
    if name is None:
        return Interval(np.nan, np.nan, np.nan, 0)
    lengths, said = cube.of(CONCEPT, name), cube.of(CONCEPT, "said")[:, level]
    grown = lengths[:, level] - lengths[:, 0]
    if named is not None:
        grown = np.where(said == float(named), grown, np.nan)
    return cube.resampler.mean(grown)


def price_table(study: Mapping[str, Cube]) -> pl.DataFrame:
    """``price`` of each model and strength: of all explanations, and by whether they name it."""
    rows: list[dict[str, Any]] = []
    for model, cube in study.items():
        for level, strength in enumerate(cube.strengths):
            if strength == 0:
                continue
            rows.append(
                {
                    "model": model,
                    "strength": float(strength),
                    **price(cube, level).entries("tokens_more"),
                    **price(cube, level, named=True).entries("tokens_more_named"),
                    **price(cube, level, named=False).entries("tokens_more_unnamed"),
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def mean_place(cube: Cube) -> Interval:
    """Tokens before the first mention, over all planted strengths."""
    said = cube.of(CONCEPT, "said") == 1
    said[:, 0] = False
    before = np.where(said, cube.of(CONCEPT, "first_token"), np.nan)
    known = ~np.isnan(before)
    return cube.resampler.ratio(np.where(known, before, 0).sum(axis=1), known.sum(axis=1))


def excess(cube: Cube, kind: str) -> Interval:
    """By how much the concept is named more often than a control, over all planted strengths.

    Args:
        cube: the model.
        kind: of the control; :data:`CONCEPT` compares with unplanted explanations.
    """
    said = cube.of(CONCEPT, "said")
    control = said[:, :1] if kind == CONCEPT else cube.of(kind, "said")[:, 1:]
    apart = said[:, 1:] - control
    known = ~np.isnan(apart)
    count = known.sum(axis=1)
    sums = np.where(known, apart, 0).sum(axis=1)
    means = np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)
    return cube.resampler.share_difference(means)


def is_enough(cube: Cube) -> bool:
    """Whether there are activations enough for an interval."""
    known = ~np.isnan(cube.of(CONCEPT, "said")).all(axis=1)
    return len(np.unique(cube.clusters[known])) >= MIN_CLUSTERS
