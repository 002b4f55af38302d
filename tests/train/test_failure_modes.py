"""Each way in which NLA training has silently gone wrong (docs/failures.md), put to the test.

Every test names the mutation under which it was seen to fail.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nla_audit.nla.generation import NO_TOKEN
from nla_audit.nla.responses import response_log_probs
from nla_audit.train.adapters import add_lora
from nla_audit.train.dataset import split_by_document
from nla_audit.train.grading import read_grading
from nla_audit.train.lengths import Charge
from nla_audit.train.log_probs import micro_batches
from nla_audit.train.measure import content_tokens
from nla_audit.train.policy import Policy
from nla_audit.train.recipe_optimizer import Lora, Optimizer
from nla_audit.train.responses import Responses
from nla_audit.train.rewards import FAILED_MSE, Samples, rewards_of
from nla_audit.train.rollout import repeated, sample, scored
from nla_audit.train.update import Trainer
from tests.train import miniature

ROWS, SAMPLES, CAP = 6, 4, 20


@pytest.fixture(scope="module")
def rollout(warm):
    rows = warm.dataset.training_rows[:ROWS]
    prompts = repeated(warm.dataset.activations[rows], warm.dataset.idx[rows], SAMPLES)
    said = sample(warm.verbalizer, prompts, seed=1, max_new_tokens=CAP, generation_batch=None)
    verbalizer = warm.verbalizer
    responses = Responses(said, verbalizer.decode, verbalizer.tokenizer)
    samples = scored(
        miniature.reconstructor(),
        prompts,
        responses,
        read_grading("final").ends(responses, 0.0),
        tokenizer=verbalizer.tokenizer,
        charge=Charge(),
    )
    return prompts, said, samples


def _samples(explanations, mse, n_tokens):
    return Samples(
        explanations=explanations,
        mse=np.array(mse),
        n_tokens=np.array(n_tokens),
        content_tokens=np.maximum(np.array(n_tokens) - 3, 0),
        cjk=np.zeros(len(mse)),
    )


def test_the_length_penalty_sees_true_lengths(warm, rollout):
    # Fails with: `n_tokens` = width of the padded batch (rollout.scored), for then the penalty is
    # the same for a whole group and cancels in the advantage.
    _, said, samples = rollout
    ends = warm.verbalizer.end_ids
    for ids, length in zip(said.generated.token_ids, samples.n_tokens, strict=True):
        real = ids[ids != NO_TOKEN].tolist()
        first_end = next((at for at, token in enumerate(real) if token in ends), len(real) - 1)
        assert length == len(real) == first_end + 1
    assert len(set(samples.n_tokens.tolist())) > 1
    without, _ = rewards_of(samples, {"failed": 0.0}, length_penalty=0.0, charge=Charge())
    penalised, _ = rewards_of(samples, {"failed": 0.0}, length_penalty=0.1, charge=Charge())
    assert not miniature.advantages(without, SAMPLES, "centered").any()
    advantages = miniature.advantages(penalised, SAMPLES, "centered").reshape(-1, SAMPLES)
    lengths = samples.n_tokens.reshape(-1, SAMPLES)
    expected = -0.1 * (lengths - lengths.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(advantages, expected, atol=1e-12)


def test_tags_and_end_token_are_no_content(warm):
    # Fails with: content_tokens = generated.lengths.
    tokenizer = warm.verbalizer.tokenizer
    texts = ["<explanation> </explanation> <end>", "<explanation> at noon . </explanation> <end>"]
    generated = miniature.generated([tokenizer(text)["input_ids"] for text in texts])
    said = warm.verbalizer.read(generated)
    assert said.explanations == ["", "at noon ."]
    assert generated.lengths.tolist() == [3, 6]
    assert content_tokens(tokenizer, said).tolist() == [0, 3]


def test_empty_is_not_failed_and_failing_never_pays():
    # Fails with: `not text` for `text is None` in has_failed; NaN or 0 for a failed row's reward.
    samples = _samples(["", None, "a b"], [1.2, np.nan, 0.3], [3, 20, 5])
    assert samples.has_failed.tolist() == [False, True, False]
    rewards, terms = rewards_of(
        samples, {"negative_mse": 1.0}, length_penalty=0.01, charge=Charge()
    )
    np.testing.assert_allclose(terms["negative_mse"], [-1.2, -FAILED_MSE, -0.3])
    np.testing.assert_allclose(rewards, [-1.23, -2.2, -0.35])
    log, _ = rewards_of(samples, {"negative_log_mse": 1.0}, length_penalty=0.0, charge=Charge())
    np.testing.assert_allclose(log, [-np.log(1.2), -np.log(2.0), -np.log(0.3)])


def test_a_truncated_response_with_a_closing_tag_has_failed(warm):
    # Fails with: read_explanation called with ended=True.
    tokenizer = warm.verbalizer.tokenizer
    ids = tokenizer("<explanation> at noon </explanation> about the")["input_ids"]
    said = warm.verbalizer.read(miniature.generated([ids], ended=False))
    assert said.explanations == [None]


def test_either_end_token_ends_and_is_trained_on(warm):
    # Fails with: a mask made from `token_ids != pad`, `!= eos`, or one that stops before the end.
    eos, end = (
        warm.verbalizer.tokenizer.convert_tokens_to_ids(name) for name in ("<eos>", "<end>")
    )
    assert {eos, end} <= warm.verbalizer.end_ids
    generated = miniature.generated([[7, 8, eos], [9, end], [5, 6, 7, 8]])
    (batch,) = micro_batches(generated.token_ids, generated.lengths, 4, 10_000, torch.device("cpu"))
    assert batch.is_token.sum(1).tolist() == [3, 2, 4]


def test_old_log_probs_are_those_of_the_distribution_sampled_from(warm, rollout):
    # Fails with: temperature 0.7 in rollout.sample; log_probs divided by a temperature; old
    # log-probabilities of the row before; a shift by one in response_log_probs.
    prompts, said, _ = rollout
    verbalizer = warm.fresh()
    config = verbalizer.model.generation_config
    config.do_sample, config.temperature, config.top_k, config.top_p = True, 0.3, 2, 0.5
    config.repetition_penalty = 1.7
    again = sample(verbalizer, prompts, seed=1, max_new_tokens=CAP, generation_batch=None)
    np.testing.assert_array_equal(again.generated.token_ids, said.generated.token_ids)
    token_ids = torch.from_numpy(said.generated.token_ids)
    is_token = token_ids != NO_TOKEN
    with torch.no_grad():
        fresh = response_log_probs(
            warm.verbalizer,
            torch.from_numpy(prompts.activations),
            torch.where(is_token, token_ids, 0),
        )
    old = torch.from_numpy(said.generated.log_probs)
    assert (fresh - old)[is_token].abs().max() < 1e-4


def test_the_anchor_is_the_warm_start_even_where_that_is_an_adapter(warm):
    # Fails with: without_adapter switching off all adapters; add_lora leaving only the new one
    # active; the anchor being a copy of the policy that moves with it.
    verbalizer = warm.fresh()
    vectors = torch.from_numpy(miniature.activations(2))
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    with torch.no_grad():
        bare = response_log_probs(verbalizer, vectors, ids)
    adapter = add_lora(verbalizer.model, Lora(rank=2, alpha=4.0), "warm_start", seed=0)
    with torch.no_grad():
        for parameter in adapter.values():
            parameter.add_(0.3)
        start = response_log_probs(verbalizer, vectors, ids)
    assert (start - bare).abs().max() > 0.01
    policy = Policy(verbalizer, Lora(rank=2, alpha=4.0), seed=1)
    assert all(".rl." in name for name in policy.parameters)
    with torch.no_grad():
        assert torch.equal(
            miniature.log_probs(policy, vectors, ids), start
        )  # B = 0: nothing said differently
        for parameter in policy.parameters.values():
            parameter.add_(0.3)
        assert (miniature.log_probs(policy, vectors, ids) - start).abs().max() > 0.01
    torch.testing.assert_close(miniature.warm_log_probs(policy, vectors, ids), start)


def test_the_anchor_of_full_training_does_not_move(warm):
    # Fails with: `_warm = verbalizer` (no copy).
    policy = Policy(warm.fresh(), None, seed=0)
    vectors, ids = torch.from_numpy(miniature.activations(1)), torch.tensor([[5, 6, 7]])
    before = miniature.warm_log_probs(policy, vectors, ids)
    with torch.no_grad():
        for parameter in policy.parameters.values():
            parameter.mul_(1.5)
        assert not torch.allclose(miniature.log_probs(policy, vectors, ids), before)
    assert torch.equal(miniature.warm_log_probs(policy, vectors, ids), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    # Fails with: clip_grad_norm_ and optimizer.step() without the guard.
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    trainer = Trainer({"p": parameter}, Optimizer(learning_rate=0.1), steps=10)
    parameter.grad = torch.tensor([1.0, 1.0])
    assert trainer.step(0) is not None
    before = parameter.detach().clone()
    average = trainer.optimizer.state[parameter]["exp_avg"].clone()
    parameter.grad = torch.tensor([1.0, bad])
    assert trainer.step(1) is None
    assert torch.equal(parameter, before)
    assert torch.equal(trainer.optimizer.state[parameter]["exp_avg"], average)
    parameter.grad = torch.tensor([1.0, 1.0])
    assert trainer.step(2) is not None
    assert torch.isfinite(parameter).all()


def test_splits_are_by_document():
    # Fails with: a random choice of rows.
    names = [f"d{row % 50}" for row in range(500)]
    is_held_out = split_by_document(names, 0.1, seed=3)
    kept = {name for name, out in zip(names, is_held_out, strict=True) if not out}
    assert kept.isdisjoint(name for name, out in zip(names, is_held_out, strict=True) if out)
    assert is_held_out.sum() == 50
    # Adding documents moves no other: the choice hangs on the document's own name.
    more = split_by_document([*names, *names[:7]], 0.1, seed=3)
    assert (more[:500] == is_held_out).all()


def test_a_group_of_equal_rewards_is_left_alone_even_if_all_failed():
    # Fails with: division by the standard deviation without a floor.
    samples = _samples([None] * 4, [np.nan] * 4, [20] * 4)
    rewards, _ = rewards_of(samples, {"negative_mse": 1.0}, length_penalty=0.03, charge=Charge())
    assert not miniature.advantages(rewards, 4, "standardized").any()
