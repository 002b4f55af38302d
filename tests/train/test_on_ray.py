"""Runs of a sweep on a Ray cluster: the same as here, whatever dies; and the stand-in's faults."""

from __future__ import annotations

import copy
import functools
import logging
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nla_audit.cli import run
from nla_audit.errors import UserError
from nla_audit.runs.ray_crew import Cluster, RaySettings
from nla_audit.train import on_ray, rl_stage
from nla_audit.train.interruption import Stopped, StopSignal, Wish
from nla_audit.train.layout import Layout
from nla_audit.train.ranks import Ranks
from nla_audit.train.read_recipe import parse_recipe, read_recipe
from nla_audit.train.rl_stage import reinforce
from nla_audit.train.scheduling import take_turns
from nla_audit.train.waiting import Waiting
from tests.ray_nodes import two_nodes
from tests.train.test_course import MINI, metrics, write


class RayError(Exception):
    """As Ray's own: a worker or its node died."""


class RayTaskError(RayError):
    """As Ray's own: what ran there raised ``cause``."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class Ray:
    """Ray's functions that are used, where a task is done when it is asked for.

    Args:
        fates: what happens to the tasks, in the order in which they are begun: an exception, or
            what is returned.
        room: for how many tasks; later ones wait.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, fates: list[Any], room: int = 9) -> None:
        self.fates, self.room = fates, room
        self.begun: list[str] = []
        self.cancelled: list[int] = []
        self.asked: list[int] = []

    def remote(self, _function: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._begin))

    def _begin(self, _train: Any, _layout: Layout, run_: Any, _stop: Path, **how: Any) -> int:
        if len(self.begun) < self.room:
            how["begun"].touch()
        self.begun.append(run_.name)
        return len(self.begun) - 1

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 6.0, "GPU": 2.0}

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 5.0}  # as Ray says it of a GPU that is not free

    def cancel(self, task: int) -> None:
        self.cancelled.append(task)

    def wait(self, tasks: list[int], timeout: float) -> tuple[list[int], list[int]]:
        assert timeout > 0
        return tasks[:1], tasks[1:]

    def get(self, task: int) -> Any:
        self.asked.append(task)
        fate = self.fates[task]
        if isinstance(fate, Exception):
            raise fate
        return fate


def trained_by(
    ray: Ray, tmp_path: Path, workers: int = 2, wish: Wish | None = None
) -> list[tuple[str, int]]:
    """Two runs by the stand-in; returns what was told."""
    layout = Layout(parse_recipe(copy.deepcopy(MINI), "mini"), tmp_path, tmp_path / "out")
    layout.out.mkdir()
    tasks = on_ray._Tasks(
        layout, Cluster(ray, 1, 0, workers), lambda *_: None, layout.out / on_ray.STOP_FILE
    )
    told: list[tuple[str, int]] = []

    def tell(what: str, done: int, _total: int) -> None:
        told.append((what, done))

    take_turns(layout, layout.runs, tasks, wish or StopSignal(), tell)
    return told


@pytest.mark.parametrize(("workers", "order"), [(1, ["p0.0", "p0.0", "p0.01"]), (2, None)])
def test_a_lost_run_is_begun_again(tmp_path: Path, workers: int, order: list[str] | None) -> None:
    ray = Ray([RayError("its node has died"), None, None])
    told = trained_by(ray, tmp_path, workers)
    assert sorted(ray.begun) == ["p0.0", "p0.0", "p0.01"]
    if order is not None:
        assert ray.begun == order
    steps = MINI["rl"]["steps"]  # type: ignore[index]
    assert {what for what, done in told if done == steps} == {"RL at λ = 0", "RL at λ = 0.01"}


def test_a_run_that_is_lost_again_and_again_is_given_up(tmp_path: Path) -> None:
    ray = Ray([RayError("its node has died")] * 3)
    with pytest.raises(
        UserError, match=r"the node of a worker died, 3 times since step 0: what is s"
    ):
        trained_by(ray, tmp_path, workers=1)


