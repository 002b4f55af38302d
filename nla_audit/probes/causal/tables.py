"""Causal answers: what claims are worth to the AR, and which edit costs the FVE.

torch is imported when a pair is given, and not before: auditing a table needs no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.errors import UserError
from nla_audit.probes.causal.ruler import CAUSAL_ACTIVATIONS, Ruler
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler
from nla_audit.text.pairs import RESAMPLING_FLOOR, TextPair, text_pairs
from nla_audit.text.reading import Reading
from nla_audit.text.segmentation import Segmentation


def _chosen_pairs(completions: Completions, ruler: Ruler, seed: int) -> dict[str, list[TextPair]]:
    """Pairs with a known activation, by model, of at most :data:`CAUSAL_ACTIVATIONS`."""
    every = np.array(sorted(ruler.vectors))
    if len(every) > CAUSAL_ACTIVATIONS:
        generator = np.random.default_rng([seed, 8])
        every = np.sort(generator.choice(every, CAUSAL_ACTIVATIONS, replace=False))
    rows = completions.rows.filter(pl.col("idx").is_in(every.tolist()))
    by_model: dict[str, list[TextPair]] = {}
    for pair in text_pairs(rows, completions.reference):
        if pair.model != RESAMPLING_FLOOR:
            by_model.setdefault(pair.model, []).append(pair)
    return by_model


def _stacked(ruler: Ruler, pairs: Sequence[TextPair]) -> NDArray[np.float32]:
    return np.stack([ruler.vectors[pair.idx] for pair in pairs])


def _explanations(completions: Completions) -> dict[tuple[str, int, int], str]:
    with_text = completions.rows.filter(pl.col("explanation").is_not_null())
    columns = with_text.select("model", "idx", "sample", "explanation")
    return {(model, idx, sample): text for model, idx, sample, text in columns.iter_rows()}


def claim_worth_tables(
    completions: Completions, reading: Reading, ruler: Ruler, seed: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the reference's claims are worth to the AR, and whether cheap ones go first.

    Returns:
        ``kind, claims, worth`` and ``elsewhere`` (the same deletion read against another
        activation) in FVE points with intervals; and per model ``cheap_first``, how often a
        dropped claim was worth less than a kept one of the same explanation (0.5: at random).
    """
    from nla_audit.probes.causal.worth import cheap_first, claim_worth

    by_model = _chosen_pairs(completions, ruler, seed)
    texts = _explanations(completions)
    references = {
        (pair.idx, pair.reference_sample): pair for pairs in by_model.values() for pair in pairs
    }
    keys = sorted(references)
    if not keys:
        raise UserError("--activations: no activation of an explanation by the reference in it")
    worth = claim_worth(
        ruler.scorer,
        [texts[completions.reference, idx, sample] for idx, sample in keys],
        _stacked(ruler, [references[key] for key in keys]),
        baselines=ruler.baselines,
        groups=[idx for idx, _ in keys],
        seed=seed,
    ).with_columns(
        idx=pl.col("row").map_elements(lambda row: keys[row][0], return_dtype=pl.Int64),
        reference_sample=pl.col("row").map_elements(
            lambda row: keys[row][1], return_dtype=pl.Int64
        ),
    )
    kinds = []
    for (kind,), rows in sorted(worth.group_by("kind", maintain_order=True)):
        draw = resampler(rows, seed)
        kinds.append(
            {
                "kind": kind,
                "claims": rows.height,
                **draw.mean(100 * column(rows, "worth")).entries("worth"),
                **draw.mean(100 * column(rows, "worth_elsewhere")).entries("elsewhere"),
            }
        )
    first = []
    for model in completions.models:
        fates = [
            {
                "idx": pair.idx,
                "reference_sample": pair.reference_sample,
                "claim": number,
                "sample": pair.sample,
                "kept": float(kept),
            }
            for pair, segmentation in _segmented(reading, model, by_model.get(model, []))
            for number, kept in enumerate(segmentation.kept)
        ]
        if not fates:
            continue
        rows = pl.DataFrame(fates).join(worth, on=["idx", "reference_sample", "claim"])
        rows = rows.sort("idx", "sample", "claim")
        of = rows.select(pl.struct("idx", "sample").rank("dense"))["idx"].to_numpy()
        share = cheap_first(
            column(rows, "worth"), column(rows, "kept"), of, rows["idx"].to_numpy(), seed=seed
        )
        first.append({"model": model, **share.entries("cheap_first")})
    return (
        pl.DataFrame(kinds, infer_schema_length=None).sort("worth", descending=True),
        pl.DataFrame(first, schema=dict.fromkeys(_CHEAP, pl.Float64) | {"model": pl.String}),
    )


_CHEAP = ("model", "cheap_first", "cheap_first_low", "cheap_first_high")


def _segmented(
    reading: Reading, model: str, pairs: Sequence[TextPair]
) -> list[tuple[TextPair, Segmentation]]:
    return list(zip(pairs, reading.reader.segment(model, pairs), strict=True))


def fve_parts(
    completions: Completions, reading: Reading, ruler: Ruler, seed: int
) -> dict[str, dict[str, float | None]]:
    """Each model's FVE change, split exactly between omission, rewording and additions.

    Returns:
        model → ``fve_change_reread`` and ``fve_by_omission``, ``fve_by_rewording``,
        ``fve_by_additions``, which sum to it, with intervals.
    """
    from nla_audit.probes.causal.counterfactual import PARTS, difference_from, split_change

    by_model = _chosen_pairs(completions, ruler, seed)
    texts = _explanations(completions)
    found: dict[str, dict[str, float | None]] = {}
    for model in completions.models:
        segmented = _segmented(reading, model, by_model.get(model, []))
        if not segmented:
            continue
        split = split_change(
            ruler.scorer,
            [
                texts[completions.reference, pair.idx, pair.reference_sample]
                for pair, _ in segmented
            ],
            [texts[model, pair.idx, pair.sample] for pair, _ in segmented],
            [
                difference_from(
                    [(claim.start, claim.end) for claim in pair.reference.claims],
                    _segments(pair, segmentation),
                )
                for pair, segmentation in segmented
            ],
            _stacked(ruler, [pair for pair, _ in segmented]),
            baselines=ruler.baselines,
        ).with_columns(idx=pl.Series([pair.idx for pair, _ in segmented]))
        draw = resampler(split, seed)
        found[model] = draw.mean(column(split, "change")).entries("fve_change_reread")
        for part in PARTS:
            found[model] |= draw.mean(column(split, part)).entries(f"fve_by_{part}")
    return found


def _segments(pair: TextPair, segmentation: Segmentation) -> list[tuple[str, int | None]]:
    """Each claim of the other explanation with the claim of the reference that it says again."""
    supported = segmentation.supported(len(pair.other.claims))
    pieces: list[tuple[str, int | None]] = []
    for number, claim in enumerate(pair.other.claims):
        said = segmentation.units[segmentation.owners == number].sum(axis=0)
        again = int(said.argmax()) if len(said) and supported[number] >= 0.5 else None
        pieces.append((claim.text, again))
    return pieces
