"""Pairs on disk and on the Hub: what its tests share."""

from tests.pairs.fixtures import activations, hub, pair, pair_path, vectors

__all__ = ["activations", "hub", "pair", "pair_path", "vectors"]
