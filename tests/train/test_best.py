"""The best weights are kept as the recipe says, through a kill, and used."""

from __future__ import annotations

import copy
import json
import os
import signal

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from nla_audit.cli import run as command_line
from nla_audit.train.best import Best
from nla_audit.train.interruption import StopSignal
from nla_audit.train.ranks import Ranks
from nla_audit.train.recipe_optimizer import Optimizer
from nla_audit.train.recipe_rl import Evaluating
from nla_audit.train.recipe_warm_start import Supervised, WarmStart
from nla_audit.train.state import METRICS_FILE, read_metrics
from nla_audit.train.update import Trainer, trained_tensors
from nla_audit.train.warm_start import train_ar
from nla_audit.train.warm_start_stage import held_out_of_kept
from tests.train import miniature
from tests.train.children import exit_code, in_two_processes
from tests.train.test_course import MINI, write
from tests.train.test_resume import SETTINGS, STEPS, make_run, without_times

EVERY_STEP = {"evaluate": Evaluating(every=1, rows=6)}
FIGURES = {"best_fve": "fve_with_failures", "best_reward": "reward"}
KEEPING = SETTINGS.model_copy(update={"keep": "best_fve", **EVERY_STEP})


def held_out(folder, figure):
    records = read_metrics(folder / METRICS_FILE)
    return {one["step"]: one[figure] for one in records if one["kind"] == "held_out"}


def run_through(warm, folder, settings, *, penalty=0.01):
    """Train; the weights after each step, those that are left at the end, and what was kept."""
    run = make_run(warm, folder, settings, penalty=penalty)
    after = {0: copy.deepcopy(trained_tensors(run.trainers))}

    def note(step):
        after[step] = copy.deepcopy(trained_tensors(run.trainers))

    run.run(StopSignal(), note)
    kept = run.restore_kept()
    return after, trained_tensors(run.trainers), kept


def equal(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in theirs)


@pytest.fixture(scope="module")
def uninterrupted(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("best") / "p0.01"
    return folder, *run_through(warm, folder, KEEPING)


def test_the_weights_of_the_best_measurement_are_left(uninterrupted):
    # Fails with: the last of equally good ones; the optimiser's averages written along; the best
    # of the steps' own figures instead of the held-out ones.
    folder, after, left, kept = uninterrupted
    values = held_out(folder, "fve_with_failures")
    assert (kept.step, kept.value) == max(values.items(), key=lambda item: item[1])
    assert 0 < kept.step < STEPS, "a case that tells first, best and last apart"
    assert equal(left, after[kept.step])
    assert not equal(left, after[STEPS])
    (file,) = folder.glob("best-*")
    assert equal(load_file(file), after[kept.step])


@pytest.mark.parametrize(
    "killed_after", [3, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 4))]
)
def test_killed_at_any_step_the_same_is_kept(warm, uninterrupted, tmp_path, killed_after):
    # Fails with: what was better behind the state not forgotten; an older best deleted before a
    # state covers the newer one.
    def die(step):
        if step == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    ended = exit_code(lambda: make_run(warm, tmp_path, KEEPING).run(StopSignal(), die))
    assert ended == -signal.SIGKILL
    assert len(list(tmp_path.glob("best-*"))) <= 2
    folder, _, left, kept = uninterrupted
    _, ours, ours_kept = run_through(warm, tmp_path, KEEPING)
    assert ours_kept == kept
    assert equal(ours, left)
    assert without_times(tmp_path) == without_times(folder)
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{kept.step}.safetensors"]


def test_what_was_better_behind_the_state_is_forgotten(tmp_path):
    # Fails with: `go_on_from` that takes the highest step there is; `offer` that deletes what the
    # state still goes back to.
    weight = torch.nn.Parameter(torch.zeros(2))
    trainers = {"av": Trainer({"w": weight}, Optimizer(learning_rate=1.0), steps=9)}

    def offer(best, step, value):
        with torch.no_grad():
            weight.fill_(step)
        best.offer(step, value)

    best = Best(tmp_path, "k", trainers, "fve")
    best.go_on_from(0)
    for step, value in enumerate([0.1, float("nan"), 0.2, 0.3, 0.3]):
        offer(best, step, value)
        if step == 2:
            best.covered(2)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["best-2", "best-3"]
    offer(best, 5, 0.4)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["best-2", "best-5"]

    again = Best(tmp_path, "k", trainers, "fve")
    again.go_on_from(2)
    kept = again.restore()
    assert (kept.step, kept.value, weight.tolist()) == (2, 0.2, [2.0, 2.0])
    assert [path.stem for path in tmp_path.iterdir()] == ["best-2"]
    again.go_on_from(0)
    assert again.restore() is None
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_by_reward_a_penalised_run_keeps_a_shorter_answer(warm, tmp_path):
    found = {}
    for keep, figure in FIGURES.items():
        settings = SETTINGS.model_copy(
            update={"keep": keep, **EVERY_STEP, "steps": 8, "train_ar": False, "lora": None}
        )
        _, _, kept = run_through(warm, tmp_path / keep, settings, penalty=1.0)
        values = held_out(tmp_path / keep, figure)
        assert kept.value == values[kept.step] == max(values.values())
        found[keep] = held_out(tmp_path / keep, "n_tokens")[kept.step]
    assert found["best_reward"] < found["best_fve"]


