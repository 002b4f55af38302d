"""The model itself: what its tests share."""

from tests.pairs.fixtures import pair_path, vectors

__all__ = ["pair_path", "vectors"]
