"""Tiny pairs of several architectures against the plainest possible implementation.

The reference here shares nothing with the package but the weights: one row at a time, the whole
sequence, no cache, the embedding table looked up and scaled by hand, the AR read out of the
*untruncated* base's ``hidden_states[K + 1]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3Config

from nla_audit.checkpoint.load import Pair, Placement, load
from nla_audit.errors import UserError
from nla_audit.nla import prompts
from nla_audit.nla.architecture import longest_input
from nla_audit.nla.injection import Injection
from tests.pairs import tiny

FLOAT32 = Placement(dtype="float32", device="cpu")
TEXTS = ["a story about a fair", "", "noun", "formal register; the final token opens a phrase"]
CASES = [
    ("qwen2", Injection("replace", scale=20.0)),
    ("qwen3", Injection("add", block=1)),
    ("llama", Injection("replace", scale=20.0)),
    ("llama", Injection("add", block=2)),
    ("gemma3", Injection("replace", scale=200.0)),
    ("gemma3", Injection("add", block=1)),
    ("gemma3_wrapper", Injection("replace", scale=200.0)),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Injection, Path]:
    architecture, injection = request.param
    root = tmp_path_factory.mktemp("pair")
    return architecture, injection, tiny.save_pair(root, architecture, injection)


@pytest.fixture(scope="module")
def activations() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, tiny.D_MODEL)).astype(np.float32)


def reference_logits(
    root: Path, architecture: str, injection: Injection, vector: np.ndarray
) -> torch.Tensor:
    """First-position logits for one activation ``[d_model]``."""
    tokenizer = AutoTokenizer.from_pretrained(root / "av")
    model: Any = AutoModelForCausalLM.from_pretrained(root / "av").float().eval()
    bos = [tokenizer.bos_token_id] if tiny.has_bos(architecture) else []
    user = tiny.AV_TEMPLATE.format(injection_char=tiny.MARKER)
    text = f"<start>user\n{user}<end>\n<start>model\n"
    ids = torch.tensor([bos + tokenizer.encode(text, add_special_tokens=False)])
    column = ids[0].tolist().index(tokenizer.encode(tiny.MARKER, add_special_tokens=False)[0])
    scale = tiny.D_MODEL**0.5 if architecture.startswith("gemma") else 1.0
    embeddings = model.get_input_embeddings().weight[ids] * scale
    v = torch.from_numpy(vector)
    if injection.kind == "replace":
        assert injection.scale is not None
        embeddings[0, column] = v / v.norm() * injection.scale
        with torch.no_grad():
            return model(inputs_embeds=embeddings).logits[0, -1]

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        h = output[0] if isinstance(output, tuple) else output
        h[0, column] += h[0, column].norm() * v / v.norm()
        return output

    handle = model.model.layers[injection.block].register_forward_hook(add)
    with torch.no_grad():
        logits = model(inputs_embeds=embeddings).logits[0, -1]
    handle.remove()
    return logits


def reference_vectors(root: Path, architecture: str) -> np.ndarray:
    """Reconstructions of :data:`TEXTS`, from the base before truncation."""
    tokenizer = AutoTokenizer.from_pretrained(root / "ar")
    model: Any = AutoModelForCausalLM.from_pretrained(root / "base").float().eval()
    head = load_file(root / "ar" / "value_head.safetensors")["weight"]
    bos = [tokenizer.bos_token_id] if tiny.has_bos(architecture) else []
    rows = []
    for text in TEXTS:
        prompt = f"Summary of the following text: <text>{text}</text> <summary>"
        ids = torch.tensor([bos + tokenizer.encode(prompt, add_special_tokens=False)])
        with torch.no_grad():
            states = model(input_ids=ids, output_hidden_states=True).hidden_states
        rows.append(head @ states[tiny.LAYER + 1][0, -1])
    return torch.stack(rows).numpy()


def assert_av_matches(
    root: Path, architecture: str, injection: Injection, rows: np.ndarray
) -> None:
    verbalizer = load(av=root / "av", placement=FLOAT32).verbalizer
    assert verbalizer is not None
    assert verbalizer.injection == injection
    logits = verbalizer.first_logits(rows)
    wanted = torch.stack([reference_logits(root, architecture, injection, row) for row in rows])
    np.testing.assert_allclose(logits.numpy(), wanted.numpy(), atol=1e-4, rtol=1e-4)


def assert_ar_matches(root: Path, architecture: str, pair: Pair | None = None) -> None:
    reconstructor = (pair or load(ar=root / "ar", placement=FLOAT32)).reconstructor
    assert reconstructor is not None
    wanted = reference_vectors(root, architecture)
    np.testing.assert_allclose(reconstructor.reconstruct(TEXTS), wanted, atol=1e-4, rtol=1e-4)


def test_av(case: tuple[str, Injection, Path], activations: np.ndarray) -> None:
    architecture, injection, root = case
    assert_av_matches(root, architecture, injection, activations)


def test_ar(case: tuple[str, Injection, Path]) -> None:
    architecture, _, root = case
    assert_ar_matches(root, architecture)


def test_batched_equals_one_at_a_time(case: tuple[str, Injection, Path]) -> None:
    _, _, root = case
    reconstructor = load(ar=root / "ar", placement=FLOAT32).reconstructor
    assert reconstructor is not None
    texts = [*TEXTS, "of the", "   ", "quoted " * 20]
    together = reconstructor.reconstruct(texts)
    apart = np.concatenate([reconstructor.reconstruct([text]) for text in texts])
    np.testing.assert_allclose(together, apart, atol=1e-5, rtol=1e-5)
    reconstructor.tokenizer.padding_side = "left"
    np.testing.assert_array_equal(reconstructor.reconstruct(texts), together)


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def with_bos(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Injection, Path]:
    injection = Injection("replace", scale=50.0)
    root = tmp_path_factory.mktemp("pair")
    return request.param, injection, tiny.save_pair(root, request.param, injection)


def _without_bos(tokenizer: Any, template: str, texts: Any) -> list[list[int]]:
    return [ids[1:] for ids in prompts.ar_prompt_ids(tokenizer, template, texts)]


def _with_two_bos(tokenizer: Any, template: str, texts: Any) -> list[list[int]]:
    return [[ids[0], *ids] for ids in prompts.ar_prompt_ids(tokenizer, template, texts)]


@pytest.mark.parametrize("mutation", [_without_bos, _with_two_bos])
def test_mutation_ar_bos_dropped_or_doubled(
    with_bos: tuple[str, Injection, Path], mutation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, _, root = with_bos
    pair = load(ar=root / "ar", placement=FLOAT32)
    monkeypatch.setattr("nla_audit.nla.reconstructor.ar_prompt_ids", mutation)
    with pytest.raises(AssertionError):
        assert_ar_matches(root, architecture, pair)


def test_mutation_av_bos_doubled(
    with_bos: tuple[str, Injection, Path], activations: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, injection, root = with_bos
    original = prompts.token_ids
    monkeypatch.setattr(
        prompts,
        "token_ids",
        lambda tokenizer, text, special_tokens: original(
            tokenizer, text, special_tokens=special_tokens or "<start>" in text
        ),
    )
    with pytest.raises(UserError, match="BOS twice"):
        assert_av_matches(root, architecture, injection, activations)


def test_mutation_av_bos_dropped(
    with_bos: tuple[str, Injection, Path], activations: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, injection, root = with_bos
    original = prompts.chat_ids
    monkeypatch.setattr(prompts, "chat_ids", lambda tokenizer, text: original(tokenizer, text)[1:])
    with pytest.raises(AssertionError):
        assert_av_matches(root, architecture, injection, activations)


def test_mutation_embedding_scale_missed(
    tmp_path: Path, activations: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking rows up in the raw table, as if Gemma's module did not multiply by √d."""
    injection = Injection("replace", scale=200.0)
    root = tiny.save_pair(tmp_path, "gemma3", injection)
    from transformers.models.gemma3.modeling_gemma3 import (
        Gemma3TextScaledWordEmbedding,
    )

    monkeypatch.setattr(Gemma3TextScaledWordEmbedding, "forward", torch.nn.Embedding.forward)
    with pytest.raises(AssertionError):
        assert_av_matches(root, "gemma3", injection, activations)


def test_mutation_injection_scale_missed(
    with_bos: tuple[str, Injection, Path], activations: np.ndarray
) -> None:
    architecture, injection, root = with_bos
    raw = load(
        av=root / "av", placement=FLOAT32, injection=Injection("replace", scale=None)
    ).verbalizer
    assert raw is not None
    wanted = reference_logits(root, architecture, injection, activations[0])
    assert (raw.first_logits(activations[:1])[0] - wanted).abs().max() > 1e-2


def test_a_wrapper_reads_as_much_as_its_text_model() -> None:
    # Fails with: the wrapper's own config asked, which has no such number.
    config = Gemma3Config(text_config={"max_position_embeddings": 77})
    assert longest_input(config) == 77


def test_tokenizer_that_drops_bos_is_refused(with_bos: tuple[str, Injection, Path]) -> None:
    _, _, root = with_bos
    pair = load(ar=root / "ar", placement=FLOAT32)
    assert pair.reconstructor is not None
    tokenizer = pair.reconstructor.tokenizer
    tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(UserError, match="BOS 0 times"):
        prompts.check_ar_prompt(tokenizer, pair.reconstructor.sidecar)
