"""Where ``multiscale`` gets FVE by prefix from: the tables named, ``--prefixes``, or ``--pair``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from nla_audit.completions import Completions
from nla_audit.errors import UserError
from nla_audit.prefix_table import (
    PrefixTable,
    is_prefix_table,
    prefixes_from_frame,
    read_prefixes,
)
from nla_audit.probes.causal.ruler import CAUSAL_ACTIVATIONS, open_ruler
from nla_audit.readers import column_names
from nla_audit.schema import column_key
from nla_audit.wording import count


def prefixes_named(
    paths: Sequence[str], *, reference: str | None, ar: str | None, models: Sequence[str]
) -> PrefixTable | None:
    """The tables at ``paths``, where they hold FVE by prefix; else ``None``.

    Args and errors as for :func:`~nla_audit.prefix_table.read_prefixes`; tables of both kinds are
    an error too.
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
    pair: str | None,
    activations: str | None,
) -> PrefixTable | None:
    """FVE by prefix of the models of ``table``; ``None`` where nothing says it.

    Raises:
        UserError: the options do not fit the table or each other, or what they name cannot be
            read.
    """
    if isinstance(table, PrefixTable):
        given = [name for name, value in (("prefixes", prefixes), ("pair", pair)) if value]
        if given:
            raise UserError(
                f"--{given[0]} goes with a table of completions; {table.sources[0].path} holds FVE "
                "by prefix already"
            )
        return table
    if prefixes is None:
        return _by_pair(table, pair, activations)
    if pair is not None:
        raise UserError("--prefixes and --pair: give one of them, each says FVE by prefix")
    # A table that names no AR, as training writes it, is by one only.
    names_ars = any("ar" in map(column_key, names) for names in column_names([prefixes]))
    return read_prefixes(
        [prefixes],
        reference=table.reference,
        ar=table.ar if names_ars else None,
        models=table.models,
    )


def _by_pair(
    completions: Completions, pair: str | None, activations: str | None
) -> PrefixTable | None:
    """FVE by prefix of at most :data:`CAUSAL_ACTIVATIONS` activations, as the AR reads them now."""
    ruler = open_ruler(completions, pair, activations)
    if ruler is None:
        return None
    from nla_audit.runs.prefix_curves import read_curves  # noqa: PLC0415  (torch)

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
    return replace(found, notes=(*found.notes, note))
