"""Comparing runs by their logs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nla_audit.cli import run
from nla_audit.report.stored import read_report
from nla_audit.train.dynamics import _slope, at_equal_seconds, plateau, read_runs
from tests.declared import absent, undeclared


def write_run(folder, lengths, *, seconds_per_step=1.0, fve=0.5):
    folder.mkdir(parents=True)
    lines = [{"kind": "held_out", "step": 0, "seconds": 0.0, "fve_raw_variance": 0.0}]
    for step, length in enumerate(lengths, 1):
        seconds = step * seconds_per_step
        common = {"step": step, "seconds": seconds, "content_tokens": float(length)}
        lines.append({"kind": "step", **common, "kl": None, "extracted": 1.0, "cjk": 0.0})
        if step % 10 == 0:
            held = {"fve_raw_variance": fve, "fve_mean_normalized": fve + 0.1, "extracted": 1.0}
            lines.append({"kind": "held_out", **common, **held})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def course(tmp_path):
    rng = np.random.default_rng(0)
    flat = 40 + rng.normal(0, 0.3, 90)
    falling = 40 - 0.2 * np.arange(90) + rng.normal(0, 0.3, 90)
    write_run(tmp_path / "rl" / "p0.0", flat)
    write_run(tmp_path / "rl" / "p0.01", falling, seconds_per_step=0.5, fve=0.4)
    write_run(tmp_path / "rl" / "p0.1", rng.normal(40, 8, 60))
    (tmp_path / "warm-start" / "av").mkdir(parents=True)
    (tmp_path / "warm-start" / "av" / "metrics.jsonl").write_text("{}\n")
    return tmp_path


def test_plateaus_and_comparisons(course, capsys):
    assert run(["dynamics", str(course), "--json", "--out", str(course / "d")]) == 0
    answer = json.loads(capsys.readouterr().out)
    by_name = {one["run"]: one for one in answer["tables"]["plateaus"]}
    assert list(by_name) == ["p0.0", "p0.01", "p0.1"]
    assert by_name["p0.0"]["verdict"] == "settled"
    assert by_name["p0.01"]["verdict"] == "still falling"
    assert by_name["p0.01"]["low"] < -0.2 < by_name["p0.01"]["high"] < 0
    assert by_name["p0.1"]["verdict"].startswith("not decided")
    assert {row["step"] for row in answer["tables"]["equal_steps"]} == {60}
    assert "45 training seconds" in answer["caveats"][0]
    reached = {row["run"]: row["step"] for row in answer["tables"]["equal_seconds"]}
    assert reached == {"p0.0": 40, "p0.01": 90, "p0.1": 40}
    (finding,) = read_report(course / "d" / "dynamics.json").findings
    assert undeclared(finding) == absent(finding, finding.metrics) == []
    assert "still falling" in (course / "d" / "dynamics.html").read_text()
    drawn = {path.stem for path in (course / "d" / "figures").iterdir()}
    # No run has logged its KL.
    assert drawn == {
        f"dynamics-{name}"
        for name in (
            "fve-raw-variance-by-step",
            "fve-raw-variance-by-seconds",
            "content-tokens-by-step",
            "extracted-by-step",
            "cjk-by-step",
        )
    }


def test_a_picture_is_no_folder(course, capsys):
    assert run(["dynamics", str(course), "--out", "d.svg"]) == 2
    assert "name a folder" in capsys.readouterr().err


def test_the_interval_covers_the_slope_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 1, 40)
        for at in range(1, 40):  # neighbouring steps share weights
            noise[at] += 0.5 * noise[at - 1]
        _, low, high = _slope(0.05 * np.arange(40) + noise, seed)
        covered += low <= 0.05 <= high
    assert covered / 200 > 0.8  # blocks of a short tail are somewhat too narrow, known of them


def test_words_for_people(course, capsys):
    assert run(["dynamics", str(course / "rl" / "p0.0"), str(course / "rl" / "p0.01")]) == 0
    out = capsys.readouterr().out
    assert "p0.01: length still falling" in out
    assert "those up to 90" in " ".join(out.split())


GOOD = {"kind": "step", "step": 7, "seconds": 7.0, "content_tokens": 7.0}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"kind": "step", "step": 1', "not JSON"),
        (b'{"step": ' + 5000 * b"9" + b"}", "not JSON"),
        (5000 * b'{"a":' + b"1" + 5000 * b"}", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1]", "expected an object, found [1]"),
        (b"null", "expected an object, found None"),
        (b"{}", "step must be a whole number, found None"),
        (b'{"step": true}', "step must be a whole number, found True"),
        (b'{"step": 8, "content_tokens": "x"}', "content_tokens must be a number, found 'x'"),
        (b'{"step": 8, "seconds": [1]}', "seconds must be a number, found [1]"),
        (b'{"step": 7}', "step 7 stands in line 1 too"),
        (b'{"step": 8}', "no held-out measurement in it yet"),
        (b'{"step": 8, "kind": "held_out"}', "no held-out measurement says its seconds"),
    ],
)
def test_logs_that_cannot_be_read(tmp_path, capsys, line, told):
    (tmp_path / "metrics.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n" + line + b"\n")
    assert run(["dynamics", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
    assert str(tmp_path / "metrics.jsonl") in error


def test_a_log_without_a_step(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text("\n")
    assert run(["dynamics", str(tmp_path)]) == 2
    assert "no step in it yet" in capsys.readouterr().err


def test_the_order_of_the_lines_does_not_matter(tmp_path):
    """Steps that stand in the other order are no length that rises."""
    write_run(tmp_path / "p0.0", 40 - 0.2 * np.arange(90))
    path = tmp_path / "p0.0" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n\n".join(reversed(lines)))
    (log,) = read_runs([tmp_path / "p0.0"])
    assert log.steps["step"].to_list() == list(range(1, 91))
    assert plateau(log).verdict == "still falling"


def test_a_run_that_measured_nothing_in_that_time_has_no_figures(tmp_path):
    write_run(tmp_path / "a" / "p0.0", np.full(20, 40.0), seconds_per_step=0.1)
    write_run(tmp_path / "b" / "p0.0", np.full(20, 40.0))
    path = tmp_path / "b" / "p0.0" / "metrics.jsonl"
    path.write_text(path.read_text().split("\n", 1)[1])  # its first measurement is at step 10
    _, rows = at_equal_seconds(read_runs([tmp_path / "a" / "p0.0", tmp_path / "b" / "p0.0"]))
    assert rows["fve_raw_variance"].to_list() == [0.5, None]


def test_a_folder_without_runs(tmp_path, capsys):
    assert run(["dynamics", str(tmp_path)]) == 2
    assert "no metrics.jsonl" in capsys.readouterr().err
