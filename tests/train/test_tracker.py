"""What is sent to a tracker, and that none is needed."""

from __future__ import annotations

import sys
import types

from nla_audit.train import tracker as module
from nla_audit.train.state import MetricsLog, read_metrics

RECORD = {"kind": "step", "step": 3, "reward": -0.5, "grad_norm": None, "time": {"step": 0.25}}


def test_numbers_get_names_and_unknown_ones_are_left_out():
    assert module.scalars(RECORD) == {"step/reward": -0.5, "step/time/step": 0.25}


def test_without_tensorboard_the_log_is_all_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    log = MetricsLog(tmp_path)
    log.keep_until(0)
    log.write(RECORD)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert read_metrics(log.path) == [RECORD]


def test_with_tensorboard_records_are_shown_from_the_state_on(tmp_path, monkeypatch):
    seen = []

    class Writer:
        def __init__(self, folder, purge_step):
            seen.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

        def flush(self):
            pass

    fake = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    log = MetricsLog(tmp_path)
    log.keep_until(2)
    log.write(RECORD)
    assert seen == [
        (str(tmp_path / "tensorboard"), 3),
        ("step/reward", -0.5, 3),
        ("step/time/step", 0.25, 3),
    ]
