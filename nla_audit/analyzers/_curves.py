"""FVE by prefix as curves: their mean, what is read off it, and its bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.prefix_table import PrefixTable
from nla_audit.stats import CONFIDENCE, Interval, Resampler

Floats = NDArray[np.float64]

#: A length belongs to the curve if it was read, or is beyond the end, of this share of the texts.
_READ_OF = 0.9
#: With fewer such lengths than this, every length that was read anywhere is taken.
_FEWEST = 3
#: FVE levels whose length is asked for, and the share of its own full FVE.
LEVELS = {"tokens_to_fve_0": 0.0, "tokens_to_fve_half": 0.5}
SHARE_OF_FULL = 0.8
TO_SHARE = "tokens_to_80_percent"
#: The numbers by which a curve is quoted.
HEADLINE = (
    *LEVELS, TO_SHARE, "area", "peak_fve", "peak_tokens", "full_fve", "full_tokens"
)  # fmt: skip
#: Parts in which the best length is chosen on the others.
_FOLDS = 5


@dataclass(frozen=True)
class Curve:
    """FVE by prefix of one model, in one unit.

    Attributes:
        lengths: ``[g]``, ascending; the last is that of the longest text.
        values: ``[a, g]`` FVE of the first ``lengths`` of an activation's text, of the whole text
            where that is shorter, the mean of its samples; NaN is not known. Means are one row.
        full: ``[a]`` FVE of the whole text.
        whole: ``[a]`` length of the whole text; of means, the mean length where the table has it.
        idx: ``[a]``, sorted; empty for means.
        clusters: ``[a]`` what is resampled: the document where it is known, else the activation.
        texts: explanations that were read.
        interpolated: values between two lengths at which the text was read.
        left_out: lengths that too few texts were read at.
    """

    model: str
    unit: str
    lengths: NDArray[np.int64]
    values: Floats
    full: Floats
    whole: Floats
    idx: tuple[str, ...]
    clusters: NDArray[np.object_]
    texts: int
    interpolated: int = 0
    left_out: int = 0

    @property
    def is_means(self) -> bool:
        """Whether only means over activations are known."""
        return not self.idx

    def mean(self) -> Floats:
        """``[g]`` mean over activations."""
        known = ~np.isnan(self.values)
        with np.errstate(invalid="ignore", divide="ignore"):
            sums = np.where(known, self.values, 0.0).sum(axis=0)
            return np.asarray(sums / known.sum(axis=0))

    def mean_length(self) -> float:
        """Mean length of a whole text; that of the longest where means do not say."""
        mean = float(np.nanmean(self.whole)) if np.isfinite(self.whole).any() else np.nan
        return float(self.lengths[-1]) if np.isnan(mean) else mean

    def only(self, idx: Sequence[str]) -> Curve:
        """The curve on some of its activations, in order."""
        wanted = set(idx)
        rows = [place for place, one in enumerate(self.idx) if one in wanted]
        return replace(
            self,
            values=self.values[rows],
            full=self.full[rows],
            whole=self.whole[rows],
            idx=tuple(self.idx[row] for row in rows),
            clusters=self.clusters[rows],
        )

    def resampler(self, seed: int) -> Resampler:
        """The bootstrap over its activations."""
        return Resampler(self.clusters, seed=seed)


def curves_of(table: PrefixTable, unit: str) -> dict[str, Curve]:
    """The curve of each model that has lengths in ``unit``, in the order of the models."""
    curves = {}
    for model in table.models:
        rows = table.rows.filter((pl.col("model") == model) & (pl.col("unit") == unit))
        if rows["fve"].null_count() == rows.height:
            continue
        curves[model] = (
            _of_means(rows, model, unit)
            if model in table.means
            else _of_activations(rows, model, unit)
        )
    return curves


def _of_means(rows: pl.DataFrame, model: str, unit: str) -> Curve:
    rows = rows.drop_nulls("fve").sort("length")
    lengths = rows["length"].to_numpy()
    at_full = rows["n_at_full"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    mean_length = np.nan
    if not np.isnan(at_full).any() and at_full[-1] > 0 and (np.diff(at_full) >= 0).all():
        mean_length = float((np.diff(at_full, prepend=0.0) * lengths).sum() / at_full[-1])
    values = rows["fve"].to_numpy()[None, :]
    texts = 0 if np.isnan(at_full[-1]) else int(at_full[-1])
    return Curve(
        model, unit, lengths, values, values[:, -1], np.array([mean_length]), (),
        np.array(["means"], dtype=object), texts,
    )  # fmt: skip


@dataclass(frozen=True)
class _Text:
    """One explanation: where it was read, FVE there, and whether the last is all of it."""

    idx: str
    cluster: str
    lengths: NDArray[np.int64]
    fve: Floats
    is_whole: bool


def _of_activations(rows: pl.DataFrame, model: str, unit: str) -> Curve:
    texts = _texts(rows)
    lengths, left_out = _grid(texts)
    by_idx: dict[str, list[tuple[Floats, float, float]]] = {}
    clusters: dict[str, str] = {}
    interpolated = 0
    for text in texts:
        values, between = _read_at(text, lengths)
        interpolated += between
        full = float(text.fve[-1]) if text.is_whole else np.nan
        by_idx.setdefault(text.idx, []).append((values, full, float(text.lengths[-1])))
        clusters[text.idx] = text.cluster
    idx = tuple(sorted(by_idx))
    return Curve(
        model,
        unit,
        lengths,
        np.stack([_mean_known([part[0] for part in by_idx[one]]) for one in idx]),
        np.array([_mean_known([np.array([part[1]]) for part in by_idx[one]])[0] for one in idx]),
        np.array([np.mean([part[2] for part in by_idx[one]]) for one in idx]),
        idx,
        np.array([clusters[one] for one in idx], dtype=object),
        len(texts),
        interpolated,
        left_out,
    )


def _texts(rows: pl.DataFrame) -> list[_Text]:
    by_document = rows["doc_id"].null_count() == 0
    grouped = rows.group_by("idx", "sample", maintain_order=True).agg(
        pl.col("doc_id").first(), "length", "fve", pl.col("text_tokens").max()
    )
    texts = []
    for idx, _, document, lengths, fve, text_tokens in grouped.iter_rows():
        places = np.array(lengths, dtype=np.int64)
        values = np.array([np.nan if value is None else value for value in fve])
        known = ~np.isnan(values)
        if not known.any():
            continue
        ends = rows["unit"][0] != "tokens" or text_tokens is None or places[-1] >= text_tokens
        texts.append(
            _Text(
                idx, document if by_document else idx, places[known], values[known],
                bool(ends and known[-1]),
            )
        )  # fmt: skip
    return texts


def _grid(texts: Sequence[_Text]) -> tuple[NDArray[np.int64], int]:
    """The lengths at which nearly every text was read or had ended, and how many others."""
    every = np.unique(np.concatenate([text.lengths for text in texts]))
    known = np.zeros(len(every))
    for text in texts:
        known[np.searchsorted(every, text.lengths)] += 1
        if text.is_whole:
            known[np.searchsorted(every, text.lengths[-1]) + 1 :] += 1
    grid = every[known >= _READ_OF * len(texts)]
    if len(grid) < min(_FEWEST, len(every)):
        grid = every
    return grid, len(every) - len(grid)


def _read_at(text: _Text, lengths: NDArray[np.int64]) -> tuple[Floats, int]:
    """FVE of a text at ``lengths``, and how many of them lie between two that were read."""
    values = np.interp(lengths, text.lengths, text.fve)
    values[lengths < text.lengths[0]] = np.nan
    if not text.is_whole:
        values[lengths > text.lengths[-1]] = np.nan
    inside = lengths[(lengths > text.lengths[0]) & (lengths < text.lengths[-1])]
    places = np.searchsorted(text.lengths, inside)
    return values, int((text.lengths[places] != inside).sum())


def _mean_known(several: Sequence[Floats]) -> Floats:
    if len(several) == 1:
        return several[0]
    stacked = np.stack(several)
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0))


# -- what is read off a curve -----------------------------------------------------------------


def read_off(
    lengths: NDArray[np.int64], curves: Floats, full: Floats, mean_length: Floats
) -> dict[str, Floats]:
    """The numbers of :data:`HEADLINE` for mean curves ``[r, g]``, ``[r]`` each.

    NaN is *there is none*, infinity is *never reached*.

    Args:
        full: ``[r]`` mean FVE of whole texts.
        mean_length: ``[r]`` their mean length.
    """
    found = {name: first_length(lengths, curves, level) for name, level in LEVELS.items()}
    positive = np.where(full > 0, full, np.nan)
    found[TO_SHARE] = np.where(
        np.isnan(positive), np.nan, first_length(lengths, curves, SHARE_OF_FULL * positive)
    )
    found["area"] = area(lengths, curves, positive, mean_length)
    known = np.where(np.isnan(curves), -np.inf, curves)
    best = known.argmax(axis=1)
    found["peak_fve"] = known[np.arange(len(best)), best]
    found["peak_tokens"] = lengths[best].astype(np.float64)
    found["full_fve"] = full
    found["full_tokens"] = np.full(len(curves), float(lengths[-1]))
    return found


def first_length(lengths: NDArray[np.int64], curves: Floats, level: float | Floats) -> Floats:
    """The first of ``lengths`` at which each curve ``[r, g]`` is at ``level``; infinity: never."""
    with np.errstate(invalid="ignore"):
        reached = curves >= np.broadcast_to(np.asarray(level), (len(curves),))[:, None]
    return np.where(reached.any(axis=1), lengths[reached.argmax(axis=1)], np.inf)


def area(lengths: NDArray[np.int64], curves: Floats, full: Floats, mean_length: Floats) -> Floats:
    """Share of the full FVE that is there already, averaged over the tokens of a text, ``[r]``.

    The mean over 0 … ``mean_length`` of the curve, cut off below 0 (where a reader does better to
    guess the mean) and above the full FVE, divided by the full FVE. 1: the first token says it
    all; 0.5: each token says as much as any other; 0: nothing before the end. It is between 0 and
    1 for any model, and as the axis is the model's own mean length, long and short ones compare.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(curves / full[:, None], 0.0, 1.0)
    places = lengths.astype(np.float64)
    if places[0] > 0:  # no text at all: the mean is guessed
        places = np.concatenate([[0.0], places])
        share = np.hstack([np.zeros((len(share), 1)), share])
    known = ~np.isnan(share).all(axis=0)
    places, share = places[known], share[:, known]
    if len(places) == 0:
        return np.full(len(curves), np.nan)
    steps = np.diff(places) * (share[:, 1:] + share[:, :-1]) / 2
    so_far = np.hstack([np.zeros((len(share), 1)), steps.cumsum(axis=1)])
    last = np.clip(np.searchsorted(places, mean_length, side="right") - 1, 0, len(places) - 1)
    row = np.arange(len(share))
    after = np.minimum(last + 1, len(places) - 1)
    width = np.where(after > last, places[after] - places[last], 1.0)
    rest = mean_length - places[last]
    slope = (share[row, after] - share[row, last]) / width
    total = so_far[row, last] + rest * (share[row, last] + slope * rest / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(mean_length > 0, total / mean_length, np.nan))


