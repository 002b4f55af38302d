"""FVE by prefix of held-out explanations, in the long form that analyzers read."""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.nla.fve import measure_baselines
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.runs.prefix_curves import read_curves
from nla_audit.train.dataset import Dataset
from nla_audit.train.held_out import RULER

#: Beside the completions.
PREFIX_FILE = "prefix_fve.parquet"
#: Tokens that prefixes are read at, as far as a text goes; and that text itself.
_TOKENS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def prefix_fve(completions: pl.DataFrame, ruler: Reconstructor, dataset: Dataset) -> pl.DataFrame:
    """A row a prefix of the explanations of ``completions``, as ``score --prefixes`` writes it.

    ``unit`` is ``tokens`` (of the ruler), ``claims`` or, where an AV writes separators,
    ``segments``; a text that failed has no rows. FVE is against the raw variance of all held-out
    activations.

    Args:
        completions: by the ruler; see :func:`sampled`.
        ruler: the AR of the warm start.
    """
    units = ["tokens", "claims"]
    if completions["segment_ends"].null_count() < completions.height:
        units.append("segments")
    row_of = {int(key): row for row, key in enumerate(dataset.idx)}
    return read_curves(
        ruler,
        completions,
        dataset.activations,
        [row_of[key] for key in completions["idx"]],
        units=units,
        lengths=_TOKENS,
        ruler=RULER,
        baselines=measure_baselines(dataset.activations[dataset.held_out_rows()], ruler.mse_scale),
    )


def sampled(completions: pl.DataFrame, ruler: str, activations: int) -> pl.DataFrame:
    """The rows by one ruler of at most so many activations, spread over all, the same of each."""
    own = completions.filter(pl.col("ar") == ruler)
    keys = own["idx"].unique().sort()
    if activations < len(keys):
        places = np.linspace(0, len(keys) - 1, activations).round().astype(np.int64)
        keys = keys.gather(places)
    return own.filter(pl.col("idx").is_in(keys.to_list()))
