"""Processes that a test starts, and may kill: none of them a fork of the test's own.

A fork has the locks and not the threads of the process that it is of. Where polars, OpenMP or a
server had threads there, the child may wait for one of them for ever. These are forks of a process
that has imported what they need and has done nothing since.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import cloudpickle

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.train.children", "tests.train.test_resume"])
#: Seconds that no child takes.
_LONGEST = 300


def started(work: Callable[[], object]) -> BaseProcess:
    """A process that calls ``work``, which may be a closure."""
    # By value: what a test defines within itself cannot be imported by its name.
    child = _CONTEXT.Process(target=_call, args=(cloudpickle.dumps(work),))
    child.start()
    return child


def exit_code(work: Callable[[], object]) -> int | None:
    """How a process that calls ``work`` ended."""
    child = started(work)
    child.join(timeout=_LONGEST)
    code = child.exitcode
    child.kill()
    return code


def in_two_processes(work: Callable[[int], object]) -> None:
    """``work(rank)`` in each."""
    children = [started(lambda rank=rank: work(rank)) for rank in range(2)]
    for child in children:
        child.join(timeout=_LONGEST)
    codes = [child.exitcode for child in children]
    for child in children:  # one that waits for the other for ever
        child.kill()
    assert codes == [0, 0]


def _call(pickled: bytes) -> None:
    cloudpickle.loads(pickled)()
