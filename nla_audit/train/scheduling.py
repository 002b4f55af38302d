"""Several runs at once, each in a process of its own, each after the one it starts from."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from nla_audit.train.interruption import Stopped, begin_worker, stopping
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


def in_processes(
    layout: Layout, runs: Sequence[Run], processes: int, train: TrainInProcess, tell: Tell
) -> None:
    """Train several runs at once; progress is read from their logs.

    On Ctrl-C each child finishes its step and saves, and the parent waits for that.

    Args:
        runs: those not trained yet.
        train: a function at the top of a module, which the children import.

    Raises:
        Stopped: the user asked to.
    """
    context = get_context("spawn")
    wish = context.Event()
    with (
        stopping() as stop,
        ProcessPoolExecutor(
            processes, mp_context=context, initializer=begin_worker, initargs=(wish,)
        ) as pool,
    ):
        waiting, futures = list(runs), dict[Future[str | None], Run]()
        running: set[Future[str | None]] = set()
        untrained = {run.name for run in runs}
        stopped: list[str] = []
        while waiting or running:
            ready = [run for run in waiting if run.start not in untrained]
            if stop.requested:
                ready = waiting = []
            for run in ready:
                waiting.remove(run)
                future = pool.submit(train, layout, run, processes)
                futures[future] = run
                running.add(future)
            if not running:
                break
            finished, running = wait(running, _LOOK_EVERY, return_when=FIRST_COMPLETED)
            for future in finished:
                reason = future.result()
                if reason is None:
                    untrained.discard(futures[future].name)
                else:
                    stopped.append(reason)
            for future, run in futures.items():
                steps = run.rl.steps
                done = steps if future in finished else _steps_logged(layout.run(run))
                tell(f"RL at {run.title}", done, steps)
            if stop.requested:
                wish.set()
                for future in running:
                    future.cancel()
                running = {future for future in running if not future.cancelled()}
    if stop.requested:
        raise Stopped(", ".join(stopped) or "RL stopped")


def _steps_logged(folder: Path) -> int:
    records = read_metrics(folder / METRICS_FILE)
    return max((record["step"] for record in records), default=0)


def settle_in(layout: Layout, processes: int = 1) -> None:
    """Share the processor's threads among ``processes``; one set of progress bars is enough."""
    disable_progress_bar()
    share_threads(layout.recipe, processes)