def test_what_a_worker_says_is_said_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no room on the disk$"):
        trained_by(Ray([RayTaskError(UserError("no room on the disk"))]), tmp_path, workers=1)
    bug = RayTaskError(ValueError("a bug"))
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(RayTaskError):
        trained_by(Ray([bug]), tmp_path, workers=1)
    shutil.rmtree(tmp_path / "out")
    absent = RayTaskError(RuntimeError("The remote function failed to import on the worker."))
    with pytest.raises(UserError, match="install the same version on every node"):
        trained_by(Ray([absent]), tmp_path, workers=1)


def test_where_one_fails_the_others_are_trained(tmp_path: Path) -> None:
    ray = Ray([RayTaskError(UserError("no room on the disk")), None])
    with pytest.raises(UserError, match="no room on the disk"):
        trained_by(ray, tmp_path, workers=1)
    assert ray.begun == ["p0.0", "p0.01"]
    assert ray.asked == [0, 1]
    assert not (tmp_path / "out" / on_ray.STOP_FILE).exists()


def test_the_wish_to_stop_is_passed_on_and_begins_no_other(tmp_path: Path) -> None:
    """Ctrl-C while the first run trains: it stops after its step, the second never begins."""
    wish = StopSignal()
    stop = tmp_path / "out" / on_ray.STOP_FILE

    class Stopping(Ray):
        def wait(self, tasks: list[int], timeout: float) -> tuple[list[int], list[int]]:
            if not stop.exists():
                wish.requested = True
                return [], tasks
            return super().wait(tasks, timeout)

    ray = Stopping(["RL at λ = 0 stopped after step 1"])
    with pytest.raises(Stopped, match=r"^RL at λ = 0 stopped after step 1$"):
        trained_by(ray, tmp_path, workers=1, wish=wish)
    assert ray.begun == ["p0.0"]


