"""Several runs at once, each after the one it starts from, and each by a worker of its own.

Workers are processes of this machine, or tasks of a Ray cluster (:mod:`nla_audit.train.on_ray`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers.utils.logging import disable_progress_bar

from nla_audit.errors import UserError
from nla_audit.train.interruption import Stopped, Wish, begin_worker, stopping
from nla_audit.train.layout import Layout
from nla_audit.train.prepare import Tell
from nla_audit.train.recipe import Recipe
from nla_audit.train.runs import Run
from nla_audit.train.state import METRICS_FILE, read_metrics

#: Seconds between looks at the logs of runs in other processes.
_LOOK_EVERY = 1.0
#: Trains a run as one of so many processes; returns why it stopped early, ``None`` if it did not.
TrainInProcess = Callable[[Layout, Run, int], str | None]


def share_threads(recipe: Recipe, processes: int) -> None:
    """Of the processor's threads, take one of ``processes`` equal parts."""
    threads = recipe.threads or os.cpu_count() or 1
    torch.set_num_threads(max(1, threads // processes))


class Crew(Protocol):
    """Workers that train a run each."""

    def submit(self, run: Run) -> Hashable:
        """Have a run trained; the ticket asks for what came of it."""

    def finished(self, tickets: Sequence[Hashable], seconds: float) -> Sequence[Hashable]:
        """Those that are done, after so many seconds at most."""

    def result(self, ticket: Hashable) -> str | None:
        """Why the run stopped early; ``None`` if it did not."""

    def stop(self) -> None:
        """Have every run finish its step, save and stop."""

    def cancel(self, ticket: Hashable) -> bool:
        """Take back what no worker has begun; whether it could be."""


def take_turns(layout: Layout, runs: Sequence[Run], crew: Crew, stop: Wish, tell: Tell) -> None:
    """Train several runs at once; progress is read from their logs.

    On Ctrl-C each worker finishes its step and saves, and this process waits for that. Where one
    run fails, those that do not start from it are trained all the same.

    Args:
        layout: of the course.
        runs: those not trained yet.
        crew: who trains them.
        stop: whether the user has asked to stop.
        tell: is told of each run's steps.

    Raises:
        Stopped: the user asked to.
        Exception: what the first run that failed, failed of.
    """
    waiting, tickets = list(runs), dict[Hashable, Run]()
    running: set[Hashable] = set()
    untrained = {run.name for run in runs}
    stopped: list[str] = []
    failures: list[Exception] = []
    while waiting or running:
        ready = [run for run in waiting if run.start not in untrained]
        if stop.requested:
            ready = waiting = []
        for run in ready:
            waiting.remove(run)
            ticket = crew.submit(run)
            tickets[ticket] = run
            running.add(ticket)
        if not running:
            break
        finished = set(crew.finished(list(running), _LOOK_EVERY))
        running -= finished
        for ticket in finished:
            try:
                reason = crew.result(ticket)
            except Exception as error:
                failures.append(error)
                continue
            if reason is None:
                untrained.discard(tickets[ticket].name)
            else:
                stopped.append(reason)
        for ticket, run in tickets.items():
            steps = run.rl.steps
            done = steps if ticket in finished else _steps_logged(layout.run(run))
            tell(f"RL at {run.title}", done, steps)
        if stop.requested:
            crew.stop()
            running = {ticket for ticket in running if not crew.cancel(ticket)}
    if failures:
        raise failures[0]
    if stop.requested or stopped:
        raise Stopped(", ".join(stopped) or "RL stopped")


def in_processes(
    layout: Layout, runs: Sequence[Run], processes: int, train: TrainInProcess, tell: Tell
) -> None:
    """:func:`take_turns` of so many processes of this machine.

    Args:
        train: a function at the top of a module, which the children import.

    Raises:
        UserError: one of the processes was killed from outside, which ends the others as well.
    """
    _give_back_memory()
    context = get_context("spawn")
    wish = context.Event()
    with (
        stopping() as stop,
        ProcessPoolExecutor(
            processes, mp_context=context, initializer=begin_worker, initargs=(wish,)
        ) as pool,
    ):
        crew = _Processes(wish, lambda run: pool.submit(train, layout, run, processes))
        try:
            take_turns(layout, runs, crew, stop, tell)
        except BrokenProcessPool:
            raise UserError(
                f"RL: one of {processes} processes was killed, most likely for want of memory, and "
                "all have ended: what they saved is kept, and the same command goes on from there; "
                "with --set rl.processes=1 one run at a time needs the memory"
            ) from None


def _give_back_memory() -> None:
    """Return what the stages before have freed to the system, which the processes need.

    glibc keeps much of it for this process, which only waits: one that had made the warm start of a
    model of 270 million weights held 8 GB.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class _Processes:
    """:class:`Crew` of a pool of processes."""

    def __init__(self, wish: Event, submit: Callable[[Run], Future[str | None]]) -> None:
        self._wish, self.submit = wish, submit

    def finished(self, tickets: Sequence[Any], seconds: float) -> Sequence[Any]:
        return list(wait(tickets, seconds, return_when=FIRST_COMPLETED).done)

    def result(self, ticket: Any) -> str | None:
        return ticket.result()

    def stop(self) -> None:
        self._wish.set()

    def cancel(self, ticket: Any) -> bool:
        return ticket.cancel()


def _steps_logged(folder: Path) -> int:
    records = read_metrics(folder / METRICS_FILE)
    return max((record["step"] for record in records), default=0)


def settle_in(layout: Layout, processes: int = 1) -> None:
    """Share the processor's threads among ``processes``; one set of progress bars is enough."""
    disable_progress_bar()
    share_threads(layout.recipe, processes)
