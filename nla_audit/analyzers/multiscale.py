"""How much do the first tokens of an explanation carry, and where does more of it hurt?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from nla_audit.analyzers._causal import PAIR_OPTIONS
from nla_audit.analyzers._curves import (
    HEADLINE,
    LEVELS,
    TO_SHARE,
    Curve,
    Numbers,
    after_the_peak,
    curves_of,
    numbers_of,
)
from nla_audit.analyzers._multiscale_verdict import reading_on, verdict
from nla_audit.analyzers._prefix_texts import broken_words, kinds_first, natural_prefixes
from nla_audit.analyzers.frontier import MARGIN
from nla_audit.completions import Completions
from nla_audit.errors import UserError
from nla_audit.findings import Figure, Finding, Headline, Option, analyzer
from nla_audit.pairing import column, resampler
from nla_audit.prefix_table import (
    UNITS,
    PrefixTable,
    is_prefix_table,
    read_prefixes,
)
from nla_audit.readers import column_names
from nla_audit.stats import CONFIDENCE, Interval, Resampler

QUESTION = "How much do the first tokens of an explanation carry, and where does more of it hurt?"
TOKENS = "tokens"
_BY_PREFIX = {
    "model": pl.String, "unit": pl.String, "length": pl.Int64, "fve": pl.Float64,
    "fve_low": pl.Float64, "fve_high": pl.Float64, "activations": pl.Int64,
}  # fmt: skip
_CHANGES = {
    "model": pl.String, "length": pl.Int64, "fve_change": pl.Float64,
    "fve_change_low": pl.Float64, "fve_change_high": pl.Float64, "activations": pl.Int64,
}  # fmt: skip


def other_table(arguments: Mapping[str, Any]) -> PrefixTable | None:
    """The tables named on a command line, where they hold FVE by prefix; else ``None``."""
    kinds = {is_prefix_table(names) for names in column_names(arguments["tables"])}
    if kinds == {True, False}:
        raise UserError(
            f"{arguments['tables'][0]}: some of these tables hold completions and some FVE by "
            "prefix: give the completions, and the other with --prefixes"
        )
    if kinds != {True}:
        return None
    names = [name.strip() for name in (arguments["models"] or "").split(",") if name.strip()]
    return read_prefixes(
        arguments["tables"], reference=arguments["reference"], ar=arguments["ar"], models=names
    )


@analyzer(
    name="multiscale",
    question=QUESTION,
    reads=("model", "idx", "explanation"),
    uses={
        "fve": "FVE of whole texts is not known, where no table of prefixes is given",
        "doc_id": "intervals resample activations instead of documents",
    },
    unit="activation (samples of one activation are averaged first)",
    control="the reference model's text of the same activation, at the same length",
    high_means="area near 1: nearly all of the FVE is there after the first tokens; "
    "lost_after_peak above 0: the model writes on where it no longer helps",
    example="nla-audit multiscale prefix_fve.parquet",
    order=15,
    door=other_table,
    options=(
        Option(
            "prefixes", str, None,
            "table of FVE by prefix (model, idx, sample, unit, length, fve) of these completions, "
            "as `score --prefixes` writes it; such a table can also be TABLE itself",
        ),
        *PAIR_OPTIONS,
        Option(
            "margin", float, MARGIN,
            "a loss of FVE up to this is as good as none",
        ),
    ),
)  # fmt: skip
def multiscale(
    table: Completions | PrefixTable,
    *,
    prefixes: str | None = None,
    pair: str | None = None,
    activations: str | None = None,
    margin: float = MARGIN,
    seed: int = 0,
) -> Finding:
    """Curves of FVE by prefix, what is read off them, and what texts say first.

    Args:
        table: completions, or FVE by prefix, of which means alone are enough.
        prefixes: FVE by prefix of the completions.
        pair: AR that reads prefixes of the completions now.
        activations: with ``pair``: what they explain.
        margin: FVE that is as good as none.
        seed: of the intervals.

    Raises:
        UserError: ``margin`` is not above 0, or the options do not fit the table.
    """
    if not 0 < margin < float("inf"):
        raise UserError(f"--margin {margin:g}: give the FVE that may be lost, a number above 0")
    curves = _table_of(table, prefixes, pair, activations)
    completions = table if isinstance(table, Completions) else None
    models = curves.models if curves is not None else table.models
    reference = table.reference
    in_tokens = {} if curves is None else curves_of(curves, TOKENS)
    studies = {model: _studied(curve, seed) for model, curve in in_tokens.items()}
    headline: Headline = {}
    for model in models:
        summary = _summary(studies.get(model))
        if completions is not None and model in completions.models:
            summary = _whole_texts(completions, model, seed, summary)
        headline[model] = summary
    changes = []
    if reference in studies:
        plain = studies[reference]
        for model, study in studies.items():
            if model != reference:
                headline[model] |= _against(study, plain, seed)
                changes += _changes(study.curve, plain.curve, seed)
    by_prefix = _by_prefix(curves, studies, seed)
    tables = {
        "models": pl.DataFrame(
            [
                {"model": model, "reading_on": reading_on(summary, margin), **summary}
                for model, summary in headline.items()
            ],
            infer_schema_length=None,
        ),
        "fve_by_tokens": by_prefix.filter(pl.col("unit") == TOKENS).drop("unit"),
        "fve_by_other_units": by_prefix.filter(pl.col("unit") != TOKENS),
        "other_units": _other_units(curves, seed),
        "changes_by_prefix": pl.DataFrame(changes, schema=_CHANGES),
        "broken_words": broken_words(completions, curves, seed),
    }
    if completions is not None:
        tables["kinds_by_place"] = kinds_first(completions, seed)
        tables["natural_prefixes"] = natural_prefixes(completions, seed)
    return Finding(
        analyzer="multiscale",
        question=QUESTION,
        reference=reference,
        headline=headline,
        verdict=verdict(headline, reference, margin),
        caveats=_caveats(table, curves, studies),
        tables=tables,
        figures=_figures(completions is not None),
        parameters={
            "seed": seed, "margin": margin, "prefixes": prefixes, "pair": pair,
            "activations": activations,
        },
    )  # fmt: skip


def _table_of(
    table: Completions | PrefixTable, prefixes: str | None, pair: str | None, vectors: str | None
) -> PrefixTable | None:
    if isinstance(table, PrefixTable):
        given = [name for name, value in (("prefixes", prefixes), ("pair", pair)) if value]
        if given:
            raise UserError(
                f"--{given[0]} goes with a table of completions; {table.sources[0].path} holds FVE "
                "by prefix already"
            )
        return table
    if prefixes is not None and pair is not None:
        raise UserError("--prefixes and --pair: give one of them, each says FVE by prefix")
    if prefixes is not None:
        # A table that names no AR, as training writes it, is by one only.
        names_ars = any("ar" in names for names in column_names([prefixes]))
        return read_prefixes(
            [prefixes],
            reference=table.reference,
            ar=table.ar if names_ars else None,
            models=table.models,
        )
    if pair is None and vectors is None:
        return None
    from nla_audit.analyzers._prefixes_read import prefixes_by_pair  # noqa: PLC0415

    return prefixes_by_pair(table, pair, vectors)


@dataclass(frozen=True)
class _Study:
    """One model's curve in tokens, its numbers, and what reading on from its peak costs."""

    curve: Curve
    numbers: Numbers
    lost: Interval
    lost_each: np.ndarray


