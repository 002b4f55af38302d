"""Pairs on disk and on the Hub: what its tests share."""

from tests.pairs.fixtures import activations, pair, pair_path, vectors

__all__ = ["activations", "pair", "pair_path", "vectors"]
