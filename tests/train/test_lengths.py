"""What λ is paid for: free tokens, and the floor under answers that say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nla_audit.nla.fve import measure_baselines, squared_error
from nla_audit.train.credit import end_advantages
from nla_audit.train.grading import Ends
from nla_audit.train.interruption import StopSignal
from nla_audit.train.lengths import Charge, MeanGuess, says_nothing, segment_lengths, with_floor
from nla_audit.train.rewards import Graded, Samples, end_rewards, rewards_of
from nla_audit.train.state import METRICS_FILE, read_metrics
from tests.train import miniature
from tests.train.test_gradings import responses_from
from tests.train.test_resume import SETTINGS, make_run


def ends_of(stops):
    stops = np.array(stops)
    return Ends(stops, [], np.ones(stops.shape), np.ones(stops.shape))


def test_free_tokens_are_those_of_the_response_not_of_each_segment():
    # Fails with: a hinge at each segment; one that is applied after the differences.
    ends = ends_of([[3, 6, 9], [2, 0, 4], [1, 1, 1]])
    lengths = segment_lengths(None, ends, np.array([9, 4, 1]), Charge(free_tokens=4))
    assert lengths.tolist() == [[0, 2, 3], [0, 0, 0], [0, 0, 0]]
    whole = segment_lengths(None, ends, np.array([9, 4, 1]), Charge())
    assert whole.sum(axis=1).tolist() == [9, 4, 1]


def test_tags_are_free_only_where_they_are_counted():
    responses = responses_from(["<explanation> a b c </explanation>"])
    ends = ends_of([[int(responses.lengths[0])]])
    for charge, wanted in (
        (Charge("generated", 2), responses.lengths[0] - 2),
        (Charge("content", 2), 1),
        (Charge("content", 50), 0),
    ):
        lengths = segment_lengths(responses, ends, np.array([3]), charge)
        assert lengths.tolist() == [[wanted]]


def test_the_reward_of_completions_has_the_same_free_tokens():
    samples = Samples(
        ["a", None], np.array([0.5, np.nan]), np.array([9, 3]), np.array([5, 3]), np.zeros(2)
    )
    total, terms = rewards_of(
        samples, {"negative_mse": 1.0}, length_penalty=0.5, charge=Charge("content", 4)
    )
    assert terms["length"].tolist() == [-0.5, 0.0]
    assert total.tolist() == [-1.0, -2.0]


def test_what_says_nothing_is_as_long_as_the_longest_of_its_group():
    # Fails with: the longest of the step; the longest segment; those that say something raised.
    lengths = np.array([[2.0, 3.0], [0.0, 1.0], [4.0, 0.0], [9.0, 9.0], [0.0, 0.0], [1.0, 0.0]])
    nothing = np.array([False, True, True, False, True, False])
    assert with_floor(lengths, nothing, 3).tolist() == [
        [2.0, 3.0],
        [0.0, 5.0],
        [4.0, 1.0],
        [9.0, 9.0],
        [0.0, 18.0],
        [1.0, 0.0],
    ]


def test_nothing_is_said_where_the_mean_is_no_worse():
    explanations = [None, "", "same for all", "good", "unreadable"]
    mse = np.array([np.nan, 0.1, 0.9, 0.5, np.nan])
    found = says_nothing(explanations, mse, np.array([0.9] * 5))
    assert found.tolist() == [True, True, True, False, True]


@pytest.mark.parametrize("mse_scale", [None, 4.0])
def test_the_guess_is_the_raw_variance_baseline(monkeypatch, mse_scale):
    monkeypatch.setattr("nla_audit.train.lengths._CHUNK", 7)
    activations = miniature.activations(40) + 0.5
    guess = MeanGuess(activations, mse_scale)
    wanted = measure_baselines(activations, mse_scale).raw_variance
    assert guess.mse(activations).mean() == pytest.approx(wanted, rel=1e-12)
    # One constant text for every activation cannot beat it, whatever the AR makes of it.
    rng = np.random.default_rng(0)
    for _ in range(5):
        constant = np.tile(rng.normal(size=miniature.D_MODEL) + 0.5, (40, 1))
        mse, _ = squared_error(constant, activations, mse_scale)
        assert mse.mean() >= wanted


#: Answers of a bandit: text, tokens, mean MSE. The mean of all activations has 1.0.
ANSWERS = (("", 2, 1.1), ("the", 3, 1.05), ("short words", 6, 0.7), ("many more words", 20, 0.3))


def answered_most(*, free_tokens=0, has_floor=False, length_penalty=0.3, seed=0, steps=400):
    """The answer that a policy over :data:`ANSWERS` gives most after training, by its share."""
    rng = np.random.default_rng(seed)
    group, groups = 8, 4
    logits = torch.tensor([-1.0, -1.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    tokens, errors = (np.array([one[place] for one in ANSWERS]) for place in (1, 2))
    for _ in range(steps):
        said = rng.choice(4, size=group * groups, p=logits.detach().softmax(0).numpy())
        # Some activations are hard, and a reading is noisy.
        hard = np.repeat(rng.normal(0, 0.1, groups), group)
        mse = np.maximum(errors[said] + hard + rng.normal(0, 0.1, len(said)), 0.01)
        texts = [ANSWERS[one][0] for one in said]
        lengths = Charge(free_tokens=free_tokens).of(tokens[said])[:, None].astype(float)
        if has_floor:
            lengths = with_floor(lengths, says_nothing(texts, mse, 1.0 + hard), group)
        stops = tokens[said][:, None]
        ends = Ends(
            stops,
            [[text] for text in texts],
            np.ones(stops.shape),
            np.full(stops.shape, length_penalty),
        )
        samples = Samples(
            texts,
            mse,
            tokens[said],
            tokens[said],
            np.zeros(len(said)),
            Graded(ends, mse[:, None], lengths),
        )
        values, _ = end_rewards(samples, {"negative_mse": 1.0})
        advantages = end_advantages(values, ends.is_reached, group, "standardized")[:, 0]
        chosen = logits.log_softmax(0)[torch.from_numpy(said)]
        loss = -(chosen * torch.from_numpy(advantages)).mean()
        (gradient,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= 0.3 * gradient
    shares = logits.detach().softmax(0)
    return ANSWERS[int(shares.argmax())][0], float(shares.max())


@pytest.mark.parametrize("seed", range(3))
def test_a_large_penalty_falls_into_answering_nothing_unless_there_is_a_floor(seed):
    # Fails with: the floor under empty answers only (then "the" is said of everything); free
    # tokens that are taken off λ and not off the length.
    text, share = answered_most(seed=seed)
    assert (text, share > 0.9) == ("", True)
    text, share = answered_most(has_floor=True, seed=seed)
    assert (text, share > 0.9) == ("short words", True)
    text, share = answered_most(free_tokens=6, seed=seed)
    assert (text, share > 0.9) == ("short words", True)


def test_a_small_penalty_is_left_alone_by_the_floor():
    for has_floor in (False, True):
        text, _ = answered_most(has_floor=has_floor, length_penalty=0.001)
        assert text == "many more words"


def test_in_a_run_both_are_charged_and_logged(warm, tmp_path):
    # Fails with: the rule not passed on to scoring; the group taken for the whole step.
    found = {}
    for name, update in {
        "plain": {},
        "free": {"free_tokens": 5},
        "floor": {"nothing_pays": "longest_length"},
    }.items():
        settings = SETTINGS.model_copy(update={"steps": 1, "train_ar": False, **update})
        make_run(warm, tmp_path / name, settings, penalty=0.5).run(StopSignal(), lambda _: None)
        records = read_metrics(tmp_path / name / METRICS_FILE)
        (found[name],) = (one for one in records if one["kind"] == "step")
    assert found["plain"]["n_tokens"] == found["free"]["n_tokens"] == found["floor"]["n_tokens"]
    length = {name: one["terms"]["length"] for name, one in found.items()}
    assert length["plain"] == pytest.approx(-0.5 * found["plain"]["n_tokens"])
    assert length["plain"] < length["free"] <= length["plain"] + 0.5 * 5
    assert length["floor"] < length["plain"]
    assert 0 < found["floor"]["says_nothing"] <= 1
    assert "says_nothing" not in found["plain"]
