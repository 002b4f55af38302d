"""The running average of a co-trained AR: what it is, who reads by it, and that it resumes."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nla_audit.checkpoint.load import load
from nla_audit.cli import run as command_line
from nla_audit.train.averaging import Average
from nla_audit.train.clock import Clock
from nla_audit.train.interruption import Stopped, StopSignal
from nla_audit.train.ranks import Ranks
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.state import METRICS_FILE, STATE_FILE, read_metrics
from tests.train.children import in_two_processes
from tests.train.test_course import MINI, write
from tests.train.test_ranks import SHARED, make_smooth_run
from tests.train.test_resume import SETTINGS, STEPS, make_run, without_times

DECAY = 0.7
AVERAGED = SETTINGS.model_copy(update={"ar_ema": DECAY})


def test_the_average_is_what_its_definition_says():
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    average = Average({"w": weight}, 0.9)
    wanted = weight.detach().clone()
    for value in (3.0, 5.0, -1.0):
        with torch.no_grad():
            weight.fill_(value)
        average.update()
        wanted = 0.9 * wanted + 0.1 * value
        torch.testing.assert_close(average.tensors["w"], wanted, rtol=1e-15, atol=0)
    with average.in_place():
        torch.testing.assert_close(weight.detach(), wanted, rtol=1e-15, atol=0)
    assert weight.tolist() == [-1.0, -1.0]
    torch.testing.assert_close(average.tensors["w"], wanted, rtol=1e-15, atol=0)


def averages(folder):
    tensors = load_file(folder / STATE_FILE)
    return {name: one for name, one in tensors.items() if name.endswith("/average")}


@pytest.fixture(
    scope="module", params=["whole AR", pytest.param("adapters", marks=pytest.mark.slow)]
)
def settings(request):
    more = {} if request.param == "whole AR" else {"ar_lora": Lora(rank=2, alpha=4.0)}
    return AVERAGED.model_copy(update=more)


def test_it_follows_the_trained_weights_and_reads_for_the_reward(warm, tmp_path, settings):
    # Fails with: the average of the first weights only; the reward by the trained weights; the
    # trained weights not put back.
    run = make_run(warm, tmp_path, settings)
    trainer = run.trainers["ar"]
    wanted = {name: one.detach().clone() for name, one in trainer.parameters.items()}
    for step in range(3):
        run._step(step)
        for name, parameter in trainer.parameters.items():
            wanted[name] = DECAY * wanted[name] + (1 - DECAY) * parameter.detach()
            torch.testing.assert_close(trainer.average.tensors[name], wanted[name])
    draw = run.sampler.draw(3, Clock(torch.device("cpu"))).drawn
    texts, activations = draw.samples.explanations, draw.activations
    by_trained = run.arms.training.score(texts, activations).mse
    with trainer.average.in_place():
        by_average = run.arms.training.score(texts, activations).mse
    np.testing.assert_allclose(draw.samples.mse, by_average, rtol=1e-6)
    assert not np.allclose(by_trained, by_average, rtol=1e-4)
    for name, parameter in trainer.parameters.items():
        assert not torch.equal(parameter, trainer.average.tensors[name]) or not parameter.any()


def test_it_resumes_exactly(warm, tmp_path, settings):
    # Fails with: the average begun anew from the restored weights.
    make_run(warm, tmp_path / "whole", settings).run(StopSignal(), lambda _: None)
    stop = StopSignal()

    def ask(step):
        stop.requested = step == 2

    with pytest.raises(Stopped):
        make_run(warm, tmp_path / "parts", settings).run(stop, ask)
    make_run(warm, tmp_path / "parts", settings).run(StopSignal(), lambda _: None)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / one / STATE_FILE) for one in ("parts", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert averages(tmp_path / "whole")


def test_what_is_measured_saved_and_kept_is_the_average(warm, tmp_path):
    update = {"keep": "best_fve", "evaluate": SETTINGS.evaluate.model_copy(update={"every": 1})}
    run = make_run(warm, tmp_path, AVERAGED.model_copy(update=update))
    run.run(StopSignal(), lambda _: None)
    held_out = [one for one in read_metrics(tmp_path / METRICS_FILE) if one["kind"] == "held_out"]
    assert held_out[-1]["step"] == STEPS
    trained = {name: one.detach().clone() for name, one in run.trainers["ar"].parameters.items()}
    with run.to_be_saved():
        for name, tensor in averages(tmp_path).items():
            saved = run.trainers["ar"].parameters[name.removeprefix("ar/").removesuffix("/average")]
            assert torch.equal(saved, tensor), name
        by_average = run._held_out()["own_fve_raw_variance"]
    for name, parameter in run.trainers["ar"].parameters.items():
        assert torch.equal(parameter, trained[name])
    assert held_out[-1]["own_fve_raw_variance"] == pytest.approx(by_average, rel=1e-9)
    assert run._held_out()["own_fve_raw_variance"] != pytest.approx(by_average, rel=1e-6)
    kept = run.restore_kept()
    best = load_file(tmp_path / f"best-{kept.step}.safetensors")
    for name, tensor in run.trainers["ar"].average.tensors.items():
        assert torch.equal(tensor, best[f"ar/{name}/average"])


@pytest.mark.slow
def test_divided_weights_have_the_same_average(warm, tmp_path):
    settings = SHARED.model_copy(update={"ar_ema": DECAY})
    make_smooth_run(warm, tmp_path / "one", settings).run(StopSignal(), lambda _: None)
    shared = settings.model_copy(update={"sharding": "fsdp2"})

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path / 'meet'}")
        run = make_smooth_run(warm, tmp_path / "two", shared, ranks=ranks)
        run.run(StopSignal(), lambda _: None)

    in_two_processes(work)
    one, two = (tmp_path / name for name in ("one", "two"))
    ours, wanted = averages(two), averages(one)
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_ar_of_a_course_is_the_average(tmp_path):
    raw = copy.deepcopy(MINI)
    raw["rl"] |= {"ar_ema": 0.5, "length_penalties": [0.01]}
    del raw["rl"]["ar_lora"]
    out = tmp_path / "out"
    assert command_line(["train", write(tmp_path, raw), "--out", str(out)]) == 0
    folder = out / "rl" / "p0.01"
    assert json.loads((folder / "done.json").read_text())["ar_trained_in_rl"]
    saved = load(ar=folder / "ar").reconstructor
    tensors = load_file(folder / STATE_FILE)
    assert torch.equal(saved.head, tensors["ar/value_head.weight/average"])
    assert not torch.equal(saved.head, tensors["ar/value_head.weight/weight"])
