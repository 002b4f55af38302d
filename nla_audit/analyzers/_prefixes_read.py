"""``multiscale --pair``: the prefixes of a table's explanations, read by the pair's AR now."""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.analyzers._causal import CAUSAL_ACTIVATIONS, open_ruler
from nla_audit.completions import Completions
from nla_audit.prefix_table import PrefixTable, prefixes_from_frame
from nla_audit.schema import count


def prefixes_by_pair(
    completions: Completions, pair: str | None, activations: str | None
) -> PrefixTable:
    """FVE by prefix of at most :data:`CAUSAL_ACTIVATIONS` activations, as the AR reads them.

    Raises:
        UserError: as :func:`~nla_audit.analyzers._causal.open_ruler`.
    """
    ruler = open_ruler(completions, pair, activations)
    assert ruler is not None
    from nla_audit.nla.prefix_curves import read_curves  # noqa: PLC0415  (torch)

    every = np.array(sorted(ruler.vectors))
    step = max(1, -(-len(every) // CAUSAL_ACTIVATIONS))
    chosen = every[::step]
    rows = completions.rows.filter(pl.col("idx").is_in(chosen.tolist()))
    units = ["tokens", "claims"]
    if rows["segment_ends"].null_count() < rows.height:
        units.append("segments")
    table = read_curves(
        ruler.scorer,
        rows.with_columns(pl.col("idx").cast(pl.String)),
        np.stack([ruler.vectors[idx] for idx in rows["idx"].to_list()]),
        np.arange(rows.height),
        units=units,
        ruler=None,
        baselines=ruler.baselines,
    )
    found = prefixes_from_frame(table, reference=completions.reference, name=str(pair))
    if len(chosen) == len(every):
        return found
    note = f"Prefixes of {count(len(chosen), 'activation')} of {len(every):,} were read."
    return PrefixTable(**{**vars(found), "notes": (*found.notes, note)})
