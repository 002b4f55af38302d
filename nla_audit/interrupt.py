"""Ctrl-C ends a command in time, whatever it is waiting for.

Python raises ``KeyboardInterrupt`` between two steps of the main thread. A name that is being
looked up, a matrix product, a thread that waits for a server: none of them is a step, and some
libraries (polars) set the signal up so that the system goes on waiting as well. So a thread of
its own watches for the signal, gives the command a moment to end by itself, and ends it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn

#: Exit code of a command stopped with Ctrl-C (128 + SIGINT, as shells count).
INTERRUPTED = 130
#: Seconds that a command has to end by itself. Two in all are its limit, and a busy machine takes
#: a second of them to hear of the signal and to free the memory.
GRACE = 0.5
#: Makes a terminal's cursor visible again, which progress bars hide.
_SHOW_CURSOR = "\x1b[?25h"


def end_in_time() -> None:
    """From now on end this process soon after Ctrl-C; to be called once, by its main thread.

    Whatever is written is whole or not there, so that nothing is lost. A command that takes
    Ctrl-C itself, as training does to save its state first, is left to do so at the first one.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell script starts what it puts into the background like that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(heard,), daemon=True).start()


def _watch(heard: int) -> None:
    asked = 0
    while True:
        for number in os.read(heard, 64):
            asked += number == signal.SIGINT
        if not asked:
            continue
        is_left_to_command = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        if asked > 1 or not is_left_to_command:
            time.sleep(GRACE)
            _end()


def leave() -> NoReturn:
    """End this process, whose command has ended by itself after Ctrl-C and closed all it had open.

    Python would first wait for every thread and take its modules apart: seconds with torch among
    them, in which no other thread runs that could end it.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # full, closed, or not there
            stream.flush()
    _exit()


def _end() -> NoReturn:
    show = _SHOW_CURSOR if sys.stderr.isatty() else ""
    os.write(2, f"{show}interrupted\n".encode())
    _exit()


def _exit() -> NoReturn:
    """At once, and with it the processes that it started."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(INTERRUPTED)
