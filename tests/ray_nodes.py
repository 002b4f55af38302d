"""A real Ray cluster of this machine, whose nodes can be killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: Of a node; the smallest that Ray takes.
_STORE = 80 << 20


class Nodes:
    """A head without CPUs, and nodes of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                "object_store_memory": _STORE,
            },
        )
        self.address: str = self._cluster.address
        self._nodes: list[Any] = []

    def add(self) -> None:
        self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=_STORE))

    def kill(self) -> None:
        """The oldest, without a farewell."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextmanager
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A cluster of two nodes; the test is skipped where Ray is not installed."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'nla-audit[ray]'")
    # Workers import this checkout, wherever the tests were started from.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # By itself Ray has its workers let all others go first, which on a busy machine takes minutes.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    nodes = Nodes()
    nodes.add()
    nodes.add()
    try:
        yield nodes
    finally:
        nodes.shutdown()