@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
@pytest.mark.slow
def test_two_processes_keep_the_same(warm, tmp_path, sharding):
    settings = KEEPING.model_copy(update={"prompts": 4, "sharding": sharding})

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path / 'meet'}")
        run = make_run(warm, tmp_path / "two", settings, ranks=ranks)
        run.run(StopSignal(), lambda _: None)
        kept = run.restore_kept()
        left = trained_tensors(run.trainers)
        saved = load_file(tmp_path / "two" / f"best-{kept.step}.safetensors")
        assert equal(left, saved)
        values = held_out(tmp_path / "two", "fve_with_failures")
        assert kept.value == values[kept.step] == max(values.values())

    in_two_processes(work)


def test_a_warm_start_keeps_its_best(warm, tmp_path):
    # A rate that ruins what the first steps learnt.
    half = Supervised(
        steps=12,
        batch_size=8,
        optimizer=Optimizer(learning_rate=0.3, warmup_steps=10, schedule="constant"),
    )
    settings = WarmStart(ar=half, evaluate_every=1, checkpoint_every=5, keep="best_fve")
    reconstructor = miniature.reconstructor()
    kept = train_ar(
        reconstructor,
        warm.dataset,
        settings,
        seed=0,
        folder=tmp_path,
        key="k",
        stop=StopSignal(),
        tell=lambda _: None,
    )
    values = held_out(tmp_path, "fve_raw_variance")
    assert kept.value == values[kept.step] == max(values.values())
    assert kept.step < half.steps
    rows = warm.dataset.held_out_rows(settings.evaluation_rows)
    scores = reconstructor.score(
        [warm.dataset.explanations[row] for row in rows], warm.dataset.activations[rows]
    )
    assert float(np.mean(scores.fve)) == pytest.approx(kept.value, abs=1e-6)


@pytest.mark.slow
def test_completions_are_of_what_was_kept(tmp_path):
    raw = copy.deepcopy(MINI)
    raw["warm_start"]["keep"] = "best_fve"
    raw["rl"] |= {"keep": "best_fve", "steps": 4, "length_penalties": [1.0]}
    raw["rl"]["evaluate"] = {"every": 1, "rows": 12}
    out = tmp_path / "out"
    assert command_line(["train", write(tmp_path, raw), "--out", str(out)]) == 0
    folder = out / "rl" / "p1.0"
    done = json.loads((folder / "done.json").read_text())
    values = held_out(folder, "fve_with_failures")
    assert done["rl_steps"] == 4
    assert done["kept_step"] == max(values, key=values.get)
    table = pl.read_parquet(out / "completions" / "completions.parquet")
    assert table.filter(model="p1.0")["step"].unique().to_list() == [done["kept_step"]]
    for half in ("av", "ar"):
        assert f"kept_step: {done['kept_step']}" in (folder / half / "nla_meta.yaml").read_text()
        assert "kept_by:" in (out / "warm-start" / half / "nla_meta.yaml").read_text()
    for half, figure in (("av", "fve_with_failures"), ("ar", "fve_raw_variance")):
        training = out / "warm-start" / f"{half}-training"
        measured = held_out(training, figure)
        judged = held_out_of_kept(training)
        assert judged[figure] == max(measured.values())
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    best = load_file(folder / f"best-{done['kept_step']}.safetensors")
    for name, tensor in adapter.items():
        of_layer, matrix = name.removeprefix("base_model.model.").rsplit(".lora_", 1)
        half, kind = matrix.split(".", 1)
        assert torch.equal(tensor, best[f"av/{of_layer}.lora_{half}.rl.{kind}/weight"]), name
