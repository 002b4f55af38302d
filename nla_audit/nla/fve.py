"""MSE, cosine and fraction of variance explained, in float64.

Everything above the models goes through these few functions, so that a figure made by any
command means the same thing. No torch here: the analyzers use them too.

FVE = 1 − MSE / baseline. Two baselines are in use and they differ by about ten points
(docs/object.md), so both are computed and the one chosen is always named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from nla_audit.errors import UserError

BaselineName = Literal["raw_variance", "mean_normalized"]
BASELINE_NAMES: tuple[BaselineName, ...] = get_args(BaselineName)

Floats = npt.NDArray[np.float64]

#: Vectors that differ by less than this share of their norm do not differ: float32 tells a tenth
#: of it, and what an AR makes of any text is farther off by many times the baseline.
_NO_DIFFERENCE = 1e-6


@dataclass(frozen=True)
class Baselines:
    """MSE of predicting the mean, measured on a set of activations.

    Attributes:
        raw_variance: E‖v̂ − μ‖² / d, with μ the mean of the scaled vectors (the paper's).
        mean_normalized: the same with μ itself scaled like a prediction.
        activations: how many vectors they were measured on.
        mse_scale: the norm the vectors were scaled to (``None``: not scaled).
    """

    raw_variance: float
    mean_normalized: float
    activations: int
    mse_scale: float | None

    def of(self, name: BaselineName) -> float:
        """The baseline called ``name``."""
        return float(getattr(self, name))


def scaled(vectors: npt.ArrayLike, mse_scale: float | None) -> Floats:
    """Scale each of ``[n, d_model]`` to L2 norm ``mse_scale``; ``None`` leaves them as they are.

    A zero vector has no direction and stays zero.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if mse_scale is None:
        return rows
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows * (mse_scale / np.where(norms > 0, norms, 1.0))


def measure_baselines(activations: npt.ArrayLike, mse_scale: float | None) -> Baselines:
    """Both baselines over ``[n, d_model]`` activations.

    Raises:
        UserError: fewer than two vectors that are finite and not zero, or none that differ.
    """
    rows = np.asarray(activations, dtype=np.float64)
    rows = rows[np.array([reason is None for reason in unusable(rows)], dtype=bool)]
    if len(rows) < 2:
        raise UserError(
            f"a baseline needs at least two usable activations, found {len(rows)}; "
            "give more, or pass the baseline's value"
        )
    targets = scaled(rows, mse_scale)
    mean = targets.mean(axis=0, keepdims=True)
    raw_variance = float(np.mean((targets - mean) ** 2))
    if raw_variance <= _NO_DIFFERENCE**2 * float(np.mean(targets**2)):
        alike = "do not differ" if mse_scale is None else "do not differ in direction"
        raise UserError(
            f"the {len(rows):,} usable activations {alike}: there is no variance to explain, and "
            "no FVE; extract them of several texts, or pass the baseline's value"
        )
    return Baselines(
        raw_variance=raw_variance,
        mean_normalized=float(np.mean((targets - scaled(mean, mse_scale)) ** 2)),
        activations=len(rows),
        mse_scale=mse_scale,
    )


def baselines_with(
    given: Mapping[BaselineName, float], activations: npt.ArrayLike, mse_scale: float | None
) -> Baselines:
    """Both baselines, the ``given`` ones as they are and the others measured.

    Args:
        given: values from elsewhere, e.g. of the training set.
        activations: ``[n, d_model]``.

    Raises:
        UserError: a given value is not positive; or as :func:`measure_baselines`.
    """
    for name, value in given.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"baseline {name}: must be a positive number, is {value:g}")
    if all(name in given for name in BASELINE_NAMES):
        return Baselines(given["raw_variance"], given["mean_normalized"], 0, mse_scale)
    measured = measure_baselines(activations, mse_scale)
    return replace(
        measured,
        raw_variance=given.get("raw_variance", measured.raw_variance),
        mean_normalized=given.get("mean_normalized", measured.mean_normalized),
    )


def squared_error(
    predictions: npt.ArrayLike, targets: npt.ArrayLike, mse_scale: float | None
) -> tuple[Floats, Floats]:
    """MSE and cosine of each prediction with its target.

    Args:
        predictions: ``[n, d_model]``.
        targets: ``[n, d_model]``.
        mse_scale: norm that both are scaled to first. At √d_model, MSE = 2(1 − cos).

    Returns:
        ``(mse [n], cosine [n])``, NaN in rows where either vector is zero or not finite.
    """
    predicted = np.asarray(predictions, dtype=np.float64)
    wanted = np.asarray(targets, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mse = np.mean((scaled(predicted, mse_scale) - scaled(wanted, mse_scale)) ** 2, axis=-1)
        cosine = np.sum(scaled(predicted, 1.0) * scaled(wanted, 1.0), axis=-1)
    bad = [
        left is not None or right is not None
        for left, right in zip(unusable(predicted), unusable(wanted), strict=True)
    ]
    mse[bad] = np.nan
    cosine[bad] = np.nan
    return mse, cosine


def fraction_of_variance_explained(mse: npt.ArrayLike, baseline: float) -> Floats:
    """1 − MSE / baseline for ``[n]`` MSEs; NaN where the MSE is."""
    return np.asarray(1.0 - np.asarray(mse, dtype=np.float64) / baseline)


def unusable(vectors: npt.NDArray[Any]) -> list[str | None]:
    """Why each of ``[n, d_model]`` vectors has no direction, or ``None`` where it has one."""
    finite = np.isfinite(vectors).all(axis=-1)
    nonzero = (vectors != 0).any(axis=-1)
    return [
        "not finite" if not is_finite else "zero vector" if not is_nonzero else None
        for is_finite, is_nonzero in zip(finite, nonzero, strict=True)
    ]
