"""Runs that a cluster has no room for: what they wait for is told, ever more rarely."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from nla_audit.runs.pool import TELL_SECONDS
from nla_audit.runs.ray_crew import Cluster
from nla_audit.train.runs import Run
from nla_audit.wording import count

_log = logging.getLogger(__name__)


class Waiting:
    """Tells of waiting after half a minute, and again whenever it has lasted twice as long.

    A cluster that others use may be full for a night: there is no time after which it ends.

    Args:
        cluster: where there is no room.
        tell_seconds: how long to wait before that is told for the first time.
        clock: seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        tell_seconds: float = TELL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._tell_seconds, self._clock = cluster, tell_seconds, clock
        self._since: float | None = None
        self._told_next = tell_seconds

    def look(self, runs: Sequence[Run]) -> None:
        """Note which runs the cluster has been given and has not begun."""
        if not runs:
            self._since = None
            return
        if self._since is None:
            self._since, self._told_next = self._clock(), self._tell_seconds
        waited = self._clock() - self._since
        if waited < self._told_next:
            return
        self._told_next = 2 * waited
        more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        _log.info(
            "RL at %s%s: not begun after %s: waiting for %s to be free on a node of the cluster "
            "(%s are free)",
            runs[0].title,
            more,
            _in_words(waited),
            self._cluster.needs(),
            self._cluster.free(),
        )


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else count(round(seconds / 60), "minute")
