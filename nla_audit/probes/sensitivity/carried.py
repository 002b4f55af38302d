"""What the AR brings back of a planted direction, and whether it could without a mention.

The *lift* of a text is by how much the reconstruction's component along the planted direction is
above that of the unplanted text of the same activation. The *share carried* is the slope of a
line through the origin: lift over what was planted, Σ lift · planted / Σ planted².

A concept is carried unsaid where, in texts that do not name it, its share is above that of every
control. Controls are many directions, and the concept is one: its share is held against how
directions differ, as one more draw of them, not against their mean alone
(:mod:`nla_audit.probes.sensitivity.spread`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.probes.sensitivity.controls import CONCEPT, OTHER, RANDOM, VARIANCE
from nla_audit.probes.sensitivity.cube import Cube
from nla_audit.probes.sensitivity.spread import Spread
from nla_audit.stats import CONFIDENCE, Interval

Floats = NDArray[np.float64]

#: Level of each test of one model; a finding must pass all of them.
LEVEL = 1 - CONFIDENCE
#: Fewer directions of a control do not show how directions differ.
MIN_DIRECTIONS = 10
#: A smaller share of what was planted is not named, however significant.
MATERIAL = 0.05
#: A share carried unsaid that must not be possible, or not have been missed beyond the controls,
#: for "neither" to be said.
LARGE = 0.25
#: Quantile of the normal distribution for a power of 0.9, and limits of a 95 % interval.
_Z_POWER, _Z_LIMIT = 1.2816, 1.96


@dataclass(frozen=True)
class Carried:
    """What is carried by one model's texts.

    Attributes:
        unsaid, said: share of the planted concept that comes back from texts that do not name it,
            and that do.
        controls: kind → mean share of its directions (random ones), or how far the concept comes
            back where another was planted.
        p_values: control → probability of as large a share in texts that do not name the concept.
            ``"nothing"`` is the test that the share is 0.
        detectable: by how much the share must be above the random controls' mean to be found with
            a power of 0.9; NaN where there is no such control.
    """

    unsaid: Interval
    said: Interval
    controls: dict[str, float]
    p_values: dict[str, float]
    detectable: float

    @property
    def p_value(self) -> float:
        """Of the weakest test; NaN where a random control is missing or tells nothing."""
        needed = ("nothing", RANDOM, VARIANCE)
        if any(np.isnan(self.p_values.get(name, np.nan)) for name in needed):
            return np.nan
        return max(p for p in self.p_values.values() if not np.isnan(p))


def carried(cube: Cube) -> Carried:
    """The shares of one model, and the tests of what is carried unsaid."""
    own = _products(cube, CONCEPT, "component", said=False)
    unsaid = cube.resampler.ratio(*own)
    said = cube.resampler.ratio(*_products(cube, CONCEPT, "component", said=True))
    error = _error(unsaid)
    controls: dict[str, float] = {}
    p_values = {"nothing": _above(unsaid.value, error)}
    detectable = np.nan
    for kind in (RANDOM, VARIANCE):
        spread = _spread(cube, kind)
        if spread is None or np.isnan(error):
            p_values[kind] = np.nan
            continue
        controls[kind] = spread.mean
        p_values[kind] = spread.p_value(unsaid.value, error)
        reach = spread.detectable(error, LEVEL, _Z_POWER)
        detectable = float(np.nanmax([detectable, reach]))
    if OTHER in cube.kinds:
        crossed = _products(cube, OTHER, "concept_component", said=False)
        controls[OTHER] = cube.resampler.ratio(*crossed).value
        apart = cube.resampler.ratio_difference(*own, *crossed)
        p_values[OTHER] = _above(apart.value, _error(apart))
    return Carried(unsaid, said, controls, p_values, detectable)


def lift(cube: Cube, kind: str, name: str) -> Floats:
    """``[activations, strengths]`` of a component, less that of the unplanted text."""
    component = cube.of(kind, name)
    return np.asarray(component - component[:, :1])


def component_table(study: Mapping[str, Cube]) -> pl.DataFrame:
    """Share of what was planted that comes back, by kind, strength and whether it is named.

    ``cross`` is the concept's own component where something else was planted.
    """
    rows: list[dict[str, Any]] = []
    for model, cube in study.items():
        for kind in cube.kinds:
            said, planted = cube.of(kind, "said"), cube.of(kind, "planted")
            lifts, cross = lift(cube, kind, "component"), lift(cube, kind, "concept_component")
            for level, strength in enumerate(cube.strengths):
                if strength == 0:
                    continue
                for is_said, told in ((1.0, "named"), (0.0, "not named")):
                    here = said[:, level] == is_said
                    amount = np.where(here, planted[:, level], np.nan)
                    own = cube.resampler.ratio(lifts[:, level], amount)
                    crossed = cube.resampler.ratio(cross[:, level], amount)
                    rows.append(
                        {
                            "model": model,
                            "kind": kind,
                            "strength": float(strength),
                            "texts": told,
                            "of": f"{model}, {told}",
                            "n": own.n,
                            **own.entries("component_share"),
                            **crossed.entries("cross_share"),
                        }
                    )
    return pl.DataFrame(rows, infer_schema_length=None)


def fit_table(study: Mapping[str, Cube]) -> pl.DataFrame:
    """How well texts fit the planted activation, the unplanted one, and another planted alike."""
    rows: list[dict[str, Any]] = []
    for model, cube in study.items():
        for kind in cube.kinds:
            fits = {name: cube.of(kind, name) for name in ("fit", "fit_unplanted", "fit_elsewhere")}
            for level, strength in enumerate(cube.strengths):
                gain = (fits["fit"] - fits["fit_unplanted"])[:, level]
                means = {
                    name: cube.resampler.mean(values[:, level]).entries(name)[name]
                    for name, values in fits.items()
                }
                rows.append(
                    {
                        "model": model,
                        "kind": kind,
                        "strength": float(strength),
                        **means,
                        **cube.resampler.mean(gain).entries("gain"),
                    }
                )
    return pl.DataFrame(rows, infer_schema_length=None)


def presence_table(study: Mapping[str, Cube]) -> pl.DataFrame:
    """The concept planted where it is already present: the quarter with the largest projection."""
    rows: list[dict[str, Any]] = []
    for model, cube in study.items():
        before = cube.of(CONCEPT, "projection")[:, 0]
        if np.isnan(before).all():
            continue
        present = before >= np.nanquantile(before, 0.75)
        said = cube.of(CONCEPT, "said")
        top, bottom = _products(cube, CONCEPT, "component", said=False)
        for chosen, told in ((present, "present already"), (~present, "others")):
            planted = said[:, 1:]
            known = ~np.isnan(planted) & chosen[:, None]
            sums = np.where(known, planted, 0).sum(axis=1)
            rows.append(
                {
                    "model": model,
                    "activations": told,
                    "n": int(chosen.sum()),
                    "projection": _mean(before[chosen]),
                    **cube.resampler.share(np.where(chosen, said[:, 0], np.nan)).entries(
                        "named_unplanted"
                    ),
                    **cube.resampler.share_of(sums, known.sum(axis=1)).entries("named_planted"),
                    **cube.resampler.ratio(
                        np.where(chosen, top, 0.0), np.where(chosen, bottom, 0.0)
                    ).entries("carried_unsaid"),
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def _mean(values: Floats) -> float | None:
    """Of those that are known; ``None`` where none is, as where one activation is planted into."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _products(cube: Cube, kind: str, name: str, *, said: bool) -> tuple[Floats, Floats]:
    """``[activations]`` Σ lift · planted and Σ planted² over the texts that do (not) name it."""
    lifts, planted = lift(cube, kind, name), cube.of(kind, "planted")
    used = (cube.of(kind, "said") == float(said)) & ~np.isnan(lifts) & ~np.isnan(planted)
    used[:, 0] = False
    top = np.where(used, lifts * planted, 0.0).sum(axis=1)
    return top, np.where(used, planted**2, 0.0).sum(axis=1)


def _spread(cube: Cube, kind: str) -> Spread | None:
    """The shares of a control's directions, from texts that do not name the concept.

    ``None`` where they are too few.
    """
    if kind not in cube.kinds:
        return None
    top, bottom = _products(cube, kind, "component", said=False)
    names = cube.names(kind)
    known = np.array([name is not None for name in names], dtype=bool) & (bottom > 0)
    planted = names[known].astype(str)
    if len(np.unique(planted)) < MIN_DIRECTIONS:
        return None
    return Spread.of(top[known], bottom[known], planted)


def _error(interval: Interval) -> float:
    return (interval.high - interval.low) / (2 * _Z_LIMIT)


def _above(value: float, error: float) -> float:
    """One-sided probability of as large a value where the truth is 0; NaN where unknown."""
    from scipy.special import ndtr  # slow to import

    if np.isnan(value) or np.isnan(error):
        return np.nan
    if error == 0:
        return 0.0 if value > 0 else 1.0
    return float(ndtr(-value / error))