def _studied(curve: Curve, seed: int) -> _Study:
    return _Study(curve, numbers_of(curve, seed), *after_the_peak(curve, seed))


def _summary(study: _Study | None) -> dict[str, float | None]:
    """The headline's row; all of it null where there is no curve in tokens."""
    summary: dict[str, float | None] = {}
    for name in HEADLINE:
        ends = None if study is None else study.numbers.limits.get(name)
        summary[name] = None if study is None else study.numbers.values[name]
        summary[f"{name}_low"], summary[f"{name}_high"] = ends or (None, None)
        if summary[name] is None:
            summary[f"{name}_low"] = summary[f"{name}_high"] = None
    unknown = Interval(np.nan, np.nan, np.nan, 0)
    if study is None:
        return (
            summary
            | {"n": None, "is_means": None, "mean_full_tokens": None}
            | unknown.entries("lost_after_peak")
        )
    curve, each = study.curve, study.lost_each
    summary["n"] = None if curve.is_means else float(len(curve.idx))
    summary["is_means"] = float(curve.is_means)
    has_length = np.isfinite(curve.whole).any()
    summary["mean_full_tokens"] = curve.mean_length() if has_length else None
    summary |= study.lost.entries("lost_after_peak")
    if len(each):
        draw = Resampler(curve.clusters)
        known = ~np.isnan(each)
        worse, better = (np.where(known, mask, np.nan) for mask in (each > 0, each < 0))
        summary |= draw.share(worse).entries("longer_hurts_share")
        summary |= draw.share(better).entries("longer_helps_share")
    return summary


