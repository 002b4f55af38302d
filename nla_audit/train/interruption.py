"""Ctrl-C during training: finish the step, save, and say how to go on.

This module imports nothing heavy: a worker process reads it before anything else, so that a
Ctrl-C in its first seconds, while torch is still being imported, does not end it in a traceback.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Protocol


class Stopped(Exception):
    """Training was stopped by the user after a whole step; its state is saved."""


class Wish(Protocol):
    """Something that knows whether the user has asked to stop."""

    @property
    def requested(self) -> bool:
        """Whether training should stop after this step."""


class StopSignal:
    """Whether this process was sent an interrupt."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        """Note the first Ctrl-C; the second stops at once."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stopping() -> Iterator[StopSignal]:
    """Take Ctrl-C as a wish to stop after the step; outside the main thread it is never asked."""
    wish = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = signal.signal(signal.SIGINT, wish)
    try:
        yield wish
    finally:
        signal.signal(signal.SIGINT, before)


class WorkerWish:
    """In a worker process: whether the parent has passed on a wish to stop."""

    event: Event | None = None

    @property
    def requested(self) -> bool:
        """Whether training should stop after this step."""
        return self.event is not None and self.event.is_set()


def begin_worker(event: Event) -> None:
    """Leave Ctrl-C to the parent, which sets ``event`` when the user wishes to stop.

    A worker ends with its parent, however that ends: one that trained on after a ``kill -9``
    would write into the folder of the run that goes on from there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    WorkerWish.event = event
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # at once: a saved state is whole, and nobody is there to hear more
