"""Ctrl-C during training: finish the step, save, and say how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """Training was stopped by the user after a whole step; its state is saved."""


class StopSignal:
    """Whether the user has asked to stop."""

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