@dataclass(frozen=True)
class Numbers:
    """What is read off one curve.

    Attributes:
        values: the numbers of :data:`HEADLINE`; ``None`` is never reached, or there is none.
        limits: name → 95 % limits; ``None`` where there is no interval, or where it has no end.
        reached: name of a length → share of the bootstrap's curves that reach it.
        fve: interval of the mean at each length.
        draws: name → value in each replicate, to compare with another model's.
    """

    values: dict[str, float | None]
    limits: dict[str, tuple[float, float] | None]
    reached: dict[str, float]
    fve: list[Interval]
    draws: dict[str, Floats]


def numbers_of(curve: Curve, seed: int) -> Numbers:
    """Estimates and intervals; for means there are no intervals."""
    mean_length = np.array([curve.mean_length()])
    full = _mean_known(list(curve.full[:, None]))
    estimate = read_off(curve.lengths, curve.mean()[None, :], full, mean_length)
    values = {name: _finite(float(found[0])) for name, found in estimate.items()}
    mean = curve.mean()
    if curve.is_means:
        points = [Interval(float(value), np.nan, np.nan, curve.texts) for value in mean]
        return Numbers(values, dict.fromkeys(values), {}, points, {})
    draw = curve.resampler(seed)
    columns = np.column_stack([curve.values, curve.full, curve.whole])
    drawn = draw.mean_replicates(columns)
    points = []
    for place, value in enumerate(mean):
        low, high = _limits(drawn[:, place])
        known = int((~np.isnan(curve.values[:, place])).sum())
        points.append(Interval(float(value), low, high, known, len(curve.values) - known))
    if len(drawn) == 0:
        return Numbers(values, dict.fromkeys(values), {}, points, {})
    draws = read_off(curve.lengths, drawn[:, :-2], drawn[:, -2], drawn[:, -1])
    limits = {name: _ends(_limits(found)) for name, found in draws.items()}
    limits["full_tokens"] = None  # the longest text of a table: resampling knows no longer one
    limits["peak_tokens"] = _best_lengths(curve.lengths, mean, drawn[:, : len(mean)])
    limits["peak_fve"] = _peak_limits(draws["peak_fve"], values["peak_fve"])
    reached = {name: float(np.isfinite(draws[name]).mean()) for name in (*LEVELS, TO_SHARE)}
    return Numbers(values, limits, reached, points, draws)