def _whole_texts(
    completions: Completions, model: str, seed: int, summary: dict[str, float | None]
) -> dict[str, float | None]:
    """``summary`` with the FVE of whole texts from the completions, where no curve says it."""
    rows = completions.of(model)
    if summary["full_fve"] is not None:
        return summary
    return summary | resampler(rows, seed).mean(column(rows, "fve")).entries("full_fve")


def _against(own: _Study, other: _Study, seed: int) -> dict[str, float | None]:
    """Area and full FVE less the reference's: paired by activation where both have them."""
    values, reference = own.numbers.values, other.numbers.values
    found: dict[str, float | None] = {}
    paired = _common(own.curve, other.curve)
    for name, change in (("area", "area_change"), ("full_fve", "full_fve_change")):
        first, second = values[name], reference[name]
        known = first is not None and second is not None
        found[change] = first - second if first is not None and second is not None else None
        found[f"{change}_low"] = found[f"{change}_high"] = None
        if not known or paired is None:
            continue
        curves = paired
        numbers = [numbers_of(curve, seed) for curve in curves]
        one, two = (number.values[name] for number in numbers)
        found[change] = one - two if one is not None and two is not None else None
        draws = [number.draws.get(name) for number in numbers]
        if found[change] is None or draws[0] is None or draws[1] is None:
            continue
        difference = draws[0] - draws[1]
        difference = difference[np.isfinite(difference)]
        tail = (1 - CONFIDENCE) / 2
        if len(difference):
            low, high = np.quantile(difference, [tail, 1 - tail])
            found[f"{change}_low"], found[f"{change}_high"] = float(low), float(high)
    return found


def _common(own: Curve, other: Curve) -> tuple[Curve, Curve] | None:
    """Both curves on the activations that both have; ``None`` for means, or without any.

    On the same activations the bootstrap draws the same ones for both, which pairs them.
    """
    shared = sorted(set(own.idx) & set(other.idx))
    if own.is_means or other.is_means or not shared:
        return None
    return own.only(shared), other.only(shared)


def _changes(own: Curve, other: Curve, seed: int) -> list[dict[str, Any]]:
    """FVE less the reference's at each length that both curves have, within activations."""
    lengths = np.intersect1d(own.lengths, other.lengths)
    paired = _common(own, other)
    if paired is None:
        if not (own.is_means and other.is_means):
            return []
        means = [curve.mean()[np.searchsorted(curve.lengths, lengths)] for curve in (own, other)]
        return [
            {"model": own.model, "length": int(length), "fve_change": float(one - two)}
            for length, one, two in zip(lengths, *means, strict=True)
        ]
    draw = paired[0].resampler(seed)
    rows = []
    for length in lengths:
        here = [curve.values[:, np.searchsorted(curve.lengths, length)] for curve in paired]
        change = draw.mean(here[0] - here[1])
        rows.append(
            {
                "model": own.model,
                "length": int(length),
                **change.entries("fve_change"),
                "activations": change.n,
            }
        )
    return rows


def _by_prefix(
    curves: PrefixTable | None, studies: Mapping[str, _Study], seed: int
) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for unit in UNITS if curves is not None else ():
        found = (
            {model: (study.curve, study.numbers.fve) for model, study in studies.items()}
            if unit == TOKENS
            else {
                model: (curve, numbers_of(curve, seed).fve)
                for model, curve in curves_of(curves, unit).items()
            }
            if curves is not None
            else {}
        )
        for model, (curve, points) in found.items():
            rows += [
                {
                    "model": model,
                    "unit": unit,
                    "length": int(length),
                    **point.entries("fve"),
                    "activations": None if curve.is_means else point.n,
                }
                for length, point in zip(curve.lengths, points, strict=True)
            ]
    return pl.DataFrame(rows, schema=_BY_PREFIX)


