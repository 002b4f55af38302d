"""What is planted: a direction of activation space, from a file or from contrasted texts.

All directions here are unit vectors in the space that the pair reads, which is the residual
stream but for pairs of centred or whitened activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nla_audit.errors import UserError, first_line
from nla_audit.nla.fve import scaled, unusable
from nla_audit.wording import count

if TYPE_CHECKING:
    from nla_audit.nla.transform import ActivationTransform

Floats = NDArray[np.float64]

#: A difference of means of fewer pairs is mostly what these texts happen to be about.
MIN_PAIRS = 10
#: Above this probability of as many by chance, held-out pairs are not told apart.
_BY_CHANCE = 0.05
#: A direction as near to the mean activation as this is no concept: it is in every activation
#: already, and planting it moves an activation hardly at all.
MOST_LIKE_THE_MEAN = 0.95
#: Columns of a Parquet file that hold a direction, in the order in which they are looked for.
_COLUMNS = ("direction", "weight", "activation_vector", "vector")


@dataclass(frozen=True)
class Direction:
    """A unit vector with its name.

    Attributes:
        name: what tables call it.
        vector: ``[d_model]`` of length 1.
        source: where it comes from, in words.
        pairs: contrasted pairs of texts it was made from; 0 for one from a file.
        held_out: share of the pairs whose text with the concept projects higher on the direction
            made without that pair; NaN for one from a file. Half is chance.
    """

    name: str
    vector: Floats
    source: str
    pairs: int = 0
    held_out: float = np.nan

    def turned(self, vector: Floats) -> Direction:
        """The same direction as another space has it.

        Raises:
            UserError: it has none there.
        """
        return replace(self, vector=unit(vector, name=self.name, width=len(vector)))

    def notes(self) -> list[str]:
        """What is to be known of it, in sentences."""
        if self.pairs == 0:
            return [f"{self.name}: a direction from {self.source}."]
        from scipy.stats import binomtest  # slow to import

        right = round(self.held_out * self.pairs)
        told = f"{self.name}: {self.source}; it tells {right} of {self.pairs} held-out pairs apart"
        by_chance = binomtest(right, self.pairs, alternative="greater").pvalue
        if by_chance > _BY_CHANCE:
            return [f"{told}, which may be chance: it may be no direction of the concept."]
        return [f"{told}."]


def unit(vector: Floats, *, name: str, width: int) -> Floats:
    """``vector`` at length 1.

    Raises:
        UserError: not finite, of length zero, or not ``width`` wide.
    """
    if vector.shape != (width,):
        raise UserError(
            f"{name}: the direction has shape {list(vector.shape)}, the activations are {width} "
            "wide: give one of the same model and layer"
        )
    reason = unusable(vector[None].astype(np.float64))[0]
    if reason is not None:
        said = "of length zero" if reason == "zero vector" else reason
        raise UserError(f"{name}: the direction is {said}: it points nowhere; give another")
    return np.asarray(scaled(vector[None].astype(np.float64), 1.0)[0])


def check_apart(direction: Direction, mean: Floats) -> float:
    """The cosine of a direction with the mean activation ``[d_model]``.

    Raises:
        UserError: they are (nearly) the same.
    """
    length = float(np.linalg.norm(mean))
    cosine = float(direction.vector @ mean) / length if length > 0 else 0.0
    if abs(cosine) >= MOST_LIKE_THE_MEAN:
        raise UserError(
            f"{direction.name}: the direction is (nearly) that of the mean activation (cosine "
            f"{cosine:.3f}), which every activation has: give a difference of means instead"
        )
    return cosine


def from_pairs(name: str, with_it: Floats, without: Floats) -> Direction:
    """The difference of means over contrasted texts.

    Activations enter at length 1, as a pair reads their directions only and a long one would
    otherwise weigh more.

    Args:
        name: of the concept.
        with_it: ``[pairs, d_model]`` activations of the texts with the concept.
        without: ``[pairs, d_model]`` of those without it, in the same order.

    Raises:
        UserError: too few pairs, an activation that is zero or not finite, or no difference.
    """
    pairs = len(with_it)
    if pairs < MIN_PAIRS:
        raise UserError(
            f"{name}: {count(pairs, 'pair')} of texts are too few for a direction, which would be "
            f"what they happen to be about: give {MIN_PAIRS} or more"
        )
    for side in (with_it, without):
        bad = next((row for row, why in enumerate(unusable(side)) if why is not None), None)
        if bad is not None:
            raise UserError(f"{name}: pair {bad}: its activation is zero or not finite")
    apart = scaled(with_it, 1.0) - scaled(without, 1.0)
    mean = apart.mean(axis=0)
    # Without pair i the mean is (n · mean − difference i) / (n − 1), of which only the sign counts.
    others = pairs * mean - apart
    higher = (others * apart).sum(axis=1) > 0
    return Direction(
        name,
        unit(mean, name=name, width=with_it.shape[1]),
        f"difference of means over {count(pairs, 'pair')} of texts",
        pairs,
        float(higher.mean()),
    )


def from_file(reference: str, width: int, *, name: str | None = None) -> Direction:
    """A direction from ``FILE`` or ``FILE:ROW``.

    ``FILE`` is ``.npy``, ``.safetensors`` or ``.parquet``; ``ROW`` the number of a row, or the
    name of a tensor.

    Raises:
        UserError: no such file, row or tensor, or it is no direction of this width.
    """
    path, row = _split(reference)
    if not path.is_file():
        raise UserError(f"--direction {reference}: no such file")
    readers = {".npy": _of_npy, ".safetensors": _of_safetensors, ".parquet": _of_parquet}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise UserError(f"--direction {reference}: give a file that ends in {', '.join(readers)}")
    vector = read(path, row)
    called = name or (path.stem if row is None else f"{path.stem}:{row}")
    return Direction(called, unit(vector, name=str(reference), width=width), str(reference))


def in_the_pairs_space(vector: Floats, transform: ActivationTransform | None) -> Floats:
    """A direction ``[d_model]`` of the residual stream as the pair sees it: a shift has none."""
    if transform is None or transform.matrix is None:
        return vector
    return np.asarray(vector @ transform.matrix)


def _split(reference: str) -> tuple[Path, str | None]:
    """``"w.npy:3"`` as path and row; a file's name may hold a colon."""
    if Path(reference).is_file():
        return Path(reference), None
    path, colon, row = reference.rpartition(":")
    return (Path(path), row) if colon and Path(path).is_file() else (Path(reference), None)


