"""Runs in processes of their own, one of which is killed."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nla_audit.errors import UserError
from nla_audit.train.scheduling import in_processes


@dataclass(frozen=True)
class FakeRun:
    name: str
    start: str | None = None
    rl: Any = field(default_factory=lambda: SimpleNamespace(steps=1))

    @property
    def title(self) -> str:
        return self.name


@dataclass(frozen=True)
class FakeLayout:
    folder: Path

    def run(self, run: FakeRun) -> Path:
        return self.folder / run.name


def train_or_die(layout: Any, run: Any, processes: int) -> str | None:
    if run.name == "greedy":
        os.kill(os.getpid(), signal.SIGKILL)
    (layout.folder / run.name).touch()
    return None


def in_two(folder: Path, *runs: FakeRun) -> None:
    layout: Any = FakeLayout(folder)
    in_processes(layout, list(runs), 2, train_or_die, lambda *_: None)  # type: ignore[arg-type]


def test_a_process_that_is_killed_is_told_in_a_line(tmp_path: Path) -> None:
    # The third waits for the first, so it is handed to a pool that is broken, or not at all.
    runs = FakeRun("greedy"), FakeRun("modest"), FakeRun("later", start="modest")
    with pytest.raises(UserError, match="most likely for want of memory") as told:
        in_two(tmp_path, *runs)
    assert "--set rl.processes=1" in str(told.value)
    assert told.value.__cause__ is None


@pytest.mark.slow
def test_processes_that_end_well_train_every_run(tmp_path: Path) -> None:
    in_two(tmp_path, FakeRun("one"), FakeRun("two", start="one"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
