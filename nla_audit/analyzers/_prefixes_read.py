"""``multiscale --pair``: the prefixes of a table's explanations, read by the pair's AR now."""

from __future__ import annotations

import numpy as np
import polars as pl

from nla_audit.analyzers._causal import CAUSAL_ACTIVATIONS, open_ruler
from nla_audit.completions import Completions
from nla_audit.prefix_table import PrefixTable, prefixes_from_frame
from nla_audit.wording import count


def prefixes_by_pair(
    completions: Completions, pair: str | None, activations: str | None
) -> PrefixTable:
    """FVE by prefix of at most :data:`CAUSAL_ACTIVATIONS` activations, as the AR reads them.

    Raises:
        UserError: as :func:`~nla_audit.analyzers._causal.open_ruler`.
    """
    ruler = open_ruler(completions, pair, activations)
    assert ruler is not None
    from nla_audit.nla.prefix_curves import cut_all  # noqa: PLC0415  (torch)

    every = np.array(sorted(ruler.vectors))
    step = max(1, -(-len(every) // CAUSAL_ACTIVATIONS))
    chosen = every[::step]
    rows = completions.rows.filter(pl.col("idx").is_in(chosen.tolist()))
    segments = rows["segment_ends"].to_list()
    units = ["tokens", "claims"]
    if any(ends is not None for ends in segments):
        units.append("segments")
    cuts = cut_all(
        ruler.scorer.tokenizer,  # type: ignore[attr-defined]  # a Reconstructor has one
        rows["explanation"].to_list(),
        segments,
        units=units,
    )
    of = cuts["row"].to_numpy()
    vectors = np.stack([ruler.vectors[idx] for idx in rows["idx"].to_list()])
    scores = ruler.scorer.score(cuts["text"].to_list(), vectors[of], baselines=ruler.baselines)
    keys = rows[of].select("model", "length_penalty", pl.col("idx").cast(pl.String), "sample")
    table = keys.with_columns(
        rows[of]["doc_id"],
        cuts["unit"], cuts["length"], cuts["tokens"], cuts["text_tokens"],
        cuts["broken_word"],
        fve=pl.Series(np.asarray(scores.fve), nan_to_null=True),
        fve_baseline=pl.lit("raw_variance"),
    )  # fmt: skip
    found = prefixes_from_frame(table, reference=completions.reference, name=str(pair))
    if len(chosen) == len(every):
        return found
    note = f"Prefixes of {count(len(chosen), 'activation')} of {len(every):,} were read."
    return PrefixTable(**{**vars(found), "notes": (*found.notes, note)})