def test_runs_without_room_are_told_of_ever_more_rarely(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nla_audit.train")
    layout = Layout(parse_recipe(copy.deepcopy(MINI), "mini"), tmp_path, tmp_path / "out")
    seconds = [1000.0]
    waiting = Waiting(Cluster(Ray([]), 4, 0.5, 2), clock=lambda: seconds[-1])
    told = []
    for second in range(1000, 1400):
        seconds.append(second)
        waiting.look(layout.runs)
        told += [(second, record.getMessage()) for record in caplog.records]
        caplog.clear()
    assert [second for second, _ in told] == [1030, 1060, 1120, 1240]
    assert told[0][1] == (
        "RL at λ = 0 and 1 more: not begun after 30 s: waiting for 4 CPUs and 0.5 GPU to be free "
        "on a node of the cluster (5 of 6 CPUs and 0 of 2 GPUs are free)"
    )
    assert "after 4 minutes" in told[3][1]
    waiting.look([])  # begun: the next wait is one of its own
    waiting.look(layout.runs[:1])
    assert not caplog.records
    seconds.append(1430)
    waiting.look(layout.runs[:1])
    assert "RL at λ = 0: not begun after 31 s" in caplog.text


def test_a_run_without_room_is_told_of_and_not_waited_for_when_all_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nla_audit.train")
    monkeypatch.setattr(on_ray, "Waiting", functools.partial(Waiting, tell_seconds=0.0))
    wish = StopSignal()

    class Full(Ray):
        looks = 0

        def wait(self, tasks: list[int], timeout: float) -> tuple[list[int], list[int]]:
            self.looks += 1
            wish.requested = self.looks > 2
            return super().wait(tasks, timeout) if self.looks > 4 else ([], tasks)

    ray = Full(["RL at λ = 0 stopped after step 1"], room=1)
    with pytest.raises(Stopped, match=r"^RL at λ = 0 stopped after step 1$"):
        trained_by(ray, tmp_path, workers=2, wish=wish)
    assert "RL at λ = 0.01: not begun" in caplog.text
    assert "λ = 0:" not in caplog.text
    assert ray.cancelled == [1]
    assert ray.asked == [0]


def test_a_worker_looks_for_the_wish_and_takes_its_threads(tmp_path: Path) -> None:
    layout = Layout(parse_recipe(copy.deepcopy(MINI), "mini"), tmp_path, tmp_path / "out")
    layout.activations.parent.mkdir(parents=True)
    layout.activations.touch()
    stop, threads = tmp_path / "stop", torch.get_num_threads()

    def train(_layout: Layout, _run: Any, wish: Any) -> str:
        before = wish.requested
        stop.touch()
        return f"{before} {wish.requested} {torch.get_num_threads()}"

    try:
        given = layout, layout.runs[0], stop
        begun = tmp_path / "begun"
        found = on_ray._train_there(train, *given, begun=begun, threads=threads + 1)
        assert found == f"False True {threads + 1}"
        assert begun.exists()
        # The next in line is not begun any more: without a warm start it would fail.
        begin = rl_stage._train_for_crew
        assert on_ray._train_there(begin, *given, begun=begun, threads=threads) is None
    finally:
        torch.set_num_threads(threads)


def test_losses_count_by_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([0, 5, 5, 5, 5])
    monkeypatch.setattr(on_ray, "saved_step", lambda _: next(steps))
    ray = Ray([RayError("its node has died")] * 5)
    with pytest.raises(UserError, match="3 times since step 5"):
        trained_by(ray, tmp_path, workers=1)
    assert ray.begun.count("p0.0") == 4


def test_judges_and_several_machines_are_refused(tmp_path: Path) -> None:
    raw = copy.deepcopy(MINI)
    raw["rl"] |= {  # type: ignore[operator]
        "rewards": {"negative_mse": 1.0, "clear": 0.1},
        "judges": {"clear": {"model": "m", "prompt": "How clear is {explanation}?"}},
    }
    layout = Layout(parse_recipe(raw, "mini"), tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="judges keep their answers in one file"):
        on_ray.on_ray(layout, layout.runs, RaySettings("head:6379"), print, print)


def test_a_folder_that_a_node_does_not_see(tmp_path: Path) -> None:
    layout = Layout(parse_recipe(copy.deepcopy(MINI), "mini"), tmp_path, tmp_path / "elsewhere")
    stop, begun = tmp_path / "stop", tmp_path / "begun"
    with pytest.raises(UserError, match=r"elsewhere is not there on .*all nodes of the cluster"):
        on_ray._train_there(lambda *_: None, layout, layout.runs[0], stop, begun=begun, threads=1)


def test_options_without_a_cluster_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, MINI)
    assert run(["train", recipe, "--out", str(tmp_path / "o"), "--ray-cpus", "2"]) == 2
    assert "--ray-cpus needs --ray ADDRESS as well" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_sweep_on_two_nodes_of_which_one_dies_is_that_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nla_audit.train")
    raw = copy.deepcopy(MINI)
    raw["rl"] |= {"steps": 8, "checkpoint_every": 1}  # type: ignore[operator]
    recipe = write(tmp_path, raw)
    for stage in ("target", "activations", "warm-start"):
        assert run(["train", recipe, "--out", str(tmp_path / "here"), "--stage", stage]) == 0
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert run(["train", recipe, "--out", str(tmp_path / "here"), "--stage", "rl"]) == 0
    monkeypatch.setattr(on_ray, "Waiting", functools.partial(Waiting, tell_seconds=0.5))
    caplog.clear()
    with two_nodes(monkeypatch) as nodes:
        killed: list[int] = []
        others = nodes.taken_by_others()
        latest = time.monotonic() + 120

        def tell(_what: str, done: int, total: int) -> None:
            if "not begun" in caplog.text or time.monotonic() > latest:
                others.close()
            if not killed and 2 <= done < total:
                killed.append(done)
                nodes.kill()

        layout = Layout(read_recipe(Path(recipe), ()), tmp_path, tmp_path / "there")
        reinforce(layout, tell, Ranks(), RaySettings(nodes.address, cpus=1))
    assert killed
    assert caplog.records[0].getMessage().startswith("RL at λ = 0 and 1 more: not begun")
    assert "waiting for 1 CPU to be free on a node of the cluster (0 of 2 CPUs" in caplog.text
    assert "it goes on elsewhere" in caplog.text
    for name in ("p0.0", "p0.01"):
        assert metrics(tmp_path / "there/rl" / name) == metrics(tmp_path / "here/rl" / name)
    for name in (on_ray.STOP_FILE, on_ray.BEGUN_FOLDER):
        assert not (tmp_path / "there" / name).exists()
