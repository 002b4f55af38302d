"""A run that was killed goes on to exactly the metrics it would have had."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import nla_audit.train.state as state_module
from nla_audit.errors import UserError
from nla_audit.nla import adamw
from nla_audit.train.interruption import Stopped, StopSignal
from nla_audit.train.recipe_optimizer import Lora, Optimizer
from nla_audit.train.recipe_rl import Evaluating, Rl
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.state import METRICS_FILE, STATE_FILE, read_metrics
from nla_audit.train.update import Trainer
from tests.train import miniature
from tests.train.children import exit_code

STEPS = 5
SETTINGS = Rl(
    length_penalties=(0.01,),
    steps=STEPS,
    prompts=3,
    samples=4,
    max_new_tokens=16,
    lora=Lora(rank=2, alpha=4.0),
    optimizer=Optimizer(learning_rate=5e-3, schedule="constant", warmup_steps=0),
    ar_optimizer=Optimizer(learning_rate=1e-3, schedule="constant", warmup_steps=0),
    train_ar=True,
    evaluate=Evaluating(every=2, rows=4),
    checkpoint_every=2,
    updates_per_step=2,
)


def make_run(warm, folder, settings=SETTINGS, *, key="k", penalty=0.01, ranks=None):
    arms = Arms(miniature.reconstructor(), miniature.reconstructor())
    if not settings.train_ar:
        arms = Arms(arms.ruler, arms.ruler)
    return RlRun(
        warm.fresh(),
        arms,
        warm.dataset,
        settings,
        length_penalty=penalty,
        seed=7,
        folder=folder,
        key=key,
        ranks=ranks,
    )


def without_times(folder):
    records = read_metrics(folder / METRICS_FILE)
    timed = ("time", "seconds")
    return [{name: value for name, value in one.items() if name not in timed} for one in records]


@pytest.fixture(scope="module")
def uninterrupted(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "p0.01"
    make_run(warm, folder).run(StopSignal(), lambda _: None)
    return folder


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
def test_killed_at_any_step_and_resumed(warm, uninterrupted, tmp_path, killed_after):
    # Fails with: optimiser averages left out of the state; a generator carried from step to
    # step; the log not cut back to the state; the AR's weights not saved.
    def die(step):
        if step == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    ended = exit_code(lambda: make_run(warm, tmp_path).run(StopSignal(), die))
    assert ended == -signal.SIGKILL
    saved = killed_after // SETTINGS.checkpoint_every * SETTINGS.checkpoint_every
    assert (tmp_path / STATE_FILE).is_file() == (saved > 0)
    make_run(warm, tmp_path).run(StopSignal(), lambda _: None)
    assert without_times(tmp_path) == without_times(uninterrupted)
    ours, theirs = load_file(tmp_path / STATE_FILE), load_file(uninterrupted / STATE_FILE)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.usefixtures("as_it_is")
def test_compiled_decoding_changes_no_more_than_rounding(warm, uninterrupted, tmp_path):
    # Fails with: steps compiled before the adapters were there, which then sample for ever as at
    # the start; log-probabilities of other rows.
    settings = SETTINGS.model_copy(update={"decoding": "compiled", "steps": 2})
    run = make_run(warm, tmp_path, settings)
    assert run.policy.verbalizer.steps is not None
    run.run(StopSignal(), lambda _: None)
    ours, theirs = (
        [one for one in without_times(folder) if one["kind"] == "step"]
        for folder in (tmp_path, uninterrupted)
    )
    for step in range(2):
        for name in ("n_tokens", "reward", "kl"):
            wanted = pytest.approx(theirs[step][name], rel=1e-3, abs=1e-6)
            assert ours[step][name] == wanted, name


def test_a_state_goes_on_under_another_kernel(tmp_path, monkeypatch):
    # Fails with: averages or the count of steps not taken over, whose steps would be many times
    # as long; the count of steps where a fused kernel cannot read it.
    draws = torch.Generator().manual_seed(0)
    start = {name: torch.randn(30, 7, generator=draws) for name in ("a", "b")}
    gradients = [torch.randn(30, 7, generator=draws) for _ in range(2 * STEPS)]

    def trainer():
        weights = {name: nn.Parameter(value.clone()) for name, value in start.items()}
        return Trainer(weights, SETTINGS.optimizer, steps=2 * STEPS)

    def train(one, steps):
        for step in steps:
            for weight in one.parameters.values():
                weight.grad = gradients[step].clone()
            one.step(step)

    with monkeypatch.context() as before:
        before.setattr(adamw, "_FUSED_ON", frozenset())
        whole = trainer()
    train(whole, range(STEPS))
    state_module.save_state(tmp_path, "k", state_module.Progress(STEPS), {"av": whole})
    fused = trainer()
    assert [one.optimizer.param_groups[0]["fused"] for one in (whole, fused)] == [None, True]
    state_module.load_state(tmp_path, "k", {"av": fused})
    for one in (whole, fused):
        train(one, range(STEPS, 2 * STEPS))
    for name, weight in whole.parameters.items():
        assert (weight - start[name]).abs().mean() > 1e-3
        torch.testing.assert_close(fused.parameters[name], weight, rtol=1e-5, atol=1e-7)


def test_the_log_says_what_is_needed_to_judge_a_run(uninterrupted):
    records = read_metrics(uninterrupted / METRICS_FILE)
    steps = [one for one in records if one["kind"] == "step"]
    held_out = [one for one in records if one["kind"] == "held_out"]
    assert [one["step"] for one in steps] == list(range(1, STEPS + 1))
    assert [one["step"] for one in held_out] == [0, 2, 4, 5]
    wanted = {"reward", "terms", "flat_groups", "n_tokens", "content_tokens", "extracted", "cjk"}
    wanted |= {"kl", "clip_share", "grad_norm", "fve_raw_variance", "fve_mean_normalized", "time"}
    assert wanted <= steps[0].keys()
    assert steps[0]["kl"] != steps[-1]["kl"]
    assert steps[0]["terms"].keys() == {"negative_mse", "length"}
    assert set(steps[0]["time"]) == {
        "generate",
        "score",
        "reference",
        "update",
        "ar_update",
        "step",
    }
    assert "own_fve_raw_variance" in held_out[-1]
    assert steps[0]["ar_loss"] > 0


def test_adapters_of_the_ar_resume_exactly_and_leave_the_ruler_alone(warm, tmp_path):
    # Fails with: the AR's adapters drawn without the seed; all of the AR's weights trained beside
    # them; the ruler trained along.
    settings = SETTINGS.model_copy(update={"ar_lora": Lora(rank=2, alpha=4.0)})
    whole = make_run(warm, tmp_path / "whole", settings)
    names = set(whole.trainers["ar"].parameters)
    assert all(".rl." in name for name in names - {"value_head.weight"})
    frozen = {n: p.clone() for n, p in whole.arms.training.model.named_parameters()}
    ruler = {n: p.clone() for n, p in whole.arms.ruler.model.named_parameters()}
    whole.run(StopSignal(), lambda _: None)
    for name, parameter in whole.arms.training.model.named_parameters():
        assert torch.equal(parameter, frozen[name]) == (name not in names), name
    for name, parameter in whole.arms.ruler.model.named_parameters():
        assert torch.equal(parameter, ruler[name])
    assert torch.equal(whole.arms.ruler.head, torch.eye(miniature.D_MODEL))
    assert not torch.equal(whole.arms.training.head, torch.eye(miniature.D_MODEL))

    stop = StopSignal()
    torch.rand(1)  # whoever draws from the global generator draws something else from here on

    def ask(step):
        stop.requested = step == 2

    with pytest.raises(Stopped):
        make_run(warm, tmp_path / "parts", settings).run(stop, ask)
    make_run(warm, tmp_path / "parts", settings).run(StopSignal(), lambda _: None)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / one / STATE_FILE) for one in ("parts", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_ctrl_c_saves_and_the_run_goes_on(warm, uninterrupted, tmp_path):
    stop = StopSignal()

    def ask(step):
        if step == 2:
            stop.requested = True

    with pytest.raises(Stopped, match="stopped after step 3"):
        make_run(warm, tmp_path).run(stop, ask)
    make_run(warm, tmp_path).run(StopSignal(), lambda _: None)
    assert without_times(tmp_path) == without_times(uninterrupted)


def test_a_full_disk_leaves_the_previous_state_whole(warm, tmp_path, monkeypatch):
    real = state_module.save_file
    calls = []

    def full(tensors, path, metadata):
        calls.append(path)
        if len(calls) == 2:
            with open(path, "wb") as file:
                file.write(b"half")
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata=metadata)

    monkeypatch.setattr(state_module, "save_file", full)
    with pytest.raises(UserError, match=r"state\S*: cannot write \(No space left"):
        make_run(warm, tmp_path).run(StopSignal(), lambda _: None)
    files = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert files == [METRICS_FILE, STATE_FILE]
    steps = []
    make_run(warm, tmp_path).run(StopSignal(), steps.append)
    assert steps == [3, 4, 5]


def test_a_state_of_other_settings_is_refused(warm, uninterrupted):
    with pytest.raises(UserError, match="made by another recipe"):
        make_run(warm, uninterrupted, key="other").run(StopSignal(), lambda _: None)


def test_a_damaged_state_is_named(warm, tmp_path):
    (tmp_path / STATE_FILE).write_bytes(b"not a safetensors file")
    with pytest.raises(UserError, match="damaged"):
        make_run(warm, tmp_path).run(StopSignal(), lambda _: None)


def test_losses_that_are_not_finite_are_skipped_counted_and_end_the_run(warm, tmp_path):
    settings = SETTINGS.model_copy(update={"train_ar": False, "max_skipped_steps": 2})
    run = make_run(warm, tmp_path, settings)
    before = [parameter.detach().clone() for parameter in run.policy.parameters.values()]
    real = run._experience

    def broken(*arguments):
        experience = real(*arguments)
        experience.credit[0] = np.nan
        return experience

    run._experience = broken
    with pytest.raises(UserError, match="2 steps in a row without a finite loss"):
        run.run(StopSignal(), lambda _: None)
    records = [one for one in read_metrics(tmp_path / METRICS_FILE) if one["kind"] == "step"]
    assert [one["skipped"] for one in records] == [1, 2]
    assert [one["loss"] for one in records] == [None, None]
    for parameter, old in zip(run.policy.parameters.values(), before, strict=True):
        assert torch.equal(parameter, old)


def test_a_time_budget_ends_a_run(warm, tmp_path):
    settings = SETTINGS.model_copy(update={"minutes": 1e-6, "train_ar": False})
    done = make_run(warm, tmp_path, settings).run(StopSignal(), lambda _: None)
    assert done.step == 1


def test_length_penalty_shortens(warm, tmp_path):
    """With λ so large that nothing else counts, responses become as short as they can be."""
    settings = SETTINGS.model_copy(
        update={"steps": 12, "train_ar": False, "lora": None, "kl": 0.0, "updates_per_step": 1}
    )
    make_run(warm, tmp_path, settings, penalty=10.0).run(StopSignal(), lambda _: None)
    steps = [one for one in read_metrics(tmp_path / METRICS_FILE) if one["kind"] == "step"]
    assert np.mean([one["n_tokens"] for one in steps[-3:]]) < 0.7 * steps[0]["n_tokens"]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_run_in_which_everything_fails_goes_on(warm, tmp_path):
    """A cap of two tokens: no response can close its tags, all rewards are equal."""
    settings = SETTINGS.model_copy(update={"max_new_tokens": 2, "steps": 2})
    run = make_run(warm, tmp_path, settings)
    before = [parameter.detach().clone() for parameter in run.policy.parameters.values()]
    assert run.run(StopSignal(), lambda _: None).skipped == 0
    records = read_metrics(tmp_path / METRICS_FILE)
    steps = [one for one in records if one["kind"] == "step"]
    assert [one["extracted"] for one in records] == [0.0] * len(records)
    assert [one["flat_groups"] for one in steps] == [1.0, 1.0]
    assert [one["mse"] for one in records] == [None] * len(records)
    assert [one["terms"]["negative_mse"] for one in steps] == [-2.0, -2.0]
    assert [one["ar_loss"] for one in steps] == [None, None]
    for parameter, old in zip(run.policy.parameters.values(), before, strict=True):
        assert torch.equal(parameter, old)