def _peak_limits(draws: Floats, value: float | None) -> tuple[float, float] | None:
    """Limits of the best mean, without what choosing it adds.

    The best of many means is better than it should be, and the best of a replicate is better than
    that by as much again, which is how the excess is known.
    """
    ends = _ends(_limits(draws))
    if ends is None or value is None:
        return None
    excess = max(float(draws[np.isfinite(draws)].mean()) - value, 0.0)
    return ends[0] - 2 * excess, ends[1] - 2 * excess


def _best_lengths(
    lengths: NDArray[np.int64], mean: Floats, drawn: Floats
) -> tuple[float, float] | None:
    """The shortest and the longest of the lengths that may be the best.

    A curve is flat about its peak, where the best length of a replicate says little of how far
    the true one may lie. So each length is asked whether any other is better than chance allows:
    by how much the best of the near-best others leads it, against how much it would if all of
    them were as good (Andrews & Soares 2010, "Inference for parameters defined by moment
    inequalities").

    Args:
        mean: ``[g]``.
        drawn: ``[r, g]`` means in the replicates.
    """
    known = np.flatnonzero(~np.isnan(mean) & ~np.isnan(drawn).any(axis=0))
    if len(known) == 0:
        return None
    mean, error = mean[known], drawn[:, known] - mean[known]
    best = int(mean.argmax())
    behind = error - error[:, [best]]
    spread = behind.std(axis=0)
    near = mean[best] - mean <= np.sqrt(2 * np.log(len(drawn))) * spread
    level = error[:, near].max(axis=1)
    may_be = [
        place
        for place in np.flatnonzero(near)
        if mean[best] - mean[place] <= np.quantile(level - error[:, place], CONFIDENCE)
    ]
    return float(lengths[known[may_be[0]]]), float(lengths[known[may_be[-1]]])


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _limits(draws: Floats) -> tuple[float, float]:
    """The 95 % percentile limits, each one of the draws; infinity is among them, NaN is not."""
    known = np.sort(draws[~np.isnan(draws)])
    if len(known) == 0:
        return np.nan, np.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = int(np.floor(tail * (len(known) - 1))), int(np.ceil((1 - tail) * (len(known) - 1)))
    return float(known[low]), float(known[high])


