"""Publishing: what its tests share."""

from tests.pairs.fixtures import hub

__all__ = ["hub"]