def _other_units(curves: PrefixTable | None, seed: int) -> pl.DataFrame:
    """What the headline says in tokens, in the other units that the table has."""
    names = {
        "to_fve_0": "tokens_to_fve_0", "to_fve_half": "tokens_to_fve_half",
        "to_80_percent": TO_SHARE, "area": "area", "peak_fve": "peak_fve",
        "peak_length": "peak_tokens", "full_fve": "full_fve", "full_length": "full_tokens",
    }  # fmt: skip
    rows = [
        {"model": model, "unit": unit}
        | {name: numbers_of(curve, seed).values[key] for name, key in names.items()}
        for unit in UNITS[1:]
        if curves is not None
        for model, curve in curves_of(curves, unit).items()
    ]
    schema = {"model": pl.String, "unit": pl.String} | dict.fromkeys(names, pl.Float64)
    return pl.DataFrame(rows, schema=schema)


def _caveats(
    table: Completions | PrefixTable,
    curves: PrefixTable | None,
    studies: Mapping[str, _Study],
) -> list[str]:
    caveats = list(table.notes)
    if curves is None:
        caveats.append(
            "The table has no FVE by prefix, so that only texts are judged here: give --pair and "
            "--activations, or the table that `nla-audit score --prefixes` writes."
        )
    elif curves is not table:
        caveats += curves.notes
    if curves is not None:
        named = curves.fve_baseline or "not named in the table"
        caveats.append(
            f"FVE is by one ruler ({curves.ar or 'not named in the table'}), its baseline "
            f"{named}; two are in use that differ by about 10 points."
        )
    means = [model for model, study in studies.items() if study.curve.is_means]
    if means:
        caveats.append(
            f"Means alone, so that no interval is possible and nothing is paired: "
            f"{', '.join(means)}. Whether they differ cannot be told."
        )
    for model, study in studies.items():
        caveats += _of_curve(model, study)
    return caveats


def _of_curve(model: str, study: _Study) -> list[str]:
    curve, caveats = study.curve, []
    if curve.is_means and np.isnan(curve.whole).all():
        caveats.append(
            f"{model}: the mean length of its texts is not known; its area is over that of the "
            "longest, which flatters it."
        )
    gaps = np.diff(curve.lengths)
    if len(gaps) and gaps.max() > 1:
        caveats.append(
            f"{model}: read at {len(curve.lengths)} lengths of 1 to {curve.lengths[-1]} tokens; a "
            "number of tokens is the first of these at which the level is reached."
        )
    if curve.left_out:
        caveats.append(
            f"{model}: {curve.left_out} lengths at which few texts were read are not in its curve."
        )
    if curve.interpolated:
        caveats.append(
            f"{model}: {curve.interpolated} values lie between two lengths at which the text was "
            "read, and are interpolated."
        )
    unread = int(np.isnan(curve.full).sum())
    if unread and not curve.is_means:
        caveats.append(f"{model}: {unread} activations whose whole text was not read.")
    for name in (*LEVELS, TO_SHARE):
        share = study.numbers.reached.get(name, 1.0)
        if 0 < share < 1 and study.numbers.limits.get(name) is None:
            caveats.append(
                f"{model}: {name} is reached in {share:.0%} of the bootstrap's curves, so that "
                "its interval has no end."
            )
    return caveats


def _figures(has_texts: bool) -> list[Figure]:
    figures = [
        Figure(
            "curves", "FVE by prefix", "line", "fve_by_tokens", x="length", y="fve",
            x_label="first tokens of the explanation", y_label="mean FVE", low="fve_low",
            high="fve_high", group="model", log_x=True,
            caption="Mean FVE of the first tokens of explanations (the whole of those that are "
            "shorter), with 95 % intervals over activations.",
        ),
        Figure(
            "changes", "FVE by prefix against the reference", "line", "changes_by_prefix",
            x="length", y="fve_change", x_label="first tokens of the explanation",
            y_label="FVE change against the reference", low="fve_change_low",
            high="fve_change_high", group="model", log_x=True,
            caption="Difference from the reference's text of the same activation, at the same "
            "number of tokens.",
        ),
    ]  # fmt: skip
    if has_texts:
        figures.append(
            Figure(
                "places", "What is said first", "bar", "kinds_by_place", x="kind", y="place",
                x_label="kind of claim", y_label="mean place (0 first, 1 last)", low="place_low",
                high="place_high", group="model",
                caption="Mean place of a kind of claim in explanations with several claims.",
            )
        )  # fmt: skip
    return figures
