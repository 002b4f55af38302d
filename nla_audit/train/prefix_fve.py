"""FVE by prefix of held-out explanations, in the long form that analyzers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.prefixes import prefixes_of
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.text.claims import split_claims
from nla_audit.train.dataset import Dataset

#: Beside the completions.
PREFIX_FILE = "prefix_fve.parquet"
#: Tokens that prefixes are read at, as far as the longest text goes, and that text itself.
_TOKENS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
#: No more claims or segments than so many.
_MOST_PIECES = 16


def prefix_fve(
    completions: pl.DataFrame, ruler: Reconstructor, dataset: Dataset, tokenizer: Any
) -> pl.DataFrame:
    """``model, idx, sample, unit, length, fve`` of the rows of ``completions``, a row a prefix.

    ``unit`` is ``tokens`` (of ``tokenizer``), ``claims`` or ``segments`` (of an AV that writes
    separators). A text that is no longer than a length counts there as a whole; one that failed is
    left out, and so is a prefix that the AR cannot read. FVE is against the raw variance of all
    held-out activations.
    """
    rows = completions.filter(pl.col("explanation").is_not_null())
    texts = rows["explanation"].to_list()
    place = {int(key): row for row, key in enumerate(dataset.idx)}
    vectors = dataset.activations[[place[key] for key in rows["idx"]]]
    baselines = measure_baselines(dataset.activations[dataset.held_out_rows()], ruler.mse_scale)
    pieces = []
    for unit, cut in _cuts(rows, texts, tokenizer):
        for length, prefixes in cut:
            fve = ruler.score(prefixes, vectors, baselines=baselines).fve
            pieces.append(
                rows.select("model", "idx", "sample").with_columns(
                    unit=pl.lit(unit),
                    length=pl.lit(length, dtype=pl.Int64),
                    fve=pl.Series(fve, dtype=pl.Float64),
                )
            )
    if not pieces:
        schema = {"model": pl.String, "idx": pl.Int64, "sample": pl.Int64, "unit": pl.String}
        return pl.DataFrame(schema={**schema, "length": pl.Int64, "fve": pl.Float64})
    return pl.concat(pieces).filter(pl.col("fve").is_not_nan(), pl.col("fve").is_not_null())


Cuts = list[tuple[int, list[str | None]]]


def _cuts(rows: pl.DataFrame, texts: list[str], tokenizer: Any) -> list[tuple[str, Cuts]]:
    whole = max((one.tokens for one in prefixes_of(tokenizer, texts, [])), default=0)
    lengths = [*(length for length in _TOKENS if length < whole), whole] if whole else []
    found = prefixes_of(tokenizer, texts, lengths)
    tokens: Cuts = [(n, [one.texts[k] for one in found]) for k, n in enumerate(lengths)]
    claims = [[claim.end for claim in split_claims(text)] for text in texts]
    segments: list[list[int] | None] = rows["segment_ends"].to_list()
    return [
        ("tokens", tokens),
        ("claims", _at_ends(texts, claims)),
        ("segments", _at_ends(texts, segments)),
    ]


def _at_ends(texts: list[str], ends: Sequence[Sequence[int] | None]) -> Cuts:
    """Texts up to their first, second, … end; ``None`` where a text has no such pieces at all."""
    most = min(_MOST_PIECES, max((len(some) for some in ends if some is not None), default=0))
    return [
        (
            number + 1,
            [
                None if some is None else text[: some[number]] if number < len(some) else text
                for text, some in zip(texts, ends, strict=True)
            ],
        )
        for number in range(most)
    ]


def sampled(completions: pl.DataFrame, ruler: str, activations: int) -> pl.DataFrame:
    """The rows by one ruler of at most so many activations, spread over all, the same of each."""
    own = completions.filter(pl.col("ar") == ruler)
    keys = own["idx"].unique().sort()
    if activations < len(keys):
        places = np.linspace(0, len(keys) - 1, activations).round().astype(np.int64)
        keys = keys.gather(places)
    return own.filter(pl.col("idx").is_in(keys.to_list()))
