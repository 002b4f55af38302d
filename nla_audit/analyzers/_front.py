"""The Pareto front of a sweep and its knee, with ties called ties."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from nla_audit.stats import CONFIDENCE, MIN_CLUSTERS, REPLICATES
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import clusters, column, per_activation

#: Above this many clusters means are drawn from their normal distribution, which is then theirs
#: to within the bootstrap's own error, in the time of a few.
_LARGE = 5_000

_NOBODY_HAS = 1e9

KNEE = {
    "model": pl.String,
    "height_above_chord": pl.Float64,
    "height_above_chord_low": pl.Float64,
    "height_above_chord_high": pl.Float64,
    "behind_first": pl.Float64,
    "behind_first_low": pl.Float64,
    "behind_first_high": pl.Float64,
    "is_tied": pl.Boolean,
    "activations_to_tell": pl.Int64,
    "share_of_replicates": pl.Float64,
}


def common_means(completions: Completions) -> pl.DataFrame:
    """``model, idx, doc_id, n_tokens, fve`` on the activations that every model has an FVE for."""
    means = per_activation(completions, ["n_tokens", "fve"]).filter(
        pl.col("fve").is_not_null() & pl.col("n_tokens").is_not_null()
    )
    complete = (
        means.group_by("idx")
        .agg(pl.col("model").n_unique().alias("models"))
        .filter(pl.col("models") == len(completions.models))
    )
    return means.join(complete.select("idx"), on="idx", how="semi").sort("idx", "model")


def matrix(means: pl.DataFrame, name: str, models: tuple[str, ...]) -> np.ndarray:
    """`[activations, models]` of one column of :func:`common_means`."""
    # A model may be called as a column is, "idx" too.
    wide = means.select("model", at="idx", value=name).sort("at")
    return np.column_stack(
        [column(wide.filter(pl.col("model") == model), "value") for model in models]
    )


def front_and_knee(
    means: pl.DataFrame, models: tuple[str, ...], seed: int
) -> tuple[list[str], pl.DataFrame]:
    """Models that no other beats on both counts, and how far each lies above the front's chord.

    The knee is the model on the front that lies furthest above the straight line from its
    shortest to its longest member (Satopaa et al. 2011). One that lies no further below it than
    the bootstrap of the difference allows is tied with it (``is_tied``), and
    ``activations_to_tell`` is how many would tell the two apart if the difference is as seen.
    ``share_of_replicates`` says how often the bootstrap picks a model.
    """
    if means.height == 0:
        return [], pl.DataFrame(schema=KNEE)
    tokens, fve = matrix(means, "n_tokens", models), matrix(means, "fve", models)
    front = non_dominated(tokens.mean(axis=0), fve.mean(axis=0))
    on_front = [models[place] for place in front]
    heights = _heights(tokens.mean(axis=0)[None], fve.mean(axis=0)[None], front)[0]
    if len(heights) == 0:
        return on_front, pl.DataFrame(schema=KNEE)
    one_each = means.unique("idx", maintain_order=True).sort("idx")
    drawn = _drawn_heights(tokens, fve, front, clusters(one_each), seed)
    order = np.argsort(-heights, kind="stable")
    first = order[0]
    tail = (1 - CONFIDENCE) / 2
    rows = []
    for place in order:
        low, high = _limits(drawn[:, place], tail)
        behind = float(heights[first] - heights[place])
        behind_low, behind_high = _limits(drawn[:, first] - drawn[:, place], tail)
        is_tied = bool(place != first and not behind_low > 0)
        rows.append(
            {
                "model": on_front[1:-1][place],
                "height_above_chord": float(heights[place]),
                "height_above_chord_low": low,
                "height_above_chord_high": high,
                "behind_first": behind,
                "behind_first_low": None if place == first else behind_low,
                "behind_first_high": None if place == first else behind_high,
                "is_tied": is_tied,
                "activations_to_tell": (
                    activations_to_tell(len(tokens), (behind_high - behind_low) / 2, behind)
                    if is_tied
                    else None
                ),
                "share_of_replicates": float(np.mean(drawn.argmax(axis=1) == place)),
            }
        )
    return on_front, pl.DataFrame(rows, schema=KNEE).with_columns(pl.col(pl.Float64).fill_nan(None))


def activations_to_tell(n: int, reach: float, distance: float) -> int | None:
    """Activations whose interval reaches no further than ``distance``; now ``n`` reach ``reach``.

    An interval shrinks with the square root of their number. ``None`` where no number would do, or
    only one that nobody can have.
    """
    if distance <= 0 or not math.isfinite(reach):
        return None
    number = n * max(reach / distance, 1.0) ** 2
    return math.ceil(number) if number < _NOBODY_HAS else None


def non_dominated(tokens: np.ndarray, fve: np.ndarray) -> list[int]:
    """Positions of the models that none beats with fewer tokens, shortest first."""
    order = np.lexsort((-fve, tokens))
    front, best = [], -np.inf
    for place in order:
        if fve[place] > best:
            front.append(int(place))
            best = fve[place]
    return front


def _heights(tokens: np.ndarray, fve: np.ndarray, front: list[int]) -> np.ndarray:
    """Height above the chord in FVE, `[draws, inner members]`, from means `[draws, models]`.

    There are no inner members below three on the front.
    """
    if len(front) < 3:
        return np.zeros((len(tokens), 0))
    first, inner, last = front[0], front[1:-1], front[-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (fve[:, last] - fve[:, first]) / (tokens[:, last] - tokens[:, first])
    rise = slope[:, None] * (tokens[:, inner] - tokens[:, [first]])
    return np.asarray(fve[:, inner] - fve[:, [first]] - rise)


def _drawn_heights(
    tokens: np.ndarray, fve: np.ndarray, front: list[int], labels: np.ndarray, seed: int
) -> np.ndarray:
    """Heights in bootstrap replicates over clusters, `[replicates, inner members]`."""
    _, codes = np.unique(labels, return_inverse=True)
    n_clusters = int(codes.max()) + 1
    both = np.concatenate([tokens, fve, np.ones((len(tokens), 1))], axis=1)
    sums = np.zeros((n_clusters, both.shape[1]))
    np.add.at(sums, codes, both)
    if n_clusters < MIN_CLUSTERS:
        return np.full((1, len(front) - 2), np.nan)
    generator = np.random.default_rng([seed, 7])
    if n_clusters > _LARGE:
        spread = np.cov(sums.T) * n_clusters
        drawn = generator.multivariate_normal(sums.sum(axis=0), spread, REPLICATES)
    else:
        drawn = np.array(
            [
                np.bincount(generator.integers(0, n_clusters, n_clusters), minlength=n_clusters)
                @ sums
                for _ in range(REPLICATES)
            ]
        )
    means = drawn[:, :-1] / drawn[:, -1:]
    return _heights(means[:, : tokens.shape[1]], means[:, tokens.shape[1] :], front)


def _limits(draws: np.ndarray, tail: float) -> tuple[float, float]:
    finite = draws[np.isfinite(draws)]
    if len(finite) == 0:
        return math.nan, math.nan
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)
