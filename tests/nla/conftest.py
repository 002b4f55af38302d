"""The model itself: what its tests share."""

from tests.pairs.fixtures import pair_path

__all__ = ["pair_path"]
