"""How far each change kept the meaning, and what it costs where it kept all of it.

A change that is to keep the meaning and does so badly loses FVE for that reason. A line through
loss and change of meaning, text by text, tells the two apart: its value at no change is the cost
of form alone. The line is no better than the similarity it is drawn through, and so its interval
is widened by the reading's own error (:data:`SIMILARITY_ERROR`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.probes.stego.scores import (
    ANOTHER,
    MEANING,
    OWN,
    UNCHANGED,
    Scores,
    same_texts,
)
from nla_audit.probes.transforming.cards import TextTransform
from nla_audit.stats import Resampler, chance_corrected

Floats = NDArray[np.float64]

#: Texts below which no line is fitted through loss and change of meaning.
MIN_TEXTS_FOR_LINE = 30
#: Standard deviation taken for the similarity's own error, common to all texts. The built-in
#: reading of planted texts is right within 0.02 where claims are left out, and up to 0.07 too low
#: where every word is another (``tests/probes/stego/test_meaning.py``).
SIMILARITY_ERROR = 0.04
#: Mean change of meaning below which there is nothing to fit: what is lost is lost at no change.
NO_CHANGE = 0.01
#: Share of unfaithful texts from which a caveat names the change.
UNFAITHFUL = 0.1
#: Similarity by chance from which the similarity alone says little.
ALIKE = 0.5

#: Columns of :func:`loss_at_zero_change`.
LINE_SCHEMA = {
    "model": pl.String(),
    "variant": pl.String(),
    **dict.fromkeys(
        (
            "loss",
            "loss_low",
            "loss_high",
            "loss_per_change",
            "loss_per_change_low",
            "loss_per_change_high",
            "mean_loss",
            "mean_change",
        ),
        pl.Float64(),
    ),
    "n": pl.Int64(),
}


def meaning_of(scores: Scores, model: str, seed: int) -> dict[str, dict[str, float | None]]:
    """Means of the measures of kept meaning, by variant.

    ``meaning_similarity`` and ``unfaithful`` come with intervals; ``chance_similarity`` is that
    of texts beside another activation's explanation, ``meaning_kept`` the similarity corrected
    for it: 0 at chance, 1 where all is kept.
    """
    rows = _own(scores, model)
    present = [name for name in MEANING if name in rows.columns]
    if not present:
        return {}
    found: dict[str, dict[str, float | None]] = {}
    for name in sorted(rows["variant"].unique().to_list()):
        texts = rows.filter(pl.col("variant") == name)
        means = texts.select(pl.col(present).mean()).row(0, named=True)
        row: dict[str, float | None] = {}
        if "similarity" in present:
            row |= _interval(texts, "similarity", "meaning_similarity", scores, seed)
            del means["similarity"]
        if "chance_similarity" in present:
            row["chance_similarity"] = means.pop("chance_similarity")
            row["meaning_kept"] = _kept(row.get("meaning_similarity"), row["chance_similarity"])
        if "unfaithful" in present:
            row |= _interval(texts, "unfaithful", "unfaithful", scores, seed)
            del means["unfaithful"]
        found[name] = row | means
    return found


def meaning_caveats(
    measured: Mapping[str, Mapping[str, float | None]], cards: Mapping[str, TextTransform]
) -> list[str]:
    """What the numbers of :func:`meaning_of` warn of."""
    caveats = []
    lost = sorted(
        f"{name} ({share:.0%})"
        for name, row in measured.items()
        if name in cards
        and cards[name].group == "kept"
        and (share := row.get("unfaithful") or 0.0) >= UNFAITHFUL
    )
    if lost:
        caveats.append(
            "Meant to keep the meaning, and judged unfaithful in a share of their texts: "
            f"{', '.join(lost)}. What these cost is not the cost of form alone: see the loss at "
            "zero change of meaning."
        )
    chance = measured.get(UNCHANGED, {}).get("chance_similarity") or 0.0
    if chance >= ALIKE:
        caveats.append(
            f"The explanations of different activations are alike (similarity {chance:.2f} by "
            "chance): read meaning_kept, which is corrected for it, or give --similarity."
        )
    return caveats


def loss_at_zero_change(
    scores: Scores,
    model: str,
    cards: Mapping[str, TextTransform],
    *,
    similarity_error: float = SIMILARITY_ERROR,
) -> list[dict[str, Any]]:
    """For each change that keeps the meaning, the loss where it did: the cost of form alone.

    Of changed texts, over another activation's text, or over FVE 0 where none was read.

    Returns:
        ``model, variant``; ``loss`` (share of the reconstruction, at a similarity of 1) and
        ``loss_per_change`` (what is lost besides if the similarity falls to 0), with limits;
        ``mean_loss, mean_change, n``. The errors are those of a jackknife over activations (or
        documents), of the line and of the reconstruction that the loss is a share of; that of the
        loss is widened by what an error in the similarity would make of it.
    """
    if "similarity" not in scores.rows.columns or not scores.has_activations:
        return []
    rows = _own(scores, model)
    whole = _one_column(rows, UNCHANGED)
    if (rows["variant"] == ANOTHER).any():
        whole = whole.join(_one_column(rows, ANOTHER), on="idx")
    else:
        whole = whole.with_columns(pl.lit(0.0).alias(ANOTHER))
    whole = whole.drop_nulls()
    # What was not changed loses nothing, and would hide what the others lose.
    rows = rows.join(same_texts(scores, model), on=["variant", "idx"], how="anti")
    out = []
    for name in sorted(rows["variant"].unique().to_list()):
        if name not in cards or cards[name].group != "kept":
            continue
        texts = rows.filter(pl.col("variant") == name).join(whole, on="idx")
        texts = texts.drop_nulls(["fve", "similarity"])
        if texts.height < MIN_TEXTS_FOR_LINE:
            continue
        line = _fitted(
            1 - texts["similarity"].to_numpy(),
            (texts[UNCHANGED] - texts["fve"]).to_numpy(),
            (texts[UNCHANGED] - texts[ANOTHER]).to_numpy(),
            _clusters(texts),
            similarity_error,
        )
        if line is not None:
            out.append({"model": model, "variant": name, **line, "n": texts.height})
    return out


def _fitted(
    change: Floats,
    lost: Floats,
    span: Floats,
    clusters: NDArray[np.str_],
    similarity_error: float,
) -> dict[str, float | None] | None:
    """Least squares through ``lost`` and ``change``, as shares of the mean ``span``."""
    _, codes = np.unique(clusters, return_inverse=True)
    has_slope = bool(change.mean() >= NO_CHANGE and np.ptp(change) > 0)
    terms = np.column_stack([np.ones_like(change), change, change**2, lost, lost * change, span])
    sums = np.zeros((codes.max() + 1, terms.shape[1]))
    np.add.at(sums, codes, terms)
    total = sums.sum(axis=0)
    if total[5] <= 0:
        return None
    value = _line(total, has_slope=has_slope)
    # Leave one cluster out: the error of the line and of the span in one.
    left = np.array([_line(total - own, has_slope=has_slope) for own in sums])
    k = len(sums)
    error = np.sqrt((k - 1) / k * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
    error[0] = np.hypot(error[0], value[1] * similarity_error)
    limits = {
        name: {
            name: float(value[place]),
            f"{name}_low": float(value[place] - 1.96 * error[place]),
            f"{name}_high": float(value[place] + 1.96 * error[place]),
        }
        for place, name in enumerate(("loss", "loss_per_change"))
    }
    per_change = (
        limits["loss_per_change"] if has_slope else dict.fromkeys(limits["loss_per_change"])
    )
    return {
        **limits["loss"],
        **per_change,
        "mean_loss": float(lost.sum() / total[5]),
        "mean_change": float(change.mean()),
    }


def _line(sums: Floats, *, has_slope: bool) -> tuple[float, float]:
    """Intercept and slope over the mean span, from n, Σx, Σx², Σy, Σxy and Σspan."""
    n, x, xx, y, xy, span = sums
    if not has_slope:
        return y / span, 0.0
    slope = (n * xy - x * y) / (n * xx - x * x)
    return (y - slope * x) / span, slope * n / span


def _own(scores: Scores, model: str) -> pl.DataFrame:
    return scores.rows.filter(
        (pl.col("model") == model)
        & (pl.col("texts") == OWN)
        & (pl.col("ar") == scores.own_ars[model])
    )


def _one_column(rows: pl.DataFrame, variant: str) -> pl.DataFrame:
    chosen = rows.filter(pl.col("variant") == variant)
    return chosen.select("idx", pl.col("fve").alias(variant))


def _clusters(texts: pl.DataFrame) -> NDArray[np.str_]:
    known = texts["doc_id"].null_count() == 0
    return texts["doc_id" if known else "idx"].to_numpy().astype(str)


def _interval(
    texts: pl.DataFrame, column: str, name: str, scores: Scores, seed: int
) -> dict[str, float | None]:
    values = texts[column].fill_null(np.nan).to_numpy()
    if not scores.has_activations:
        known = values[~np.isnan(values)]
        return {name: float(known.mean()) if len(known) else None}
    entries = Resampler(_clusters(texts), seed=seed).mean(values).entries(name)
    # Rows of one headline share their columns, whether or not there is a number.
    return {key: entries.get(key) for key in (name, f"{name}_low", f"{name}_high")}


def _kept(similarity: float | None, chance: float | None) -> float | None:
    if similarity is None or chance is None:
        return None
    kept = float(chance_corrected(similarity, chance))
    return kept if np.isfinite(kept) else None
