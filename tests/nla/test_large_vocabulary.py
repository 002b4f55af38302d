"""Log-probabilities without their logits, and sampling in two steps, against the plain way."""

from __future__ import annotations

import pytest
import torch

from nla_audit.nla import chosen_tokens, output_head
from nla_audit.nla.chosen_tokens import chosen_log_probs
from nla_audit.nla.output_head import may_go_without_logits
from nla_audit.nla.sampling import next_tokens
from nla_audit.train.adapters import add_lora
from nla_audit.train.recipe_optimizer import Lora
from tests.pairs import tiny

WIDTH, VOCABULARY, TOKENS = 16, 3000, 11


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(
    states: torch.Tensor, weight: torch.Tensor, tokens: torch.Tensor, softcap: float | None
) -> torch.Tensor:
    logits = states.double() @ weight.double().T
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nla_audit.nla.slices._NUMBERS", {"cpu": 2 * VOCABULARY})


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("chunk", [3, TOKENS])
@pytest.mark.parametrize("is_trained", [False, True], ids=["frozen", "trained"])
def test_values_and_gradients(is_trained: bool, chunk: int, softcap: float | None) -> None:
    # Fails with: chunks' gradients not scaled by what came from above; the gradient of tanh left
    # out; the last chunk left out of the weights' gradient.
    tokens = torch.arange(TOKENS) * 17
    states = draw(TOKENS, WIDTH).requires_grad_(True)
    weight = draw(VOCABULARY, WIDTH, seed=1).requires_grad_(is_trained)
    above = draw(TOKENS, seed=2)
    inputs = (states, weight) if is_trained else (states,)
    wanted = plain(states, weight, tokens, softcap)
    found = chosen_log_probs(states, weight, tokens, softcap=softcap, chunk=chunk)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad((found * above).sum(), inputs)
    for ours, theirs in zip(
        gradients, torch.autograd.grad((wanted * above).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        again = chosen_log_probs(states, weight, tokens, softcap=softcap, chunk=chunk)
    assert torch.equal(again, found)


def test_a_nearly_certain_token_keeps_its_gradient_in_bfloat16() -> None:
    # Fails with: W_y − p W taken from a bf16 product; 1 − p taken from a bf16 p.
    weight = draw(VOCABULARY, WIDTH).bfloat16()
    states = (1.2 * weight[:TOKENS]).requires_grad_(True)
    tokens = torch.arange(TOKENS)
    found = chosen_log_probs(states, weight, tokens)
    assert found.max() > -1e-3  # else nothing is tested
    (ours,) = torch.autograd.grad(found.sum(), states)
    # Against float32 operations on the same logits: bf16's own error in those is larger.
    logits = (states @ weight.T).float()
    kept = logits.log_softmax(dim=-1).gather(1, tokens[:, None])
    (wanted,) = torch.autograd.grad(kept.sum(), states)
    error = (ours.double() - wanted.double()).norm(dim=-1) / wanted.double().norm(dim=-1)
    assert error.max() < 0.03


@pytest.mark.parametrize("is_trained", [False, True], ids=["frozen", "trained"])
def test_no_logits_are_kept(is_trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen_tokens, "_CHUNK", {"cpu": 2 * VOCABULARY})
    weight = draw(VOCABULARY, WIDTH, seed=1).requires_grad_(is_trained)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        states = draw(5 * WIDTH, WIDTH).requires_grad_(True)
        chosen_log_probs(states, weight, torch.zeros(5 * WIDTH, dtype=torch.int64))
    assert kept
    assert max(kept) <= weight.numel()


def test_an_adapter_that_came_later_is_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_head, "LARGE_VOCABULARY", 1)
    model = tiny.random_model(tiny.make_config("qwen3", 300), seed=0)
    ids = torch.arange(5, 11)[None]
    assert may_go_without_logits(model, ids, ids[:, -2:])
    lora = Lora(rank=2, alpha=4.0, target_modules=("lm_head",))
    add_lora(model, lora, "later", seed=0)
    assert not may_go_without_logits(model, ids, ids[:, -2:])


def draws_of(rows: int) -> torch.Tensor:
    return torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("vocabulary", [300, 1024, VOCABULARY])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_two_steps_take_the_token_that_one_would(vocabulary: int, temperature: float) -> None:
    # Fails with: the draw used again inside the block; blocks chosen by their largest logit; the
    # filling of the last block given a probability.
    rows = 400
    logits, draws = 3 * draw(rows, vocabulary), draws_of(rows)
    logits[:, ::7] = -torch.inf
    tokens, log_probs = next_tokens(logits, temperature, draws)
    scaled = logits.double() / temperature
    below = scaled.softmax(dim=-1).cumsum(dim=-1)
    wanted = torch.searchsorted(below, draws[:, None], right=True).squeeze(1)
    assert torch.equal(tokens, wanted)
    chosen = scaled.log_softmax(dim=-1).gather(1, wanted[:, None]).squeeze(1)
    torch.testing.assert_close(log_probs.double(), chosen, rtol=1e-5, atol=1e-5)


def test_every_draw_gives_a_token_that_can_be() -> None:
    # Fails with: a draw next to 1 that ends behind the last token, or on one of no probability.
    logits = draw(4, VOCABULARY)
    logits[:, -600:] = -torch.inf
    draws = torch.tensor([0.0, 1e-300, 1 - 2**-53, 1 - 2**-52], dtype=torch.float64)
    tokens, log_probs = next_tokens(logits, 1.0, draws)
    assert bool((tokens < VOCABULARY - 600).all())
    assert bool(log_probs.isfinite().all())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_does_not_depend_on_the_others(temperature: float) -> None:
    logits, draws = draw(7, VOCABULARY).bfloat16(), draws_of(7)
    together = next_tokens(logits, temperature, draws)
    for row in range(7):
        alone = next_tokens(logits[row : row + 1], temperature, draws[row : row + 1])
        for ours, theirs in zip(alone, together, strict=True):
            assert torch.equal(ours, theirs[row : row + 1])
