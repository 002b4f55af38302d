"""Where ``multiscale`` gets FVE by prefix from: the tables named, ``--prefixes``, or ``--pair``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from nla_audit.errors import UserError
from nla_audit.probes.causal.ruler import CAUSAL_ACTIVATIONS, Ruler
from nla_audit.probes.transforming.cards import transforms
from nla_audit.probes.transforming.run import apply_transform
from nla_audit.table.completions import Completions
from nla_audit.table.pairing import thinned
from nla_audit.table.prefix_table import (
    PrefixTable,
    is_prefix_table,
    prefixes_from_frame,
    read_prefixes,
)
from nla_audit.table.readers import column_names
from nla_audit.table.schema import column_key
from nla_audit.wording import count


def prefixes_named(
    paths: Sequence[str], *, reference: str | None, ar: str | None, models: Sequence[str]
) -> PrefixTable | None:
    """The tables at ``paths``, where they hold FVE by prefix; else ``None``.

    Args and errors as for :func:`~nla_audit.table.prefix_table.read_prefixes`; tables of both kinds
    are an error too.
    """
    kinds = {is_prefix_table(names) for names in column_names(paths)}
    if kinds == {True, False}:
        raise UserError(
            f"{paths[0]}: some of these tables hold completions and some FVE by prefix: give the "
            "completions, and the other with --prefixes"
        )
    if kinds != {True}:
        return None
    return read_prefixes(paths, reference=reference, ar=ar, models=models)


def prefixes_of_table(
    table: Completions | PrefixTable,
    prefixes: str | None,
    ruler: Ruler | None,
) -> PrefixTable | None:
    """FVE by prefix of the models of ``table``; ``None`` where nothing says it.

    Args:
        prefixes: where it is written.
        ruler: what reads it now, where it is not.

    Raises:
        UserError: the prefixes cannot be read, or are not of this table's models.
    """
    if isinstance(table, PrefixTable):
        return table
    if prefixes is None:
        return None if ruler is None else _by_ruler(table, ruler)
    # A table that names no AR, as training writes it, is by one only.
    names_ars = any("ar" in map(column_key, names) for names in column_names([prefixes]))
    return read_prefixes(
        [prefixes],
        reference=table.reference,
        ar=table.ar if names_ars else None,
        models=[model for model in table.models if _says_anything(table, model)],
    )


def _says_anything(table: Completions, model: str) -> bool:
    """Whether a model has a text; one whose explanations all failed has no prefixes either."""
    texts = table.of(model)["explanation"]
    return texts.null_count() < len(texts)


def in_random_order(completions: Completions, ruler: Ruler, seed: int) -> PrefixTable:
    """FVE by claim of the same explanations with their claims in random order."""
    rows = _chosen_rows(completions, ruler)
    own, idx = rows["explanation"].to_list(), rows["idx"].to_list()
    texts = apply_transform(transforms()["shuffle_claims"], own, idx, seed=seed)
    rows = rows.with_columns(explanation=pl.Series(texts, dtype=pl.String))
    return _read(rows, ruler, ["claims"], completions.reference)


def _by_ruler(completions: Completions, ruler: Ruler) -> PrefixTable:
    """FVE by prefix of at most :data:`CAUSAL_ACTIVATIONS` activations, as the AR reads them now."""
    rows = _chosen_rows(completions, ruler)
    units = ["tokens", "claims"]
    if rows["segment_ends"].null_count() < rows.height:
        units.append("segments")
    found = _read(rows, ruler, units, completions.reference)
    chosen, every = rows["idx"].n_unique(), len(ruler.vectors)
    if chosen == every:
        return found
    note = f"Prefixes of {count(chosen, 'activation')} of {every:,} were read."
    return replace(found, notes=(*found.notes, note))


def _chosen_rows(completions: Completions, ruler: Ruler) -> pl.DataFrame:
    chosen = thinned(pl.Series(sorted(ruler.vectors)), CAUSAL_ACTIVATIONS)
    return completions.rows.filter(pl.col("idx").is_in(chosen.to_list()))


def _read(rows: pl.DataFrame, ruler: Ruler, units: Sequence[str], reference: str) -> PrefixTable:
    from nla_audit.runs.prefix_curves import read_curves  # torch

    table = read_curves(
        ruler.scorer,
        rows.with_columns(pl.col("idx").cast(pl.String)),
        np.stack([ruler.vectors[idx] for idx in rows["idx"].to_list()]),
        np.arange(rows.height),
        units=units,
        ruler=None,
        baselines=ruler.baselines,
    )
    return prefixes_from_frame(table, reference=reference, name="--pair")