def _ends(limits: tuple[float, float]) -> tuple[float, float] | None:
    return limits if np.isfinite(limits).all() else None


# -- where longer hurts -------------------------------------------------------------------------


def after_the_peak(curve: Curve, seed: int) -> tuple[Interval, Floats]:
    """FVE lost by reading on from the best length to the end, and by activation ``[a]``.

    The best length is chosen on other activations than those it is tried on (in five parts, by
    document where it is known): chosen on the same ones, any curve would fall behind its peak.
    Means are taken as they are.
    """
    if curve.is_means:
        loss = float(np.nanmax(curve.values) - curve.values[0, -1])
        return Interval(loss, np.nan, np.nan, curve.texts), np.array([])
    names, codes = np.unique(curve.clusters, return_inverse=True)
    part = np.random.default_rng([seed, 17]).permutation(len(names)) % _FOLDS
    fold = part[codes]
    lost = np.full(len(curve.values), np.nan)
    for number in range(_FOLDS):
        here = fold == number
        others = curve.values[~here]
        if not here.any() or len(others) == 0:
            continue
        known = ~np.isnan(others)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(known, others, 0.0).sum(axis=0) / known.sum(axis=0)
        if np.isnan(mean).all():
            continue
        best = int(np.nanargmax(mean))
        lost[here] = curve.values[here, best] - curve.full[here]
    return curve.resampler(seed).mean(lost), lost
