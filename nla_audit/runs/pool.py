"""Work in pieces for several workers, of which any may die at any time.

What a worker is, and where, is the business of a :class:`Crew` (:mod:`nla_audit.runs.ray_crew`).
Here is who gets which piece: each goes to one worker at a time, that of a dead worker goes back to
the front, and its result counts once, whoever delivers it. Which worker did a piece never shows in
the results, so that they are those of one process.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from nla_audit.errors import UserError
from nla_audit.nla.batching import Notice
from nla_audit.wording import count

#: Pieces that a worker has at once: while one is computed the next is already there.
_IN_HAND = 2
#: A piece of which this many workers died is not given to another.
_MOST_DEATHS = 3
#: Seconds to wait for a first worker: a cluster that grows on demand takes minutes to.
START_SECONDS = 600.0
#: Seconds after which that is told: by then a worker of a cluster with room has started.
TELL_SECONDS = 30.0
#: Seconds between two looks at the clock.
_WAIT = 1.0


class WorkerLost(Exception):
    """A worker died, or nobody hears of it any more; the message says what is known of why."""


class Crew(Protocol):
    """A kind of workers. Workers and tickets (of work under way) are whatever can be hashed."""

    def start(self) -> tuple[Hashable, Hashable]:
        """A new worker, and the ticket that is finished when it is ready."""

    def submit(self, worker: Any, payload: Any) -> Hashable:
        """Have ``worker`` do one piece after those that it has."""

    def finished(self, tickets: Sequence[Any], seconds: float) -> Sequence[Hashable]:
        """Those of ``tickets`` that are finished, well or not; waits for the first of them."""

    def result(self, ticket: Any) -> Any:
        """What came of a finished ticket.

        Raises:
            WorkerLost: its worker died.
        """

    def stop(self, worker: Any) -> None:
        """End ``worker``, if it is not dead already."""

    def needs(self) -> str:
        """What a worker needs, in words."""


@dataclass(frozen=True)
class _Given:
    """A piece in a worker's hands."""

    worker: Hashable
    number: int
    payload: Any


class Pool:
    """Workers that are replaced when they die.

    Args:
        crew: where they come from.
        size: how many there are to be; fewer work for as long as there is no room for more.
        start_seconds: how long to wait where none is ready.
        tell_seconds: how long to wait before that is told.
    """

    def __init__(
        self,
        crew: Crew,
        size: int,
        *,
        start_seconds: float = START_SECONDS,
        tell_seconds: float = TELL_SECONDS,
    ) -> None:
        self.size = size
        self._crew = crew
        self._start_seconds, self._tell_seconds = start_seconds, tell_seconds
        self._starting: dict[Hashable, Hashable] = {}  # ticket → worker
        self._ready: list[Hashable] = []
        self._failed_starts = 0

    def each(self, items: Iterable[tuple[int, Any]], notice: Notice) -> Iterator[tuple[int, Any]]:
        """The result of every numbered piece, in the order in which they are finished.

        ``items`` are taken one by one as workers become free: they need not fit into memory.

        Raises:
            UserError: no worker is to be had, or several died of one piece.
        """
        source, again = iter(items), deque[tuple[int, Any]]()
        running: dict[Hashable, _Given] = {}
        deaths: Counter[int] = Counter()
        last_ready, is_told = time.monotonic(), False
        try:
            while True:
                self._fill_up()
                self._hand_out(source, again, running)
                if not running and not again and self._ready:
                    return
                for ticket in self._crew.finished([*self._starting, *running], _WAIT):
                    if ticket in self._starting:
                        self._welcome(ticket)
                    elif ticket in running:  # not one of a worker that was lost meanwhile
                        number = running[ticket].number
                        try:
                            result = self._crew.result(ticket)
                        except WorkerLost as lost:
                            orphaned = self._lose(running[ticket].worker, running)
                            again.extendleft(reversed(orphaned))
                            suspect, _ = orphaned[0]  # a worker takes its pieces in order
                            deaths[suspect] += 1
                            _give_up(deaths[suspect], lost, self._crew)
                            notice(f"{lost}: its work is done again by another")
                            continue
                        del running[ticket]
                        yield number, result
                waited = time.monotonic() - last_ready
                if self._ready:
                    last_ready, is_told = time.monotonic(), False
                elif waited > self._start_seconds:
                    raise UserError(
                        f"no worker started in {self._start_seconds:.0f} s: each needs "
                        f"{self._crew.needs()}: wait until the cluster has that much free, or ask "
                        "for less"
                    )
                elif waited > self._tell_seconds and not is_told:
                    is_told = True
                    notice(
                        f"no worker yet after {self._tell_seconds:.0f} s: waiting for "
                        f"{self._crew.needs()} to be free on a node of the cluster, "
                        f"{self._start_seconds / 60:.0f} minutes at most"
                    )
        finally:
            for worker in {given.worker for given in running.values()}:
                self._forget(worker)

    def close(self) -> None:
        """End all workers."""
        for worker in [*self._ready, *self._starting.values()]:
            self._crew.stop(worker)
        self._ready, self._starting = [], {}

    def _fill_up(self) -> None:
        while len(self._ready) + len(self._starting) < self.size:
            worker, ticket = self._crew.start()
            self._starting[ticket] = worker

    def _welcome(self, ticket: Hashable) -> None:
        worker = self._starting.pop(ticket)
        try:
            self._crew.result(ticket)
        except WorkerLost as lost:
            self._crew.stop(worker)
            self._failed_starts += 1
            if self._failed_starts >= _MOST_DEATHS * self.size and not self._ready:
                raise UserError(
                    f"workers die as they start ({lost}): is the same nla-audit installed on every "
                    "node?"
                ) from None
            return
        self._failed_starts = 0
        self._ready.append(worker)

    def _hand_out(
        self,
        source: Iterator[tuple[int, Any]],
        again: deque[tuple[int, Any]],
        running: dict[Hashable, _Given],
    ) -> None:
        """Give every worker one piece before any gets a second."""
        load = Counter(given.worker for given in running.values())
        for level in range(_IN_HAND):
            for worker in self._ready:
                if load[worker] > level:
                    continue
                piece = again.popleft() if again else next(source, None)
                if piece is None:
                    return
                running[self._crew.submit(worker, piece[1])] = _Given(worker, *piece)
                load[worker] += 1

    def _lose(self, worker: Hashable, running: dict[Hashable, _Given]) -> list[tuple[int, Any]]:
        """Forget a dead worker; returns what it had in hand, the oldest first."""
        self._forget(worker)
        orphaned = [ticket for ticket, given in running.items() if given.worker == worker]
        return [(given.number, given.payload) for given in map(running.pop, orphaned)]

    def _forget(self, worker: Hashable) -> None:
        self._ready.remove(worker)
        self._crew.stop(worker)


def _give_up(deaths: int, lost: WorkerLost, crew: Crew) -> None:
    if deaths >= _MOST_DEATHS:
        raise UserError(
            f"{count(deaths, 'worker')} died of the same piece of work, the last because: {lost}: "
            f"a worker has {crew.needs()}; give it more memory, or smaller batches"
        )
