"""Progress: a bar with rate and time left in a terminal, a line now and then in a log."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from nla_audit.commands import progress
from nla_audit.commands.progress import Teller, counting


def test_log_says_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 40)  # every look at the clock is 40 s after the last one
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    written = io.StringIO()
    tell = Teller(Console(file=written, width=200))
    tell("explaining", 1000, 5000)  # a former run did these
    tell("explaining", 1400, 5000)
    tell("explaining", 1800, 5000)
    lines = written.getvalue().splitlines()
    # 400 of the new rows in 40 s; the 1,000 old ones are no sign of speed.
    assert lines[0] == "explaining: 1,400 of 5,000, 10.0/s, 6 min left"
    assert lines[1].startswith("explaining: 1,800 of 5,000, 10.0/s")


def test_log_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 1)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    written = io.StringIO()
    tell = Teller(Console(file=written, width=200))
    for done in range(100):
        tell("reading", done, 100)
    assert len(written.getvalue().splitlines()) == 3


def test_bar_in_a_terminal() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=200)
    with counting(console) as tell:
        tell("explaining", 0, 4)
        tell("explaining", 4, 4)
        tell.say("out of memory, going on")
        tell("reading", 1, 3)
    shown = written.getvalue()
    assert "explaining" in shown
    assert "4/4" in shown
    assert "reading" in shown
    assert "out of memory, going on" in shown


def test_markup_of_strangers_is_not_rendered() -> None:
    written = io.StringIO()
    Teller(Console(file=written, width=200)).say("idx [bold]7[/bold]: zero vector")
    assert "[bold]7[/bold]" in written.getvalue()
