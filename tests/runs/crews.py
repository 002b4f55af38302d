"""Workers that are no processes: what a cluster does to a run, without a cluster."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from nla_audit.runs.pool import WorkerLost
from nla_audit.runs.remote import Holder

#: Of a worker's number and how many pieces it did before: whether it dies of the next.
Dies = Callable[[int, int], bool]


class HereCrew:
    """Workers in this process, which finish in a seeded random order and die as they are told.

    Args:
        dies: which worker dies of which of its pieces.
        do: what a worker does; by default what a worker of a cluster does.
        room: how many can start at all.
        seed: of the order.
    """

    def __init__(
        self,
        dies: Dies = lambda worker, done: False,
        do: Callable[..., Any] | None = None,
        *,
        room: int = 10**9,
        seed: int = 0,
    ) -> None:
        self.started = 0
        self.alive: set[int] = set()
        self.done: list[tuple[int, Any]] = []
        self._dies, self._do, self._room = dies, do, room
        self._random = random.Random(seed)
        self._holders: dict[int, Holder] = {}
        self._work: dict[tuple[int, int], Any] = {}
        self._tickets = 0
        self._pieces: dict[int, int] = {}

    def start(self) -> tuple[Hashable, Hashable]:
        worker = self.started
        self.started += 1
        self.alive.add(worker)
        self._holders[worker] = Holder()
        self._pieces[worker] = 0
        return worker, self._ticket(worker, None)

    def submit(self, worker: Any, payload: Any) -> Hashable:
        assert worker in self.alive
        return self._ticket(worker, payload)

    def finished(self, tickets: Sequence[Any], seconds: float) -> Sequence[Hashable]:
        # Each worker does its pieces one after the other.
        first: dict[int, Any] = {}
        for ticket in sorted(tickets, key=lambda ticket: ticket[1]):
            first.setdefault(ticket[0], ticket)
        able = [ticket for worker, ticket in first.items() if worker < self._room]
        return [self._random.choice(able)] if able else []

    def result(self, ticket: Any) -> Any:
        worker, payload = ticket[0], self._work.pop(ticket)
        if payload is None:
            return None
        if self._dies(worker, self._pieces[worker]):
            raise WorkerLost("it was unplugged")
        self._pieces[worker] += 1
        self.done.append((worker, payload))
        do = self._do or self._holders[worker].answer
        return do(*payload) if isinstance(payload, tuple) else do(payload)

    def stop(self, worker: Any) -> None:
        self.alive.discard(worker)

    def needs(self) -> str:
        return "1 CPU"

    def _ticket(self, worker: int, payload: Any) -> tuple[int, int]:
        self._tickets += 1
        self._work[worker, self._tickets] = payload
        return worker, self._tickets
