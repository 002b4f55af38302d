"""Groups that teach nothing are left out or replaced; advantages over the step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nla_audit.train.clock import Clock
from nla_audit.train.credit import end_advantages, is_telling
from nla_audit.train.grpo import Settings, response_weights
from nla_audit.train.interruption import Stopped, StopSignal
from nla_audit.train.log_probs import micro_batches
from nla_audit.train.ranks import Ranks
from nla_audit.train.state import METRICS_FILE, STATE_FILE, read_metrics
from nla_audit.train.update import Experience, accumulate_gradients, warm_log_probs
from tests.train.children import in_two_processes
from tests.train.test_ranks import SHARED, assert_same_run, make_smooth_run
from tests.train.test_resume import SETTINGS, make_run, without_times

#: Whether a response failed is all that counts, so many groups are all alike.
ROUGH = {
    "rewards": {"failed": -1.0},
    "train_ar": False,
    "samples": 3,
    "prompts": 6,
    "kl": 0.3,
    "max_new_tokens": 9,
}


def rough(**more):
    return SETTINGS.model_copy(update={**ROUGH, **more})


def drawn(warm, folder, step=0, **more):
    run = make_run(warm, folder, rough(**more), penalty=0.0)
    return run, run.sampler.draw(step, Clock(torch.device("cpu")))


def steps_of(folder):
    return [one for one in read_metrics(folder / METRICS_FILE) if one["kind"] == "step"]


def test_advantages_over_the_step_equal_the_obvious_ones():
    # Fails with: the spread of rewards and not about the groups' means; one taken of each group;
    # ends that were not reached counted as 0.
    rng = np.random.default_rng(0)
    values, group = rng.normal(size=(8, 2)) * np.repeat([1.0, 10.0], 4)[:, None], 4
    reached = np.array([[1, 1], [0, 1], [1, 1], [0, 1], [1, 1], [1, 1], [1, 1], [0, 1]], bool)
    worth, centered = [], np.zeros(values.shape)
    for first in (0, 4):
        rows = range(first, first + 4)
        means = [
            sum(values[r, e] for r in rows if reached[r, e]) / sum(reached[r, e] for r in rows)
            for e in range(2)
        ]
        of_group = [
            sum(values[r, e] if reached[r, e] else means[e] for e in range(2)) for r in rows
        ]
        worth += [one - sum(of_group) / 4 for one in of_group]
        for r in rows:
            for e in range(2):
                centered[r, e] = values[r, e] - means[e] if reached[r, e] else 0.0
    spread = math.sqrt(sum(one**2 for one in worth) / len(worth))
    found = end_advantages(values, reached, group, "batch_standardized")
    np.testing.assert_allclose(found, centered / (spread + 1e-6), rtol=1e-12)
    # Half of the step in each of two processes.
    other = np.array(worth[4:])
    half = end_advantages(
        values[:4], reached[:4], group, "batch_standardized", lambda own: np.append(own, other)
    )
    np.testing.assert_allclose(half, found[:4], rtol=1e-12)


def test_a_group_that_hardly_differs_is_not_blown_up():
    values = np.array([0.0, 1e-4, 0.0, 1.0])[:, None]
    reached = np.ones(values.shape, bool)
    of_group = end_advantages(values, reached, 2, "standardized")[:, 0]
    of_step = end_advantages(values, reached, 2, "batch_standardized")[:, 0]
    assert abs(of_group[0]) > 0.9
    assert abs(of_step[0]) < 1e-3
    assert of_step[3] > 1


def test_what_tells_is_what_has_an_advantage():
    values = np.array([[1.0, 2.0], [1.0, 2.0], [0.0, 2.0], [5.0, 2.0], [0.3, 1.0], [0.3, 1.5]])
    reached = np.ones(values.shape, bool)
    reached[2, 0] = False  # only one response of its group reached that end: nothing to compare
    assert is_telling(values, reached, 2).tolist() == [False, False, True]
    advantages = end_advantages(values, reached, 2, "centered")
    assert (advantages.reshape(3, -1) != 0).any(axis=1).tolist() == [False, False, True]


@pytest.mark.parametrize("how", ["sample", "batch", "constant"])
def test_left_out_the_gradient_is_that_of_the_rest_alone(warm, tmp_path, how):
    # Fails with: weights over all responses; the KL of groups that are left out.
    run, draw = drawn(warm, tmp_path, flat_groups="leave_out", length_normalization=how)
    used = np.flatnonzero(draw.is_used)
    assert 0 < len(used) < len(draw.is_used)
    whole = run._experience(draw)
    assert sorted(np.concatenate([one.rows for one in whole.batches])) == used.tolist()
    policy, one = run.policy, draw.drawn
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # away from the warm start, so that there is a KL
        for parameter in policy.parameters.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    lengths = one.lengths[used]
    rest = Experience(
        activations=whole.activations[used],
        old_log_probs=whole.old_log_probs[used],
        credit=whole.credit[used],
        weights=response_weights(lengths, how, run.settings.max_new_tokens),
        batches=micro_batches(
            one.token_ids[used],
            lengths,
            len(policy.verbalizer.prompt.ids),
            None,
            torch.device("cpu"),
        ),
    )
    found = []
    for experience in (whole, rest):
        warm_ones = warm_log_probs(policy, experience)
        measures = accumulate_gradients(policy, experience, warm_ones, Settings(0.2, 0.3))
        found.append((measures, [p.grad.clone() for p in policy.parameters.values()]))
        run.trainers["av"].zero_grad()
    (ours, gradients), (theirs, wanted) = found
    assert ours.tokens == theirs.tokens == lengths.sum()
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)
    for left, right in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-7)


def test_replaced_are_flat_groups_only_by_activations_that_the_step_has_not(warm, tmp_path):
    # Fails with: replacements that are flat taken all the same; a row drawn twice in a step; the
    # texts of a group beside another group's activations.
    for step in range(10):  # until it is a step that has some to replace
        run, draw = drawn(warm, tmp_path / "replace", step, flat_groups="replace")
        if draw.is_replaced.any() and not draw.is_used.all():
            break
    _, kept = drawn(warm, tmp_path / "keep", step)
    group = run.settings.samples
    assert 0 < draw.is_replaced.sum() < draw.was_flat.sum() < len(draw.was_flat)
    assert not (draw.is_replaced & ~draw.was_flat).any()
    assert draw.is_used.tolist() == np.repeat(~draw.was_flat | draw.is_replaced, group).tolist()
    assert draw.drawn.telling(group).tolist() == draw.is_used[::group].tolist()
    untouched = np.repeat(~draw.is_replaced, group)
    np.testing.assert_array_equal(draw.drawn.values[untouched], kept.drawn.values[untouched])
    rows = {tuple(vector) for vector in draw.drawn.activations}
    assert len(rows) == run.settings.prompts
    assert rows <= {
        tuple(vector) for vector in warm.dataset.activations[warm.dataset.training_rows]
    }
    # What was read, generated and counted still belongs together, row by row.
    one = draw.drawn
    texts = run.policy.verbalizer.decode(
        [ids[:length].tolist() for ids, length in zip(one.token_ids, one.lengths, strict=True)]
    )
    for text, explanation in zip(texts, one.samples.explanations, strict=True):
        assert explanation is None or explanation in text
    assert (one.samples.n_tokens == one.lengths).all()
    mse = run.arms.training.score(one.samples.explanations, one.activations).mse
    np.testing.assert_allclose(one.samples.mse, mse, rtol=1e-6)


def test_no_more_is_sampled_than_the_rounds_allow(warm, tmp_path):
    # Nothing ever tells: every round draws again for every group, and then it is enough.
    run = make_run(
        warm,
        tmp_path,
        rough(rewards={"cjk": 1.0}, flat_groups="replace", replacement_rounds=2, steps=2),
        penalty=0.0,
    )
    before = [parameter.detach().clone() for parameter in run.policy.parameters.values()]
    sizes = []
    real = run.sampler._prompts_of

    def counted(chosen):
        sizes.append(len(chosen))
        return real(chosen)

    run.sampler._prompts_of = counted
    assert run.run(StopSignal(), lambda _: None).skipped == 0
    assert sizes == [6, 6, 6] * 2
    for one in steps_of(tmp_path):
        assert (one["flat_groups"], one["left_out_groups"], one["replaced_groups"]) == (1, 1, 0)
        assert (one["grad_norm"], one["kl"], one["loss"]) == (0, 0, 0)
    for parameter, old in zip(run.policy.parameters.values(), before, strict=True):
        assert torch.equal(parameter, old)


def test_a_step_without_a_telling_group_moves_nothing_by_momentum(warm, tmp_path):
    run = make_run(warm, tmp_path, rough(flat_groups="leave_out"), penalty=0.0)
    record, _ = run._step(0)
    assert record["left_out_groups"] < 1
    before = [parameter.detach().clone() for parameter in run.policy.parameters.values()]
    real = run.sampler.draw

    def flat(step, clock):
        draw = real(step, clock)
        draw.is_used[:] = False
        return draw

    def zeros(parameters):
        """As where processes put their gradients together: none of them has any."""
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    run.sampler.draw, run.ranks.sum_gradients = flat, zeros
    record, is_sound = run._step(1)
    assert is_sound
    for parameter, old in zip(run.policy.parameters.values(), before, strict=True):
        assert torch.equal(parameter, old)


def test_the_log_says_how_many_there_were(warm, tmp_path):
    for how in ("keep", "leave_out", "replace"):
        settings = rough(flat_groups=how)
        make_run(warm, tmp_path / how, settings, penalty=0.0).run(StopSignal(), lambda _: None)
    kept, left, replaced = (steps_of(tmp_path / how) for how in ("keep", "leave_out", "replace"))
    assert kept[0]["flat_groups"] == left[0]["flat_groups"] == replaced[0]["flat_groups"] > 0
    assert all(one["left_out_groups"] == one["flat_groups"] for one in left)
    assert any(one["replaced_groups"] > 0 for one in replaced)
    for one in replaced:
        together = one["left_out_groups"] + one["replaced_groups"]
        assert together == pytest.approx(one["flat_groups"])
    assert not {"left_out_groups", "replaced_groups"} & kept[0].keys()


def test_a_run_that_replaces_resumes_exactly(warm, tmp_path):
    settings = rough(flat_groups="replace", advantage="batch_standardized")
    make_run(warm, tmp_path / "whole", settings).run(StopSignal(), lambda _: None)
    stop = StopSignal()

    def ask(step):
        stop.requested = step == 2

    with pytest.raises(Stopped):
        make_run(warm, tmp_path / "parts", settings).run(stop, ask)
    make_run(warm, tmp_path / "parts", settings).run(StopSignal(), lambda _: None)
    assert without_times(tmp_path / "parts") == without_times(tmp_path / "whole")
    ours, theirs = (load_file(tmp_path / one / STATE_FILE) for one in ("parts", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp2"])
def test_two_processes_leave_out_and_replace_the_same(warm, tmp_path, sharding):
    # Fails with: replacements drawn by each process for itself; a process with nothing to replace
    # that goes on while the other puts a model together.
    settings = SHARED.model_copy(
        update={
            **ROUGH,
            "prompts": 4,
            "flat_groups": "replace",
            "advantage": "batch_standardized",
            "sharding": sharding,
        }
    )
    make_smooth_run(warm, tmp_path / "one", settings.model_copy(update={"sharding": "none"})).run(
        StopSignal(), lambda _: None
    )
    assert any(one["replaced_groups"] for one in steps_of(tmp_path / "one"))
    assert any(one["left_out_groups"] for one in steps_of(tmp_path / "one"))

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path / 'meet'}")
        run = make_smooth_run(warm, tmp_path / "two", settings, ranks=ranks)
        run.run(StopSignal(), lambda _: None)

    in_two_processes(work)
    assert_same_run(tmp_path / "two", tmp_path / "one", settings)
