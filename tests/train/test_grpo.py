"""The update against a slow, obvious float64 implementation of GRPO, and a bandit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nla_audit.nla.generation import NO_TOKEN, padded
from nla_audit.train.grpo import (
    Settings,
    is_flat,
    response_weights,
    token_terms,
    weighted_loss,
)
from nla_audit.train.log_probs import micro_batches
from nla_audit.train.policy import Policy
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.update import Experience, accumulate_gradients, warm_log_probs
from tests.train import miniature
from tests.train.former import group_advantages

GROUP, GROUPS, MAX_NEW_TOKENS = 3, 2, 9
CLIP, KL = 0.2, 0.3


def slow_log_probs(verbalizer, vector, response):
    """Log-probabilities of one response, one full forward pass a token, nothing padded."""
    out = []
    ids = list(verbalizer.prompt.ids)
    for token in response:
        with verbalizer.injecting(vector[None]):
            logits = verbalizer.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        out.append(torch.log_softmax(logits, dim=-1)[token])
        ids.append(token)
    return out


def slow_loss(policy_rows, old_rows, warm_rows, rewards, how):
    """GRPO as its definition reads: loops over groups, responses and tokens."""
    count = len(rewards)
    total = 0.0
    for i in range(count):
        group = rewards[i // GROUP * GROUP : i // GROUP * GROUP + GROUP]
        mean = sum(group) / GROUP
        std = math.sqrt(sum((r - mean) ** 2 for r in group) / GROUP)
        advantage = (rewards[i] - mean) / (std + 1e-6)
        tokens = len(policy_rows[i])
        of_response = 0.0
        for t in range(tokens):
            ratio = torch.exp(policy_rows[i][t] - old_rows[i][t])
            clipped = torch.clamp(ratio, 1 - CLIP, 1 + CLIP)
            surrogate = torch.minimum(ratio * advantage, clipped * advantage)
            delta = warm_rows[i][t] - policy_rows[i][t]
            of_response = of_response - surrogate + KL * (torch.exp(delta) - delta - 1)
        if how == "sample":
            total = total + of_response / tokens / count
        elif how == "batch":
            total = total + of_response / sum(len(row) for row in policy_rows)
        else:
            total = total + of_response / MAX_NEW_TOKENS / count
    return total


def spread(advantages, token_ids):
    return np.repeat(advantages[:, None], token_ids.shape[1], axis=1)


def sampled(policy, tensors, responses, old_rows, *, credit, weights, budget):
    """The experience of a step that sampled ``responses`` with log-probabilities ``old_rows``."""
    token_ids = padded(responses)
    old = torch.full(token_ids.shape, torch.nan, dtype=torch.float64)
    for i, row in enumerate(old_rows):
        old[i, : len(row)] = torch.stack(row)
    lengths = np.array([len(row) for row in responses])
    return Experience(
        activations=tensors,
        old_log_probs=old,
        credit=credit,
        weights=weights,
        batches=micro_batches(
            token_ids, lengths, len(policy.verbalizer.prompt.ids), budget, torch.device("cpu")
        ),
    )


def assert_gradients(policy, experience, wanted_loss):
    """Our loss is ``wanted_loss`` and our gradients are its; returns what was measured."""
    wanted = torch.autograd.grad(wanted_loss, list(policy.parameters.values()), allow_unused=True)
    warm = warm_log_probs(policy, experience)
    measures = accumulate_gradients(policy, experience, warm, Settings(CLIP, KL))
    assert measures.loss == pytest.approx(wanted_loss.item(), rel=1e-6)
    for (name, parameter), gradient in zip(policy.parameters.items(), wanted, strict=True):
        if gradient is None:
            assert parameter.grad is None or not parameter.grad.any(), name
            continue
        scale = float(gradient.abs().max())
        assert torch.allclose(parameter.grad, gradient, rtol=1e-6, atol=1e-6 * scale), name
    return measures


@pytest.fixture(params=["full", "lora"])
def policy(request):
    """A policy in float64 that has moved away from its warm start."""
    verbalizer = miniature.verbalizer()
    lora = Lora(rank=4, alpha=4.0) if request.param == "lora" else None
    made = Policy(verbalizer, lora, seed=0)
    verbalizer.model.double()
    if made._warm is not None:
        made._warm.model.double()
    made.parameters = {
        name: parameter
        for name, parameter in verbalizer.model.named_parameters()
        if parameter.requires_grad
    }
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters.values():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.03 * noise)
    return made


@pytest.mark.parametrize("how", ["sample", "batch", "constant"])
@pytest.mark.parametrize("budget", [10_000, 40, 1])
def test_gradients_equal_the_obvious_implementation(policy, how, budget):
    # Shown to fail with: `losses.mean(1)` over the padded length in weighted_loss; weights taken
    # per micro-batch; `torch.maximum` for the minimum; `log_probs - warm_log_probs` in k3;
    # `logits_to_keep=tokens + 1` shifted by one; the bare copy of the policy as anchor.
    rng = np.random.default_rng(0)
    vocabulary = policy.verbalizer.model.config.vocab_size
    lengths = [9, 1, 4, 2, 7, 5]
    responses = [rng.integers(0, vocabulary, length).tolist() for length in lengths]
    vectors = np.repeat(miniature.activations(GROUPS), GROUP, axis=0)
    rewards = rng.normal(size=len(lengths))
    tensors = torch.from_numpy(vectors)

    warm_rows = []
    policy_rows = [
        slow_log_probs(policy.verbalizer, tensors[i], row) for i, row in enumerate(responses)
    ]
    anchor = miniature.verbalizer()  # an untouched warm start
    anchor.model.double()
    with torch.no_grad():
        warm_rows = [slow_log_probs(anchor, tensors[i], row) for i, row in enumerate(responses)]
    # Old log-probabilities near the policy's, some beyond the clip in either direction.
    shifts = [rng.normal(0, 0.3, len(row)) for row in policy_rows]
    old_rows = [
        [value.detach() + shift for value, shift in zip(row, of_row, strict=True)]
        for row, of_row in zip(policy_rows, shifts, strict=True)
    ]
    wanted_loss = slow_loss(policy_rows, old_rows, warm_rows, rewards.tolist(), how)
    credit = spread(group_advantages(rewards, GROUP, "standardized"), padded(responses))
    weights = response_weights(np.array(lengths), how, MAX_NEW_TOKENS)
    experience = sampled(
        policy, tensors, responses, old_rows, credit=credit, weights=weights, budget=budget
    )
    assert len(experience.batches) in {10_000: [1], 40: range(2, 6), 1: [6]}[budget]
    measures = assert_gradients(policy, experience, wanted_loss)
    assert measures.tokens == sum(lengths)
    assert 0 < measures.clipped < measures.tokens


def test_equal_rewards_teach_nothing():
    rewards = np.array([0.1, 0.1, 0.1, -1.0, 0.0, 1.0])
    advantages = miniature.advantages(rewards, 3, "standardized")
    assert advantages[:3].tolist() == [0.0, 0.0, 0.0]
    assert is_flat(rewards, 3).tolist() == [True, False]
    np.testing.assert_allclose(advantages[3:], [-1.224744, 0, 1.224744], rtol=1e-5)


def test_centered_advantages_keep_the_scale_of_rewards():
    rewards = np.array([0.0, 0.2, 5.0, 7.0])
    advantages = miniature.advantages(rewards, 2, "centered")
    assert advantages.tolist() == [-0.1, 0.1, -1.0, 1.0]


def test_padding_never_reaches_the_loss():
    terms = token_terms(
        torch.tensor([[0.0, 0.0]]),
        torch.tensor([[0.0, torch.nan]]),
        torch.tensor([[0.0, torch.nan]]),
        torch.tensor([[1.0, 1.0]]),
        Settings(CLIP, KL),
    )
    loss = weighted_loss(terms, torch.tensor([[True, False]]), torch.tensor([1.0]))
    assert float(loss) == -1.0


def test_micro_batches_hold_every_response_once():
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 30, 40)
    ids = padded([rng.integers(0, 9, length).tolist() for length in lengths])
    batches = micro_batches(ids, lengths, 5, 100, torch.device("cpu"))
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(40))
    for batch in batches:
        assert len(batch.rows) == 1 or len(batch.rows) * (batch.token_ids.shape[1] + 5) <= 100
        assert (batch.is_token.sum(1).numpy() == lengths[batch.rows]).all()
        assert NO_TOKEN not in batch.token_ids


def test_bandit_with_known_optimum():
    """One token, rewards known. k3 has the gradient of KL(warm start ‖ policy), so the optimum is
    π(a) = β · π_warm(a) / (c − r(a)), with c such that π sums to one.
    """
    # Shown to fail with: advantages negated; `difference` negated in k3; KL left out.
    rewards_of_arms = np.array([0.0, 0.5, 1.0, 0.2])
    warm_probabilities = np.array([0.4, 0.3, 0.2, 0.1])
    beta, group = 0.5, 64
    low, high = 1.0 + 1e-9, 1.0 + beta
    for _ in range(60):
        c = (low + high) / 2
        too_much = (beta * warm_probabilities / (c - rewards_of_arms)).sum() > 1
        low, high = (c, high) if too_much else (low, c)
    optimum = beta * warm_probabilities / (c - rewards_of_arms)
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    warm = torch.log(torch.from_numpy(warm_probabilities))
    optimizer = torch.optim.SGD([logits], lr=0.2)
    rng = np.random.default_rng(0)
    averaged = np.zeros(4)
    for step in range(800):
        probabilities = logits.detach().softmax(0).numpy()
        arms = rng.choice(4, size=group, p=probabilities)
        advantages = group_advantages(rewards_of_arms[arms], group, "centered")
        chosen = torch.from_numpy(arms)
        log_probs = logits.log_softmax(0)[chosen][:, None]
        terms = token_terms(
            log_probs,
            log_probs.detach(),
            warm[chosen][:, None],
            torch.from_numpy(advantages)[:, None],
            Settings(clip=0.2, kl=beta),
        )
        lengths = np.ones(group, dtype=np.int64)
        weights = torch.from_numpy(response_weights(lengths, "sample", 1))
        loss = weighted_loss(terms, torch.ones(group, 1, dtype=torch.bool), weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= 400:
            averaged += logits.detach().softmax(0).numpy() / 400
    np.testing.assert_allclose(averaged, optimum, atol=0.02)
