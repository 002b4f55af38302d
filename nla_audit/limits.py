"""Programs of strangers, run with little time and memory: chat templates, patterns, tokenizers.

A chat template is a program, and so, for a backtracking engine, is a regular expression. Both may
run without end or fill the memory, and neither can be interrupted from within the process. So they
are run in a copy of it (``fork``) that the system ends once it has used its processor time, and
that gets no more memory than it is allowed. A copy, because it has everything loaded: what is run
is exactly what would have run here.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

#: Processor time; a chat template takes some 10 ms, the first encoding of a tokenizer less.
CPU_SECONDS = 1.0
#: Memory beyond what the process has already.
EXTRA_BYTES = 256 << 20
#: For the answer, by the clock: a machine may have much else to do.
_PATIENCE_SECONDS = 60.0
_CHUNK = 1 << 16
#: What works depend on → what came back, as JSON; a process loads few checkpoints, often again.
_KNOWN: dict[Hashable, str] = {}
_MOST_KNOWN = 64


class OverLimit(Exception):
    """The work used more time or memory than it may; the message says which, in words."""


class WorkFailed(Exception):
    """The work raised; the message is its own, in one line."""


def within_limits(
    work: Callable[[], Any],
    *,
    cpu_seconds: float = CPU_SECONDS,
    depends_on: Hashable | None = None,
) -> Any:
    """What ``work`` returns, which must be plain data (it crosses over as JSON).

    Where the system has no ``fork`` (Windows), the work is done here, without limits.

    Args:
        work: what to do; what it changes is not changed in this process.
        cpu_seconds: processor time that it may take.
        depends_on: everything that decides what ``work`` returns, by content. What came back from
            work with the same is given again, without a copy of the process; failures are not
            kept. ``None`` always works.

    Raises:
        OverLimit: it used too much time or memory, or was ended by the system.
        WorkFailed: it raised.
    """
    known = None if depends_on is None else _KNOWN.get(depends_on)
    if known is not None:
        return json.loads(known)
    value = _limited(work, cpu_seconds)
    if depends_on is not None:
        while len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.pop(next(iter(_KNOWN)), None)  # another thread may have been sooner
        _KNOWN[depends_on] = json.dumps(value)
    return value


def _limited(work: Callable[[], Any], cpu_seconds: float) -> Any:
    if not hasattr(os, "fork"):
        try:
            return work()
        except Exception as error:  # a program of strangers fails in any way
            raise WorkFailed(_words(error)) from None
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns that other threads' locks stay shut in the copy; plain Python needs none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reading)
        _be_the_copy(work, writing, cpu_seconds)
    os.close(writing)
    try:
        answer = _read_all(reading, time.monotonic() + _PATIENCE_SECONDS)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(reading)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return _understood(answer, status, cpu_seconds)


def _be_the_copy(work: Callable[[], Any], writing: int, cpu_seconds: float) -> None:
    """Do the work, write the answer, and end without running anything else of the process."""
    code = 1
    try:
        # Native code that runs out of memory says so there before it aborts.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        _set_limits(cpu_seconds)
        try:
            answer = json.dumps({"value": work()})
        except MemoryError:
            answer = json.dumps({"memory": True})
        except BaseException as error:  # nothing may run on in the copy, whatever was raised
            answer = json.dumps({"error": _words(error)})
        data = answer.encode()
        while data:
            data = data[os.write(writing, data) :]
        code = 0
    finally:
        os._exit(code)


def _set_limits(cpu_seconds: float) -> None:
    import resource  # not on Windows

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process, also in native code
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    statm = Path("/proc/self/statm")
    if sys.platform.startswith("linux") and statm.exists():
        in_use = int(statm.read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = in_use + EXTRA_BYTES
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _read_all(reading: int, deadline: float) -> bytes | None:
    """Everything the copy writes; ``None`` where it takes too long."""
    parts: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            return None
        part = os.read(reading, _CHUNK)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _understood(answer: bytes | None, status: int, cpu_seconds: float) -> Any:
    time_words = f"takes more than {cpu_seconds:g} s"
    if answer is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF):
        raise OverLimit(time_words)
    try:
        found = json.loads(answer)
    except ValueError:  # ended in the middle, by native code without memory as a rule
        raise OverLimit(_memory_words()) from None
    if "memory" in found:
        raise OverLimit(_memory_words())
    if "error" in found:
        raise WorkFailed(found["error"])
    return found["value"]


def _memory_words() -> str:
    return f"needs more than {EXTRA_BYTES >> 20} MB of memory"


def _words(error: BaseException) -> str:
    line = str(error).strip().split("\n", 1)[0][:200]
    return line if " " in line else f"{type(error).__name__} {line}".strip()
