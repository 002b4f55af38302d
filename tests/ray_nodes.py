"""A real Ray cluster of this machine, whose nodes can be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

#: Of a node; the smallest that Ray takes.
_STORE = 80 << 20
#: What another user of the cluster does: takes CPUs, and keeps them until it is sent a line.
_OTHER_USER = """
import sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
class Taken:
    def there(self): pass
taken = [Taken.remote() for _ in range(int(sys.argv[2]))]
ray.get([one.there.remote() for one in taken])
print("taken", flush=True)
sys.stdin.readline()
"""


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

    def taken_by_others(self) -> ExitStack:
        """Have all CPUs taken until what this returns is closed."""
        command = [sys.executable, "-c", _OTHER_USER, self.address, str(len(self._nodes))]
        pipe = subprocess.PIPE
        other = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert other.stdout is not None
        assert any(line == "taken\n" for line in other.stdout)
        until = ExitStack()
        until.callback(other.communicate, "\n")
        return until

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
