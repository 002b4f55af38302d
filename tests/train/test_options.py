"""Options that save memory change nothing else, or no more than their precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nla_audit.train.adapters import add_lora, has_adapter
from nla_audit.train.grpo import Settings, response_weights
from nla_audit.train.log_probs import micro_batches
from nla_audit.train.policy import Policy
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.rollout import repeated, sample
from nla_audit.train.update import Experience, accumulate_gradients, warm_log_probs
from tests.train import miniature


def gradients(policy, budget=None):
    vectors, samples = miniature.activations(2), 3
    prompts = repeated(vectors, np.arange(2), samples)
    said = sample(
        policy.verbalizer, prompts, seed=0, max_new_tokens=12, generation_batch=None
    ).generated
    experience = Experience(
        torch.from_numpy(prompts.activations),
        torch.from_numpy(said.log_probs),
        np.repeat(
            miniature.advantages(np.array([0.0, 1.0, 3.0, 1.0, 0.0, 0.5]), samples, "standardized")[
                :, None
            ],
            said.token_ids.shape[1],
            axis=1,
        ),
        response_weights(said.lengths, "sample", 12),
        micro_batches(said.token_ids, said.lengths, 9, budget, torch.device("cpu")),
    )
    warm = warm_log_probs(policy, experience)
    accumulate_gradients(policy, experience, warm, Settings(0.2, 0.1))
    return torch.cat([one.grad.flatten() for one in policy.parameters.values()]), experience


@pytest.mark.parametrize("lora", [None, Lora(rank=2, alpha=4.0)], ids=["full", "lora"])
def test_gradient_checkpointing_gives_the_same_gradient(lora):
    # Fails with: the model left in evaluation mode, where transformers recomputes nothing.
    plain, _ = gradients(Policy(miniature.verbalizer(), lora, seed=0))
    policy = Policy(miniature.verbalizer(), lora, seed=0, gradient_checkpointing=True)
    calls = []
    real = torch.utils.checkpoint.checkpoint

    def counting(*arguments, **options):
        calls.append(1)
        return real(*arguments, **options)

    for module in policy.verbalizer.model.modules():
        if hasattr(module, "_gradient_checkpointing_func"):
            module._gradient_checkpointing_func = counting_with(counting)
    saved, _ = gradients(policy)
    assert calls
    torch.testing.assert_close(saved, plain, rtol=1e-4, atol=1e-6)


def counting_with(function):
    """As transformers sets it: non-reentrant."""

    def checkpoint(*arguments, **options):
        return function(*arguments, use_reentrant=False, **options)

    return checkpoint


def test_all_weights_of_a_bf16_model_train_in_float32():
    # Fails with: `verbalizer.model.float()` left out of Policy.
    rounded = miniature.verbalizer()
    rounded.model.bfloat16()
    policy = Policy(rounded, None, seed=0)
    assert {one.dtype for one in policy.parameters.values()} == {torch.float32}
    found, experience = gradients(policy)
    assert experience.old_log_probs.dtype == torch.float32
    assert torch.isfinite(found).all()


def test_lora_trains_in_float32_on_a_bf16_base():
    # Fails with: `parameter.data.float()` left out of add_lora.
    verbalizer = miniature.verbalizer()
    verbalizer.model.bfloat16()
    policy = Policy(verbalizer, Lora(rank=2, alpha=4.0), seed=0)
    found, _ = gradients(policy)
    assert {one.dtype for one in policy.parameters.values()} == {torch.float32}
    assert torch.isfinite(found).all()
    assert found.norm() > 0


def test_an_adapter_on_an_adapter_is_known():
    # Fails with: has_adapter always false.
    model = miniature.model()
    assert not has_adapter(model, besides="rl")
    add_lora(model, Lora(rank=2, alpha=4.0), "rl", seed=0)
    assert not has_adapter(model, besides="rl")
    add_lora(model, Lora(rank=2, alpha=4.0), "other", seed=0)
    assert has_adapter(model, besides="rl")


def test_adapters_begin_the_same_with_the_same_seed():
    # Fails with: `torch.manual_seed(seed)` left out of add_lora.
    first, second, other = (
        Policy(miniature.verbalizer(), Lora(rank=2, alpha=4.0), seed=seed).parameters
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
