"""The AR that reads edited texts of a table, with the activations that they explain (``--pair``).

torch is imported when a pair is given, and not before: auditing a table needs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nla_audit.errors import UserError
from nla_audit.findings import Option
from nla_audit.table.completions import Completions

if TYPE_CHECKING:
    from nla_audit.nla.fve import Baselines
    from nla_audit.nla.reconstructor import Reconstructor
    from nla_audit.runs.activations import Activations

#: Of a larger table this many activations are edited and read again: each costs as many readings
#: as its explanations have claims.
CAUSAL_ACTIVATIONS = 300

PAIR_OPTIONS = (
    Option(
        "pair",
        str,
        None,
        "the pair (or its AR) that re-reads edited texts: a folder or owner/name on the Hub",
    ),
    Option("activations", str, None, "with --pair: Parquet file of the activations, joined by idx"),
)


@dataclass(frozen=True)
class Ruler:
    """An AR with the activations that it reads against.

    Attributes:
        scorer: the AR.
        vectors: the activation `[d_model]` of each ``idx`` of the table that has one.
        baselines: measured on all of ``activations``.
        activations: all of the file, explained or not, as the AR was trained to see them.
        rows: the row of ``activations`` of each ``idx`` in ``vectors``.
    """

    scorer: Reconstructor
    vectors: Mapping[int, NDArray[np.float32]]
    baselines: Baselines
    activations: Activations
    rows: Mapping[int, int]


def open_ruler(completions: Completions, pair: str | None, activations: str | None) -> Ruler | None:
    """Load the AR and join the activations to the table by ``idx``; ``None`` without a pair.

    Raises:
        UserError: one of the two is missing, or cannot be loaded, or they do not belong together.
    """
    if pair is None and activations is None:
        return None
    if pair is None or activations is None:
        raise UserError("--pair and --activations go together: give both, or neither")
    from nla_audit.checkpoint.fetch import local_folder
    from nla_audit.checkpoint.find_pair import find_pair, is_checkpoint
    from nla_audit.checkpoint.formats import recognise
    from nla_audit.checkpoint.load import load
    from nla_audit.nla.fve import measure_baselines
    from nla_audit.runs.activations import read_activations, rows_by_idx
    from nla_audit.runs.fit import fitted

    folder = local_folder(pair)
    is_ar = is_checkpoint(folder) and recognise(folder).role == "ar"
    scorer = load(ar=pair if is_ar else find_pair(pair).ar).reconstructor
    assert scorer is not None
    table = read_activations(activations)
    table = fitted(table, reconstructor=scorer)
    keys = completions.rows.select("idx", "activation_id").unique("idx").sort("idx")
    names = [text if text is not None else idx for idx, text in keys.iter_rows()]
    places = rows_by_idx(table, names)
    rows = {
        idx: place
        for idx, place in zip(keys["idx"], places, strict=True)
        if place is not None and place not in table.problems
    }
    if not rows:
        raise UserError(f"{activations}: holds no usable activation of this table's idx")
    vectors = {idx: table.vectors[place] for idx, place in rows.items()}
    baselines = measure_baselines(table.vectors, scorer.mse_scale)
    return Ruler(scorer, vectors, baselines, table, rows)
