"""What an AR makes of every explanation of a table, beside the activations that they explain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.errors import UserError
from nla_audit.probes.causal.ruler import Ruler, open_ruler
from nla_audit.stats import Floats, derangement
from nla_audit.table.completions import Completions


@dataclass(frozen=True)
class Reconstructions:
    """Explanations that were read, a row each, on the scale on which the AR is judged.

    Attributes:
        keys: ``model, idx, sample, doc_id, position, source_text``; the last three from the
            activations where the completions lack them.
        raw: `[n, d_model]`, as the AR gives them.
        rows: `[n]`, the row of each one's activation among the ruler's.
        ruler: the AR and all activations.
        unread: explanations that are not among the rows: failed, too long, or without activation.
    """

    keys: pl.DataFrame
    raw: NDArray[np.float32]
    rows: NDArray[np.int64]
    ruler: Ruler
    unread: int

    @cached_property
    def predicted(self) -> Floats:
        """`[n, d_model]`, scaled like the targets."""
        from nla_audit.nla.fve import scaled

        return scaled(self.raw, self.ruler.scorer.mse_scale)

    @cached_property
    def vectors(self) -> Floats:
        """All usable activations of the file, scaled; unusable ones are NaN. `[m, d_model]`."""
        from nla_audit.nla.fve import scaled

        every = scaled(self.ruler.activations.vectors, self.ruler.scorer.mse_scale)
        every[list(self.ruler.activations.problems)] = np.nan
        return every

    @cached_property
    def mean(self) -> Floats:
        """`[d_model]`, of all usable activations, scaled."""
        return np.asarray(np.nanmean(self.vectors, axis=0))

    @property
    def targets(self) -> Floats:
        """`[n, d_model]`, scaled."""
        return np.asarray(self.vectors[self.rows])

    @cached_property
    def documents(self) -> NDArray[np.int64]:
        """`[m]`: a number for each activation's document; its own where it is not known."""
        names = self.ruler.activations.keys["doc_id"]
        own = pl.Series([f"\0{row}" for row in range(len(names))])
        labels = pl.select(pl.coalesce(names, own)).to_series()
        return np.unique(labels.to_numpy(), return_inverse=True)[1].astype(np.int64)

    def elsewhere(self, seed: int) -> NDArray[np.int64]:
        """`[n]`: for each row another row, of the same model and of another document.

        A row that has none has −1; what has no document is one of its own.
        """
        alone = pl.concat_str(pl.lit("\0"), "idx")
        documents = self.keys.select(pl.coalesce("doc_id", alone)).to_series().to_numpy()
        partner = np.full(len(self.rows), -1, dtype=np.int64)
        for number, model in enumerate(self.keys["model"].unique(maintain_order=True)):
            own = np.flatnonzero((self.keys["model"] == model).to_numpy())
            found = derangement(documents[own], seed + number)
            partner[own] = np.where(found >= 0, own[found], -1)
        return partner

    def control(self, seed: int, *, for_: str) -> NDArray[np.int64]:
        """:meth:`elsewhere`, for questions that have no answer without it.

        Raises:
            UserError: all explanations of every model are of one document.
        """
        partner = self.elsewhere(seed)
        if (partner < 0).all():
            raise UserError(
                f"{for_}: each model explains one document only, and the control is another's "
                "explanation: give explanations of several"
            )
        return partner


def reconstructions(
    completions: Completions, pair: str | None, activations: str | None, *, for_: str
) -> Reconstructions:
    """Read every explanation that has an activation.

    Raises:
        UserError: no pair, halves that do not belong together, or no explanation to read.
    """
    ruler = open_ruler(completions, pair, activations)
    if ruler is None:
        raise UserError(f"{for_} needs an AR: give --pair PAIR and --activations FILE")
    known = completions.rows.filter(
        pl.col("explanation").is_not_null() & pl.col("idx").is_in(list(ruler.rows))
    )
    raw = ruler.scorer.reconstruct(known["explanation"].to_list())
    usable = np.isfinite(raw).all(axis=1) & (raw != 0).any(axis=1)
    if not usable.any():
        raise UserError(f"{for_}: the AR reads none of the explanations that have an activation")
    kept = known.filter(pl.Series(usable))
    rows = np.array([ruler.rows[idx] for idx in kept["idx"]], dtype=np.int64)
    of_file = ruler.activations.keys[rows]
    shared = ("doc_id", "position", "source_text")
    keys = kept.select(
        "model", "idx", "sample", *(pl.coalesce(pl.col(name), of_file[name]) for name in shared)
    )
    return Reconstructions(keys, raw[usable], rows, ruler, completions.rows.height - kept.height)
