"""What is sent to trackers, that none is needed, and that none ends a run."""

from __future__ import annotations

import sys
import types

import pytest
import yaml

from nla_audit.cli import run as command_line
from nla_audit.errors import UserError
from nla_audit.train import tracker as module
from nla_audit.train.interruption import StopSignal
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.state import MetricsLog, read_metrics
from tests.train.test_course import MINI
from tests.train.test_resume import SETTINGS, make_run

RECORD = {"kind": "step", "step": 3, "reward": -0.5, "grad_norm": None, "time": {"step": 0.25}}
NUMBERS = {"step/reward": -0.5, "step/time/step": 0.25}


class Recorder:
    """Stands in for a tracker's library."""

    def __init__(self):
        self.seen = []

    def SummaryWriter(self, folder, purge_step):
        self.seen.append((folder, purge_step))
        return types.SimpleNamespace(
            add_scalar=lambda *one: self.seen.append(one),
            flush=lambda: None,
            close=lambda: self.seen.append("closed"),
        )

    def Settings(self, **settings):
        return settings

    def init(self, **options):
        self.seen.append(options)
        return types.SimpleNamespace(
            log=lambda numbers, step: self.seen.append((numbers, step)),
            finish=lambda: self.seen.append("closed"),
        )


@pytest.fixture
def installed(monkeypatch):
    """Both libraries, as far as anyone can tell."""
    recorder = Recorder()
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", recorder)
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    return recorder


def log_one(folder, names, step=0):
    log = MetricsLog(folder, names)
    log.keep_until(step)
    log.write(RECORD)
    log.close()
    return log


def test_numbers_get_names_and_unknown_ones_are_left_out():
    assert module.scalars(RECORD) == NUMBERS


def test_without_tensorboard_the_log_is_all_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    log = log_one(tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert read_metrics(log.path) == [RECORD]


@pytest.mark.parametrize("names", [None, ["tensorboard"]])
def test_with_tensorboard_records_are_shown_from_the_state_on(tmp_path, installed, names):
    log_one(tmp_path, names, 2)
    assert installed.seen == [
        (str(tmp_path / "tensorboard"), 3),
        ("step/reward", -0.5, 3),
        ("step/time/step", 0.25, 3),
        "closed",
    ]


def test_an_empty_list_is_nothing(tmp_path, installed):
    log_one(tmp_path, [])
    assert installed.seen == []


def test_wandb_knows_a_run_that_goes_on_and_another_one_that_begins(tmp_path, installed):
    # Fails with: an id made of the folder's name, under which a run begun again would go on.
    folder = tmp_path / "tiny" / "rl" / "p0.01"
    folder.mkdir(parents=True)
    for step in (0, 2, 0):
        log_one(folder, ["wandb"], step)
    begun = [one for one in installed.seen if isinstance(one, dict)]
    assert begun[0]["id"] == begun[1]["id"] != begun[2]["id"]
    assert {one["name"] for one in begun} == {"tiny/p0.01"}
    assert begun[0]["resume"] == "allow"
    assert begun[0]["project"] == "nla-audit"
    assert installed.seen.count((NUMBERS, 3)) == installed.seen.count("closed") == 3


def test_wandb_that_cannot_begin_says_what_to_do(tmp_path, installed, monkeypatch):
    def refuse(**_):
        raise RuntimeError("no API key\nmore of it")

    monkeypatch.setattr(installed, "init", refuse)
    with pytest.raises(UserError, match=r"cannot begin \(no API key\); .* WANDB_MODE=offline"):
        log_one(tmp_path, ["wandb"])


def test_a_tracker_that_fails_is_left_and_the_other_goes_on(tmp_path, installed, caplog):
    # Fails with: an error of a tracker that ends the run; one that is told at every step.
    def broken(numbers, step):
        raise OSError("no network")

    log = MetricsLog(tmp_path, ["wandb", "tensorboard"])
    real = installed.init
    installed.init = lambda **options: types.SimpleNamespace(**{**vars(real()), "log": broken})
    log.keep_until(0)
    for step in (1, 2):
        log.write({**RECORD, "step": step})
    log.close()
    assert [one["step"] for one in read_metrics(log.path)] == [1, 2]
    assert caplog.text.count("wandb: no network; the run goes on without it") == 1
    assert ("step/reward", -0.5, 2) in installed.seen


def test_a_run_that_ends_by_an_error_closes_its_trackers(warm, tmp_path, installed):
    run = make_run(warm, tmp_path, SETTINGS)
    run.tracking = ["tensorboard"]

    def die(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(StopSignal(), die)
    assert installed.seen[-1] == "closed"
    assert any(one[0] == "step/kl" for one in installed.seen)


def test_what_is_not_installed_is_told_before_anything_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "wandb" else True)
    path = tmp_path / "mini.yaml"
    path.write_text(yaml.safe_dump({**MINI, "tracking": ["wandb"]}), encoding="utf-8")
    assert command_line(["train", str(path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "tracking: wandb is not installed; pip install 'nla-audit[wandb]'" in told
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"x: tracking\.0: .*'tensorboard' or 'wandb'"):
        parse_recipe({**MINI, "tracking": ["mlflow"]}, "x")


def test_a_real_event_file_holds_what_the_log_holds(warm, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = make_run(warm, tmp_path, SETTINGS)
    run.tracking = ["tensorboard"]
    run.run(StopSignal(), lambda _: None)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    records = read_metrics(tmp_path / "metrics.jsonl")
    for kind, name in (("step", "reward"), ("held_out", "n_tokens")):
        wanted = {one["step"]: one[name] for one in records if one["kind"] == kind}
        found = {one.step: one.value for one in events.Scalars(f"{kind}/{name}")}
        assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_the_real_wandb_writes_a_run_offline(warm, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "mini" / "rl" / "p0.01"
    run = make_run(warm, folder, SETTINGS)
    run.tracking = ["wandb"]
    run.run(StopSignal(), lambda _: None)
    (written,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    identity = (folder / module.WANDB_ID_FILE).read_text().strip()
    assert written.name == f"run-{identity}.wandb"
    assert b"step/reward" in written.read_bytes()
