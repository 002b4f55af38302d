"""Responses that go on from prompts read once, against passes of whole rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicLayer

from nla_audit.nla.generation import padded
from nla_audit.nla.injection import Injection
from nla_audit.train.grpo import Settings, response_weights
from nla_audit.train.log_probs import micro_batches, shared_micro_batches
from nla_audit.train.policy import Policy
from nla_audit.train.readings import may_share_prompts
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.update import Experience, accumulate_gradients, warm_log_probs
from tests.train import miniature

LENGTHS = np.array([9, 1, 4, 2, 7, 5, 3, 3, 8])
#: Which activation each response is of; groups neither together nor of one size.
OF = np.array([0, 1, 1, 2, 0, 3, 1, 0, 0])


def moved(lora, injection=None) -> Policy:
    """A policy in float64 that has moved away from its anchor."""
    policy = Policy(miniature.verbalizer(injection=injection), lora, seed=0)
    policy.verbalizer.model.double()
    if policy._warm is not None:
        policy._warm.model.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters.values():
            parameter.add_(0.03 * torch.randn(parameter.shape, generator=generator).double())
    return policy


def experience(policy: Policy, budget: int, *, is_shared: bool) -> Experience:
    rng = np.random.default_rng(0)
    vocabulary = policy.verbalizer.model.config.vocab_size
    ids = padded([rng.integers(0, vocabulary, length).tolist() for length in LENGTHS])
    activations = torch.from_numpy(miniature.activations(4)[OF])
    prompt = policy.verbalizer.prompt
    batches = (
        shared_micro_batches(activations, ids, LENGTHS, prompt, budget)
        if is_shared
        else micro_batches(ids, LENGTHS, len(prompt.ids), budget, activations.device)
    )
    return Experience(
        activations=activations,
        old_log_probs=torch.from_numpy(np.where(ids < 0, np.nan, rng.normal(-3, 0.2, ids.shape))),
        credit=rng.normal(size=ids.shape),
        weights=response_weights(LENGTHS, "sample", 9),
        batches=batches,
    )


def gradients(policy: Policy, given: Experience) -> torch.Tensor:
    for parameter in policy.parameters.values():
        parameter.grad = None
    warm = warm_log_probs(policy, given)
    accumulate_gradients(policy, given, warm, Settings(0.2, 0.3))
    given = [one.grad for one in policy.parameters.values() if one.grad is not None]
    return torch.cat([one.flatten() for one in given])


@pytest.mark.parametrize("budget", [10_000, 26, 1])
@pytest.mark.parametrize("injection", [Injection("replace", scale=4.0), Injection("add", block=0)])
@pytest.mark.parametrize("lora", [None, Lora(rank=2, alpha=4.0)], ids=["full", "lora"])
def test_the_gradient_is_that_of_whole_rows(lora, injection, budget):
    # Fails with: `reading.backward()` left out; rows of a reading counted from its own first; the
    # vector a token too late; prompts given to responses in another order.
    policy = moved(lora, injection)
    assert policy.shares_prompts
    given = experience(policy, budget, is_shared=True)
    found = gradients(policy, given)
    policy.shares_prompts = False
    wanted = gradients(policy, experience(policy, 10_000, is_shared=False))
    # transformers takes norms in float32 whatever the weights are.
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))
    rows = np.concatenate([batch.rows for batch in given.batches])
    assert sorted(rows.tolist()) == list(range(len(LENGTHS)))
    assert len(given.readings()) == {10_000: 1, 26: 2, 1: 4}[budget]


def test_no_token_is_read_twice():
    # Fails with: prompts read for each response; the beginning read for each prompt; the budget
    # without what prompts hold.
    policy = moved(None)
    assert policy.shares_prompts
    prompt, read = policy.verbalizer.prompt, []
    policy.verbalizer.model.get_input_embeddings().register_forward_hook(
        lambda _module, inputs, _output: read.append(inputs[0].shape)
    )
    given = experience(policy, 60, is_shared=True)
    with policy.reading(given.activations, given.batches) as reading:
        for batch in given.batches:
            reading.log_probs(batch.rows, batch.token_ids, batch.is_token)
    rest = len(prompt.ids) - 1 - prompt.marker
    assert read[:2] == [(1, prompt.marker), (4, rest)]
    responses = read[2:]
    assert [rows for rows, _ in responses] == [len(batch.rows) for batch in given.batches]
    held = prompt.marker + 4 * rest
    assert all(rows * tokens <= 60 - held for rows, tokens in responses)
    assert len(responses) > 1
    assert max(tokens for _, tokens in responses) == LENGTHS.max()


def test_the_same_bits_each_time_with_several_threads():
    # Fails with: `tensor[rows]` on a CPU, whose gradient threads sum in any order.
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        vectors = torch.from_numpy(np.repeat(miniature.activations(4), 64, axis=0))
        ids = torch.randint(5, 60, (256, 3), generator=torch.Generator().manual_seed(0))
        policy, found = Policy(miniature.verbalizer(), None, seed=0), []
        for _ in range(3):
            for parameter in policy.parameters.values():
                parameter.grad = None
            prompts_gradient(policy, vectors, ids)
            found.append([p.grad.clone() for p in policy.parameters.values() if p.grad is not None])
    finally:
        torch.set_num_threads(threads)
    for again in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], again, strict=True))


def prompts_gradient(policy, vectors, ids):
    (batch,) = micro_batches(
        ids.numpy(), np.full(len(ids), ids.shape[1]), 0, 10_000, torch.device("cpu")
    )
    with policy.reading(vectors, [batch]) as reading:
        reading.log_probs(batch.rows, batch.token_ids, batch.is_token).sum().backward()
        reading.backward()


def test_a_model_whose_keys_pass_no_gradient_on_reads_whole_rows(monkeypatch):
    # Fails with: log-probabilities compared and gradients not.
    assert may_share_prompts(miniature.verbalizer())
    real = DynamicLayer.update

    def detached(self, keys, values, *arguments, **options):
        return real(self, keys.detach(), values.detach(), *arguments, **options)

    monkeypatch.setattr(DynamicLayer, "update", detached)
    verbalizer = miniature.verbalizer()
    assert not may_share_prompts(verbalizer)
    assert all(one.requires_grad and one.grad is None for one in verbalizer.model.parameters())


def test_whole_rows_where_activations_are_recomputed():
    # Fails with: gradient checkpointing not looked at; transformers then keeps no keys.
    assert not Policy(
        miniature.verbalizer(), None, seed=0, gradient_checkpointing=True
    ).shares_prompts
