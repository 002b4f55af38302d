"""What activations go through before a pair that was trained on centred or whitened ones sees them.

Its parameters are read by :mod:`nla_audit.checkpoint.read_transform`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ActivationTransform:
    """A transform with its parameters; two are equal if they do the same.

    Attributes:
        name: as the sidecar writes it.
        sha256: of the parameters.
        mean: ``[d_model]``.
        matrix: ``[d_model, d_model]``, symmetric; ``None`` for centring.
        path: where the parameters come from.
    """

    name: str = field(compare=False)
    sha256: str
    mean: Vectors = field(compare=False, repr=False)
    matrix: Vectors | None = field(compare=False, repr=False)
    path: Path = field(compare=False)

    def apply(self, vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Raw ``[n, d_model]`` as the pair was trained to see them."""
        rows = np.asarray(vectors, dtype=np.float64) - self.mean
        if self.matrix is not None:
            rows = rows @ self.matrix
        return rows.astype(np.float32)

    def undo(self, vectors: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """``[n, d_model]`` as the pair was trained to see them, back in the residual stream."""
        rows: Vectors = np.asarray(vectors, dtype=np.float64)
        if self.matrix is not None:
            rows = np.linalg.solve(self.matrix, rows.T).T.astype(np.float64)  # it is symmetric
        return (rows + self.mean).astype(np.float32)

    def describe(self) -> str:
        """In words, for people."""
        what = "centred" if self.matrix is None else "centred and whitened"
        return f"{self.name}: raw ones are {what} with {self.path}"
