"""FVE by prefix in tables: by unit, and what the headline says in tokens in the other units."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from nla_audit.analyzers._curve_numbers import TO_SHARE
from nla_audit.analyzers._curve_studies import Row, Study
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import column, resampler

#: The unit of the headline.
TOKENS = "tokens"
_BY_PREFIX = {
    "model": pl.String,
    "unit": pl.String,
    "length": pl.Int64,
    "fve": pl.Float64,
    "fve_low": pl.Float64,
    "fve_high": pl.Float64,
    "activations": pl.Int64,
}


def with_whole_texts(completions: Completions, model: str, seed: int, summary: Row) -> Row:
    """``summary`` with the FVE of whole texts from the completions, where no curve says it."""
    rows = completions.of(model)
    if summary["full_fve"] is not None:
        return summary
    return summary | resampler(rows, seed).mean(column(rows, "fve")).entries("full_fve")


def fve_by_prefix(by_unit: Mapping[str, Mapping[str, Study]]) -> pl.DataFrame:
    """The curves: a row for each model, unit and length."""
    rows = [
        {
            "model": model,
            "unit": unit,
            "length": int(length),
            **point.entries("fve"),
            "activations": None if study.curve.is_means else point.n,
        }
        for unit, studies in by_unit.items()
        for model, study in studies.items()
        for length, point in zip(study.curve.lengths, study.numbers.fve, strict=True)
    ]
    return pl.DataFrame(rows, schema=_BY_PREFIX)


def in_other_units(by_unit: Mapping[str, Mapping[str, Study]]) -> pl.DataFrame:
    """What the headline says in tokens, in the other units that the table has."""
    names = {
        "to_fve_0": "tokens_to_fve_0",
        "to_fve_half": "tokens_to_fve_half",
        "to_80_percent": TO_SHARE,
        "area": "area",
        "peak_fve": "peak_fve",
        "peak_length": "peak_tokens",
        "full_fve": "full_fve",
        "full_length": "full_tokens",
    }
    rows = [
        {"model": model, "unit": unit}
        | {name: study.numbers.values[key] for name, key in names.items()}
        for unit, studies in by_unit.items()
        if unit != TOKENS
        for model, study in studies.items()
    ]
    schema = {"model": pl.String, "unit": pl.String} | dict.fromkeys(names, pl.Float64)
    return pl.DataFrame(rows, schema=schema)
