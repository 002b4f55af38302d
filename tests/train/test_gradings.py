"""Gradings: one end is the objective of before; the others against slow float64 ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nla_audit.errors import UserError
from nla_audit.train.credit import end_advantages, token_credit
from nla_audit.train.grading import Ends, Stopping, cards, read_grading
from nla_audit.train.grpo import Settings, response_weights, token_terms, weighted_loss
from nla_audit.train.interruption import Stopped, StopSignal
from nla_audit.train.ranks import Ranks
from nla_audit.train.read_recipe import parse_recipe
from nla_audit.train.responses import Responses
from nla_audit.train.rl import Arms
from nla_audit.train.rollout import repeated, responses_of
from nla_audit.train.state import STATE_FILE, read_metrics
from tests.train import miniature
from tests.train.children import in_two_processes
from tests.train.former import FormerRun, group_advantages
from tests.train.test_grpo import (
    CLIP,
    GROUP,
    KL,
    MAX_NEW_TOKENS,
    assert_gradients,
    policy,
    sampled,
    slow_log_probs,
)
from tests.train.test_ranks import (
    SHARED,
    assert_same_run,
    make_smooth_run,
    without_times,
)
from tests.train.test_resume import SETTINGS, make_run

__all__ = ["policy"]  # a fixture of test_grpo

#: One of each kind, as a recipe would say it; separators need an AV that has them.
GRADINGS = {
    "final": {"kind": "final"},
    "fixed": {"kind": "fixed_prefixes", "lengths": [1, 3, 500], "weights": [2.0, 0.5, 0.25]},
    "random": {"kind": "random_prefix", "longest": 4, "draw": "log_uniform"},
    "claims": {"kind": "random_prefix", "unit": "claims", "longest": 2, "draw": "tapered"},
    # A word of the language, so that the warm start says it without having learnt a new token.
    "separators": {
        "kind": "separators",
        "token": ".",
        "at_most": 2,
        "length_penalties": [0.01, 0.02, 0.05],
    },
}


def graded(name, **more):
    update = {"grading": read_grading(GRADINGS[name]), **more}
    return SETTINGS.model_copy(update=update)


@pytest.mark.parametrize("counts", ["generated", "content"])
@pytest.mark.parametrize("credit", ["segment", "response"])
@pytest.mark.parametrize("advantage", ["standardized", "centered"])
def test_one_end_is_the_objective_of_before_bit_for_bit(warm, tmp_path, counts, credit, advantage):
    # Fails with: the mean of a group summed in another order; the spread taken of deviations; λ
    # put on the reward with another sign or before the sum; credit only up to the last content.
    update = {"length_counts": counts, "credit": credit, "advantage": advantage, "samples": 9}
    update |= {"rewards": {"negative_mse": 1.0, "failed": -0.3, "repeated_words": -0.1}}
    settings = SETTINGS.model_copy(update=update)
    make_run(warm, tmp_path / "now", settings).run(StopSignal(), lambda _: None)
    now = make_run(warm, tmp_path / "x", settings)
    former = FormerRun(
        warm.fresh(),
        Arms(miniature.reconstructor(), miniature.reconstructor()),
        warm.dataset,
        settings,
        length_penalty=0.01,
        seed=7,
        folder=tmp_path / "former",
        key="k",
    )
    assert type(now) is not type(former)
    former.run(StopSignal(), lambda _: None)
    assert without_times(tmp_path / "now") == without_times(tmp_path / "former")
    ours, theirs = (load_file(tmp_path / one / STATE_FILE) for one in ("now", "former"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def slow_credit(values, stops, lengths, how):
    """Credit as its definition reads: loops over responses, tokens, ends and the group."""
    count, ends = values.shape
    out = []
    for i in range(count):
        group = range(i // GROUP * GROUP, i // GROUP * GROUP + GROUP)
        means = []
        for k in range(ends):
            there = [values[j, k] for j in group if stops[j, k] > 0]
            means.append(sum(there) / len(there) if there else 0.0)
        worth = [
            sum(values[j, k] if stops[j, k] > 0 else means[k] for k in range(ends)) for j in group
        ]
        mean = sum(worth) / GROUP
        std = math.sqrt(sum((one - mean) ** 2 for one in worth) / GROUP)
        row = []
        for t in range(lengths[i]):
            total = 0.0
            for k in range(ends):
                if stops[i, k] > 0 and (how == "response" or stops[i, k] > t):
                    total += (values[i, k] - means[k]) / (std + 1e-6)
            row.append(total)
        out.append(row)
    return out


#: Ends of six responses of these lengths in two groups, as each grading may make them.
LENGTHS = [9, 1, 4, 2, 7, 5]
STOPS = {
    "final": [[9], [1], [4], [2], [7], [5]],
    "fixed": [[3, 6, 9], [1, 1, 1], [3, 4, 4], [2, 2, 2], [3, 6, 7], [3, 5, 5]],
    # The second end is reached by one response of a group, or by none; the first by some.
    "separators": [[2, 5, 9], [0, 0, 1], [3, 0, 4], [0, 0, 2], [1, 0, 7], [4, 0, 5]],
}


@pytest.mark.parametrize("how", ["segment", "response"])
@pytest.mark.parametrize("ends", STOPS)
@pytest.mark.parametrize("budget", [10_000, 40])
def test_gradients_equal_the_obvious_implementation(policy, how, ends, budget):
    # Fails with: `places <= reach`; a baseline over the whole group where only some reached an
    # end; each end divided by its own spread; credit not cut to the micro-batch's length.
    rng = np.random.default_rng(0)
    vocabulary = policy.verbalizer.model.config.vocab_size
    responses = [rng.integers(0, vocabulary, length).tolist() for length in LENGTHS]
    tensors = torch.from_numpy(np.repeat(miniature.activations(2), GROUP, axis=0))
    stops = np.array(STOPS[ends])
    values = rng.normal(size=stops.shape) * np.array([1.0, 3.0, 0.5])[: stops.shape[1]]
    values[stops == 0] = 0.0
    rows = [slow_log_probs(policy.verbalizer, tensors[i], row) for i, row in enumerate(responses)]
    anchor = miniature.verbalizer()
    anchor.model.double()
    with torch.no_grad():
        warm_rows = [slow_log_probs(anchor, tensors[i], row) for i, row in enumerate(responses)]
    old_rows = [[v.detach() + rng.normal(0, 0.3) for v in row] for row in rows]
    credit = slow_credit(values, stops, LENGTHS, how)
    wanted_loss = 0.0
    for i, row in enumerate(rows):
        for t, value in enumerate(row):
            ratio = torch.exp(value - old_rows[i][t])
            clipped = torch.clamp(ratio, 1 - CLIP, 1 + CLIP)
            surrogate = torch.minimum(ratio * credit[i][t], clipped * credit[i][t])
            delta = warm_rows[i][t] - value
            kl = torch.exp(delta) - delta - 1
            wanted_loss = wanted_loss + (KL * kl - surrogate) / LENGTHS[i] / len(LENGTHS)
    made = Ends(stops, [], np.ones(stops.shape), np.zeros(stops.shape))
    advantages = end_advantages(values, made.is_reached, GROUP, "standardized")
    experience = sampled(
        policy,
        tensors,
        responses,
        old_rows,
        credit=token_credit(advantages, made, max(LENGTHS), how),
        weights=response_weights(np.array(LENGTHS), "sample", MAX_NEW_TOKENS),
        budget=budget,
    )
    assert_gradients(policy, experience, wanted_loss)


def test_an_end_that_nobody_reached_says_nothing():
    values = np.array([[0.0, 1.0], [0.0, 3.0]])
    reached = np.array([[False, True], [False, True]])
    found = end_advantages(values, reached, 2, "centered")
    assert found.tolist() == [[0.0, -1.0], [0.0, 1.0]]
    # One alone at an end has nobody to be compared with.
    reached[0, 0] = True
    values[0, 0] = -7.0
    assert end_advantages(values, reached, 2, "centered").tolist() == found.tolist()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("fixed", "separators")))
        for name in GRADINGS
        if name != "final"
    ],
)
def test_every_grading_trains_and_resumes_exactly(warm, tmp_path, name):
    # Fails with: K drawn from a generator that is carried from step to step.
    settings = graded(name)
    make_run(warm, tmp_path / "whole", settings).run(StopSignal(), lambda _: None)
    stop = StopSignal()

    def ask(step):
        stop.requested = step == 2

    with pytest.raises(Stopped):
        make_run(warm, tmp_path / "parts", settings).run(stop, ask)
    make_run(warm, tmp_path / "parts", settings).run(StopSignal(), lambda _: None)
    records = without_times(tmp_path / "whole")
    assert without_times(tmp_path / "parts") == records
    assert json.dumps(records) != json.dumps(plain_records(warm, tmp_path / "plain"))
    ours, theirs = (load_file(tmp_path / one / STATE_FILE) for one in ("parts", "whole"))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def plain_records(warm, folder):
    make_run(warm, folder, graded("final")).run(StopSignal(), lambda _: None)
    return without_times(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fixed", "random", "separators"])
def test_two_processes_give_the_single_process_result(warm, tmp_path, name):
    # Fails with: K drawn by each process for its own groups; ends of one process left out.
    settings = SHARED.model_copy(update={"grading": read_grading(GRADINGS[name])})
    make_smooth_run(warm, tmp_path / "one", settings).run(StopSignal(), lambda _: None)

    def work(rank):
        ranks = Ranks.join(rank, 2, f"file://{tmp_path}/meeting")
        make_smooth_run(warm, tmp_path / "two", settings, ranks=ranks).run(
            StopSignal(), lambda _: None
        )

    in_two_processes(work)
    assert_same_run(tmp_path / "two", tmp_path / "one", settings)


def responses_from(texts):
    """As if the miniature had said these texts, and then ended."""
    verbalizer = miniature.verbalizer()
    tokenizer, end = verbalizer.tokenizer, min(verbalizer.end_ids)
    rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
    said = verbalizer.read(miniature.generated(rows))
    return Responses(said, verbalizer.decode, tokenizer)


def test_fixed_prefixes_are_the_first_tokens_and_short_texts_whole():
    texts = ["<explanation> harbour the kitchen . at noon </explanation>", "<explanation> harbour"]
    ends = read_grading(GRADINGS["fixed"]).ends(responses_from(texts), 0.5)
    assert ends.stops[0].tolist() == [2, 4, 9, 9]
    assert ends.stops[1].tolist() == [2, 3, 3, 3]
    whole = "harbour the kitchen . at noon"
    assert ends.texts[0] == ["harbour", "harbour the kitchen", whole, whole]
    # The second has not closed its tags: what it says at first is read, as a whole it has failed.
    assert ends.texts[1] == ["harbour", None, None, None]
    assert ends.weights[0].tolist() == [2.0, 0.5, 0.25, 1.0]
    assert (ends.penalties == 0.5).all()


@pytest.mark.parametrize(
    ("text", "stops", "texts"),
    [
        ("<explanation> harbour the kitchen </explanation>", [0, 0], []),
        (". <explanation> harbour </explanation>", [1, 0], [None]),
        ("<explanation> . harbour . at . noon </explanation>", [2, 4], [".", ". harbour ."]),
        ("<explanation> " + ". " * 100 + "</explanation>", [2, 3], [".", ". ."]),
    ],
    ids=["never", "before the text", "at once", "a hundred times"],
)
def test_separators_wherever_they_are(text, stops, texts):
    grading = read_grading(GRADINGS["separators"])
    responses = responses_from([text])
    ends = grading.ends(responses, 9.0)
    assert ends.stops[0].tolist() == [*stops, responses.lengths[0]]
    assert ends.texts[0][: len(texts)] == texts
    assert ends.texts[0][2] == responses.said.explanations[0]
    # The last segment pays what its number pays: the first λ where there was no separator.
    assert ends.penalties[0, 2] == {0: 0.01, 1: 0.02, 2: 0.05}[sum(stop > 0 for stop in stops)]


def test_running_into_k_is_no_failure_and_k_beyond_everything_changes_nothing(warm):
    # Fails with: a cut response read as failed; K counted with the tag; caps of the batch only.
    verbalizer = warm.fresh()
    prompts = repeated(warm.dataset.activations[:3], warm.dataset.idx[:3], 4)
    options = {"seed": 1, "max_new_tokens": 16, "generation_batch": None}
    plain = responses_of(verbalizer, prompts, Stopping(), **options)
    beyond = responses_of(verbalizer, prompts, Stopping(tokens=[500] * 3), **options)
    assert beyond.said.explanations == plain.said.explanations
    np.testing.assert_array_equal(beyond.lengths, plain.lengths)
    cut = responses_of(verbalizer, prompts, Stopping(tokens=[1, 2, 500]), **options)
    for row in range(12):
        most = [1, 2, 500][row // 4]
        ids = plain.ids(row)
        assert cut.ids(row) == ids[: most + 1]
        text = cut.said.explanations[row]
        if most < 500 and verbalizer.tokenizer.decode(ids).startswith("<explanation>"):
            assert text is not None
            assert len(text.split()) <= most
        elif most == 500:
            assert text == plain.said.explanations[row]


def bandit_steps(how, seed):
    """Steps until the arm that pays at the first of 100 places is nearly always taken there.

    One set of logits for all places, as a model's weights are: credit for the first token that
    the later ones get too is noise in the same weights. Gradients are clipped as in training.
    """
    rng = np.random.default_rng(seed)
    tokens, group, arms = 100, 4, 6
    logits = torch.zeros(arms, dtype=torch.float64, requires_grad=True)
    stops = np.tile(np.array([1, tokens]), (group, 1))
    ends = Ends(stops, [], np.ones(stops.shape), np.zeros(stops.shape))
    for step in range(2000):
        probabilities = logits.detach().softmax(0).numpy()
        if probabilities[0] > 0.9:
            return step
        taken = rng.choice(arms, size=(group, tokens), p=probabilities)
        values = np.stack([taken[:, 0] == 0, np.zeros(group)], axis=1).astype(np.float64)
        advantages = end_advantages(values, ends.is_reached, group, "centered")
        credit = torch.from_numpy(token_credit(advantages, ends, tokens, how))
        log_probs = logits.log_softmax(0)[torch.from_numpy(taken)]
        terms = token_terms(
            log_probs, log_probs.detach(), log_probs.detach(), credit, Settings(CLIP, 0.0)
        )
        weights = torch.full((group,), 1 / group, dtype=torch.float64)
        loss = weighted_loss(terms, torch.ones(group, tokens, dtype=torch.bool), weights)
        (gradient,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= 0.3 * gradient / max(1.0, float(gradient.norm()))
    return 2000


def test_an_early_token_that_decides_everything_is_learnt_faster_with_segment_credit():
    # Fails with: segment credit that also reaches tokens behind the end.
    needed = {
        how: [bandit_steps(how, seed) for seed in range(20)] for how in ("segment", "response")
    }
    assert np.median(needed["segment"]) < 0.8 * np.median(needed["response"]), needed


def test_cards_say_what_each_grading_rewards():
    found = cards()
    assert {"final", "fixed_prefixes", "random_prefix", "separators"} <= set(found)
    assert all(card.title and card.sentence for card in found.values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "fixed_prefix", "lengths": [1]}, "did you mean fixed_prefixes"),
        ({"kind": "fixed_prefixes", "lengths": [3, 1]}, "lengths must rise"),
        ({"kind": "fixed_prefixes", "lengths": [1], "weights": [1, 2]}, "2 weights for 1 lengths"),
        ({"kind": "random_prefix", "shortest": 9, "longest": 2}, "shortest 9 is above longest 2"),
        ({"kind": "separators", "length_penalties": [1.0]}, "1 λ's for the 5 segments"),
        ({"kind": "final", "length": 3}, "unknown key rl.grading.length"),
        ({"lengths": [1]}, "give its kind"),
    ],
)
def test_gradings_that_cannot_be(given, message):
    raw = {"name": "x", "target": {"world": {}}, "rl": {"grading": given}}
    with pytest.raises(UserError, match=message):
        parse_recipe(raw, "x")


def test_k_is_drawn_as_said_and_is_one_for_a_group():
    rng = np.random.default_rng(0)
    for draw, mean in (("uniform", 50.5), ("log_uniform", 21.5), ("tapered", 34.0)):
        grading = read_grading({"kind": "random_prefix", "longest": 100, "draw": draw})
        drawn = grading.stopping(20_000, rng).tokens
        assert min(drawn) == 1
        assert max(drawn) >= 99
        assert np.mean(drawn) == pytest.approx(mean, rel=0.03), draw


def test_the_record_of_a_step_sums_over_ends(warm, tmp_path):
    make_run(warm, tmp_path, graded("fixed")).run(StopSignal(), lambda _: None)
    steps = [one for one in read_metrics(tmp_path / "metrics.jsonl") if one["kind"] == "step"]
    for one in steps:
        assert one["reward"] == pytest.approx(sum(one["terms"].values()))
        # λ is paid once for each token, however many ends there are.
        assert one["terms"]["length"] == pytest.approx(-0.01 * one["n_tokens"])


def test_former_advantages_are_a_reference_of_one_end():
    rewards = np.random.default_rng(0).normal(size=18)
    found = miniature.advantages(rewards, 9, "standardized")
    assert (found == group_advantages(rewards, 9, "standardized")).all()