def _of_npy(path: Path, row: str | None) -> Floats:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError):  # NumPy's own message would have it unpickled
        raise UserError(
            f"{path}: not a NumPy array of numbers: write one with numpy.save"
        ) from None
    return _row_of(array, path, row)


def _of_safetensors(path: Path, row: str | None) -> Floats:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file  # keeps --help fast

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{path}: not a safetensors file ({first_line(error)})") from None
    if row is not None and row in tensors:
        return _row_of(tensors[row], path, None)
    if len(tensors) != 1:
        raise UserError(
            f"{path}: holds the tensors {', '.join(sorted(tensors)[:8])}: name one as {path}:TENSOR"
        )
    return _row_of(next(iter(tensors.values())), path, row)


def _of_parquet(path: Path, row: str | None) -> Floats:
    try:
        frame = pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a whole Parquet file ({first_line(error)})") from None
    lists = [name for name, kind in frame.schema.items() if isinstance(kind, pl.List | pl.Array)]
    column = next((name for name in _COLUMNS if name in lists), lists[0] if lists else None)
    if column is None:
        raise UserError(f"{path}: no column holds vectors: name one {_COLUMNS[0]}")
    place = _number(path, row, frame.height)
    values = frame[column][place]
    return np.asarray([] if values is None else values.to_list(), dtype=np.float64)


def _row_of(array: NDArray[Any], path: Path, row: str | None) -> Floats:
    """One vector of ``[d_model]`` or ``[rows, d_model]``."""
    is_real = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if not is_real or array.ndim not in (1, 2):
        raise UserError(
            f"{path}: holds no vector of real numbers, nor rows of them (shape "
            f"{list(array.shape)}, {array.dtype})"
        )
    if array.ndim == 1:
        return array.astype(np.float64)
    return array[_number(path, row, len(array))].astype(np.float64)


def _number(path: Path, row: str | None, rows: int) -> int:
    if row is None and rows == 1:
        return 0
    if row is None or not row.isdecimal() or int(row) >= rows:
        raise UserError(
            f"{path}: holds {count(rows, 'row')}: say which as {path}:ROW, counted from 0"
        )
    return int(row)


def mean_direction(vectors: Sequence[Any] | Floats) -> Floats:
    """The mean of ``[n, d_model]`` activations, each at length 1."""
    return np.asarray(scaled(np.asarray(vectors, dtype=np.float64), 1.0).mean(axis=0))
