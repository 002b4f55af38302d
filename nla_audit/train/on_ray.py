"""The runs of a sweep as tasks of a Ray cluster, each with CPUs and GPUs of its own.

A run's state lies in its folder, which all nodes must see: a run whose node died goes on elsewhere
from its last saved step, and comes to the same as one that nothing happened to.
"""

from __future__ import annotations

import logging
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from nla_audit.errors import UserError
from nla_audit.runs.pool import WorkerLost
from nla_audit.runs.ray_crew import LOCAL, Cluster, RaySettings, ray_cluster, why_lost
from nla_audit.train.interruption import Wish, stopping
from nla_audit.train.layout import Layout
from nla_audit.train.prepare import Tell
from nla_audit.train.runs import Run
from nla_audit.train.scheduling import take_turns
from nla_audit.train.state import saved_step
from nla_audit.train.waiting import Waiting

_log = logging.getLogger(__name__)

#: In the course's folder while the user wishes to stop: workers of other machines look for it.
STOP_FILE = "stop-after-this-step"
#: In the course's folder while a cluster trains: a file of each run that a worker has begun.
BEGUN_FOLDER = "begun-on-ray"
#: A run is given up when it was lost so often without a state saved in between.
_MOST_LOSSES = 3
#: What Ray says of a function whose module a worker cannot import.
_NOT_THERE = "failed to import"

#: Trains a run; returns why it stopped early, ``None`` if it did not.
Train = Callable[[Layout, Run, Wish], str | None]


class FileWish:
    """Whether a file is there, which says that the user wishes to stop."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def requested(self) -> bool:
        """Whether training should stop after this step."""
        return self._path.exists()


def on_ray(
    layout: Layout, runs: Sequence[Run], settings: RaySettings, train: Train, tell: Tell
) -> None:
    """:func:`~nla_audit.train.scheduling.take_turns` of tasks on a cluster.

    Args:
        train: a function at the top of a module, which the workers import.

    Raises:
        Stopped: the user asked to.
        UserError: the cluster cannot be had; a worker does not see the course's folder; a run was
            lost again and again.
    """
    if any(run.rl.judges for run in runs) and settings.address != LOCAL:
        raise UserError(
            "--ray: judges keep their answers in one file, which several machines cannot write to; "
            "train without --ray, or on a cluster of this machine (--ray local)"
        )
    settings = replace(settings, device=layout.recipe.target.device)
    # Workers have a working directory of their own.
    there = Layout(layout.recipe, layout.folder, layout.out.absolute())
    stop = there.out / STOP_FILE
    stop.unlink(missing_ok=True)  # of a course that was killed while it stopped
    try:
        with stopping() as wish, ray_cluster(settings) as cluster:
            take_turns(there, runs, _Tasks(there, cluster, train, stop), wish, tell)
    finally:
        stop.unlink(missing_ok=True)
        shutil.rmtree(there.out / BEGUN_FOLDER, ignore_errors=True)


class _Tasks:
    """:class:`~nla_audit.train.scheduling.Crew` of Ray tasks; a lost one is begun again."""

    def __init__(self, layout: Layout, cluster: Cluster, train: Train, stop: Path) -> None:
        self._layout, self._ray, self._train, self._stop = layout, cluster.ray, train, stop
        self._cpus = int(cluster.cpus)
        self._task = cluster.ray.remote(_train_there).options(
            num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0
        )
        self._at_once, self._threads = cluster.workers, layout.recipe.threads
        self._begun, self._waiting = layout.out / BEGUN_FOLDER, Waiting(cluster)
        #: By the name of a run, which is its ticket: the run, the task that works on it, what came
        #: of it, and how often it was lost at which step.
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, Any] = {}
        self._results: dict[str, str | Exception | None] = {}
        self._losses: dict[str, tuple[int, int]] = {}

    def submit(self, run: Run) -> str:
        self._runs[run.name] = run
        self._begin(run.name)
        return run.name

    def finished(self, tickets: Sequence[Any], seconds: float) -> Sequence[Any]:
        of_task = {task: ticket for ticket, task in self._tasks.items()}
        done, _ = self._ray.wait(list(of_task), timeout=seconds) if of_task else ([], [])
        for task in done:
            ticket = of_task[task]
            del self._tasks[ticket]
            try:
                self._results[ticket] = self._outcome(task)
            except WorkerLost as lost:
                self._note_loss(ticket, str(lost))
            except Exception as error:
                self._results[ticket] = error
        for ticket in list(self._runs):
            self._begin(ticket)
        self._waiting.look([self._runs[name] for name in self._tasks if self._waits(name)])
        return [ticket for ticket in tickets if ticket in self._results]

    def result(self, ticket: Any) -> str | None:
        result = self._results[ticket]
        if isinstance(result, Exception):
            raise result
        return result

    def stop(self) -> None:
        self._stop.touch()

    def cancel(self, ticket: Any) -> bool:
        if ticket in self._results or (ticket in self._tasks and not self._waits(ticket)):
            return False
        if ticket in self._tasks:  # or it would be waited for until there is room for it
            self._ray.cancel(self._tasks.pop(ticket))
        del self._runs[ticket]
        return True

    def _begin(self, ticket: str) -> None:
        """Give a run to a worker, if one is free and it has none."""
        known = ticket in self._tasks or ticket in self._results
        if known or len(self._tasks) >= self._at_once or self._stop.exists():
            return
        self._begun.mkdir(exist_ok=True)
        begun = self._begun / ticket
        begun.unlink(missing_ok=True)  # of a worker that was lost
        self._tasks[ticket] = self._task.remote(
            self._train,
            self._layout,
            self._runs[ticket],
            self._stop,
            begun=begun,
            threads=self._threads or self._cpus,
        )

    def _waits(self, ticket: str) -> bool:
        """Whether the cluster has had no room yet for a run that it was given."""
        return not (self._begun / ticket).exists()

    def _outcome(self, task: Any) -> str | None:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(task)
        except exceptions.RayTaskError as error:  # a RayError, too
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from None
            if _NOT_THERE in str(error.cause):
                raise UserError(
                    "a worker cannot load nla-audit: install the same version on every node"
                ) from None
            raise  # a bug in what ran there, with its traceback
        except exceptions.RayError as error:
            raise WorkerLost(why_lost(error)) from None

    def _note_loss(self, ticket: str, why: str) -> None:
        run = self._runs[ticket]
        step = saved_step(self._layout.run(run))
        losses, before = self._losses.get(ticket, (0, -1))
        losses = 1 if step > before else losses + 1
        self._losses[ticket] = (losses, step)
        if losses >= _MOST_LOSSES:
            self._results[ticket] = UserError(
                f"RL at {run.title}: {why}, {losses} times since step {step}: what is saved is "
                "kept, and the same command goes on from there"
            )
            return
        _log.info("RL at %s: %s; it goes on elsewhere from step %d", run.title, why, step)


def _train_there(
    train: Train, layout: Layout, run: Run, stop: Path, *, begun: Path, threads: int
) -> str | None:
    if not layout.activations.is_file():
        raise UserError(
            f"{layout.out} is not there on {socket.gethostname()}: all nodes of the cluster must "
            "see the course's folder"
        )
    begun.touch()
    disable_progress_bar()
    torch.set_num_threads(threads)
    return train(layout, run, FileWish(stop))
