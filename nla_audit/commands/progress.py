"""Progress of long work on standard error: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

#: Seconds between two lines where there is no terminal to draw a bar in.
_LOG_SECONDS = 30.0
#: Rates are taken over this many seconds: long enough for several batches.
_SPEED_SECONDS = 300.0


class _RateColumn(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s")


class Teller:
    """Shows ``(stage, done, total)``; a total of 0 is not known yet.

    What is done when a stage begins comes from a former run, and says nothing of the speed.
    """

    def __init__(self, console: Console, bar: Progress | None = None) -> None:
        self._console = console
        self._bar = bar
        self._stage: str | None = None
        self._task = TaskID(0)
        self._began = self._last_line = time.monotonic()
        self._done_before = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` units of ``stage`` are done."""
        if stage != self._stage:
            self._stage, self._began, self._done_before = stage, time.monotonic(), done
            if self._bar is not None:
                self._task = self._bar.add_task(stage, total=total or None, completed=done)
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total or None)
            return
        now = time.monotonic()
        if now - self._last_line >= _LOG_SECONDS and done > self._done_before:
            rate = (done - self._done_before) / (now - self._began)
            left = f"{(total - done) / rate / 60:,.0f} min left" if total else "total unknown"
            self._last_line = now
            whole = f"{total:,}" if total else "?"
            self.say(f"{stage}: {done:,} of {whole}, {rate:,.1f}/s, {left}")

    def say(self, sentence: str) -> None:
        """Print a line above the bar."""
        self._console.print(Text(sentence), style="yellow", soft_wrap=True)


@contextmanager
def counting(console: Console) -> Iterator[Teller]:
    """A :class:`Teller` whose bar is gone when the block ends."""
    if not console.is_terminal:
        yield Teller(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        speed_estimate_period=_SPEED_SECONDS,
        redirect_stdout=False,  # it goes where whoever called us sends it
    ) as bar:
        yield Teller(console, bar)


@contextmanager
def stage_bars(console: Console) -> Iterator[Progress]:
    """Bars that say what is done of each stage and how long it took, gone when the block ends."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        yield bar


@contextmanager
def audit_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """One bar over the steps of an audit: the step that is under way, its number, all steps."""
    with stage_bars(console) as bar:
        task = bar.add_task("audit", total=None)

        def tell(step: str, number: int, total: int) -> None:
            bar.update(task, description=step, completed=number, total=total)

        yield tell
