"""Runs of a pair: what its tests share."""

from tests.pairs.fixtures import activations, explained, hub, pair, pair_path, vectors

__all__ = ["activations", "explained", "hub", "pair", "pair_path", "vectors"]
