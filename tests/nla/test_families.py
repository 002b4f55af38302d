"""Tiny random models of many families against plain, uncached forward passes.

What is compared: activations read, tokens written, texts read, log-probabilities trained on.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from nla_audit.checkpoint.save import new_sidecar
from nla_audit.errors import UserError
from nla_audit.nla import output_head
from nla_audit.nla.architecture import (
    blocks_of,
    cut_to_first_blocks,
    decoder_of,
    keep_first_blocks,
    packs_blocks,
    text_config,
)
from nla_audit.nla.caching import Caching, caching_of
from nla_audit.nla.generation import uniforms
from nla_audit.nla.injection import Injection
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.responses import response_log_probs
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.runs.target import TargetModel
from nla_audit.train.readings import may_share_prompts
from tests.pairs import tiny

BLOCKS, LAYER, WIDTH = 3, 1, tiny.D_MODEL
ROWS, NEW_TOKENS, SEED = 6, 5, 0
TEMPLATE = "A <concept>{injection_char}</concept>"
COMMON = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "full_attention"],
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
WINDOWS = {
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "full_attention"],
}
#: The last block reads the keys of the one before; the vector goes in where it has keys to change.
SHARING = {
    "num_hidden_layers": 4,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "num_kv_shared_layers": 1,
    "hidden_size_per_layer_input": 8,
}
MAMBA = {
    "mamba_d_ssm": 64,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
}
#: Family → what its config needs besides COMMON, and the way that must be found for it.
FAMILIES: dict[str, tuple[dict[str, Any], Caching]] = {
    "llama": ({}, Caching.SHARED),
    "mistral": ({"sliding_window": 8}, Caching.SHARED),
    "qwen2": ({}, Caching.SHARED),
    "qwen3": ({}, Caching.SHARED),
    "phi3": ({}, Caching.SHARED),
    "olmo2": ({}, Caching.SHARED),
    "gpt_neox": ({}, Caching.SHARED),
    "gemma2": (WINDOWS, Caching.SHARED),
    "gemma3_text": (WINDOWS, Caching.SHARED),
    "granite": ({"logits_scaling": 2.0, "residual_multiplier": 0.5}, Caching.SHARED),
    "cohere2": (WINDOWS, Caching.SHARED),
    "qwen3_next": ({**LINEAR, **EXPERTS}, Caching.OWN),
    "qwen3_5_text": (LINEAR, Caching.OWN),
    "falcon_h1": (MAMBA, Caching.OWN),
    "lfm2": ({"layer_types": ["conv", "full_attention", "conv"]}, Caching.OWN),
    "mamba": ({"state_size": 8}, Caching.OWN),
    "gemma3n_text": (SHARING, Caching.OWN),
    "gemma4_text": (SHARING, Caching.OWN),
    "qwen2_5_vl": ({}, Caching.SHARED),
}
#: What families with embeddings for each layer need besides.
PER_LAYER: dict[str, dict[str, Any]] = {
    "gemma3n_text": {"laurel_rank": 4, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0]},
    "gemma4_text": {"global_head_dim": 8},
}
#: Families that multiply their logits by a number, in tests at least.
SCALED = {"granite", "cohere2"}
TEXTS = ["a story about a fair", "", "noun", "formal register; the final token opens a phrase"]
IDS = [[7, 8, 9, 10, 11, 12], [20, 21, 22], [30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40]]


def config_of(family: str, vocabulary: int) -> Any:
    if family not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {family}")
    special = {**COMMON, **FAMILIES[family][0], "vocab_size": vocabulary}
    if family == "qwen2_5_vl":
        rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
        vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
        text = {**special, "rope_parameters": rope}
        return AutoConfig.for_model(family, text_config=text, vision_config=vision)
    if family in PER_LAYER:
        special |= {**PER_LAYER[family], "vocab_size_per_layer_input": vocabulary}
    return AutoConfig.for_model(family, **special)


def model_of(config: Any, seed: int) -> Any:
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    wrapper = hasattr(config, "vision_config")
    kind = AutoModelForImageTextToText if wrapper else AutoModelForCausalLM
    return kind.from_config(config).float().eval()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    tokenizer = tiny.make_tokenizer(bos=False)
    model = model_of(config_of(request.param, len(tokenizer)), 0)
    return request.param, model, tokenizer


def sidecar_of(tokenizer: Any, role: str, injection: Injection) -> Any:
    return new_sidecar(
        tokenizer,
        role=role,
        d_model=WIDTH,
        layer_index=LAYER,
        injection_char=tiny.MARKER,
        injection=injection,
        av_template=TEMPLATE,
        ar_template=tiny.AR_TEMPLATE,
        base_model="tiny/random",
        stage="rl",
    )


def verbalizer_of(model: Any, tokenizer: Any) -> Verbalizer:
    injection = Injection("add", block=1)
    return Verbalizer(model, tokenizer, sidecar_of(tokenizer, "av", injection))


def plain_logits(verbalizer: Verbalizer, ids: list[int], vector: np.ndarray) -> torch.Tensor:
    """Logits ``[tokens, vocabulary]`` of one row, whole and uncached, with the vector added."""
    model, column = verbalizer.model, verbalizer.prompt.marker

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        h = (output[0] if isinstance(output, tuple) else output).clone()
        v = torch.from_numpy(vector)
        stream = h[0] if h.ndim == 4 else h  # the first of Gemma-3n's streams is the active one
        stream[0, column] += stream[0, column].norm() * v / v.norm()
        return (h, *output[1:]) if isinstance(output, tuple) else h

    handle = blocks_of(decoder_of(model))[1].register_forward_hook(add)
    try:
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


def test_way(family: tuple[str, Any, Any]) -> None:
    name, model, _ = family
    assert caching_of(model, model.config, list(range(5, 40))) is FAMILIES[name][1]


@pytest.mark.filterwarnings("ignore:.*keeps more than keys and values")
def test_prompts_are_shared_in_training(family: tuple[str, Any, Any]) -> None:
    # Fails with: positions of a response counted from 0; windows without the prompt's tokens.
    name, model, tokenizer = family
    assert may_share_prompts(verbalizer_of(model, tokenizer)) is (
        FAMILIES[name][1] is Caching.SHARED
    )


def test_extract(family: tuple[str, Any, Any]) -> None:
    name, model, tokenizer = family
    # Mamba's list leaves out the embeddings, which are the first of all others.
    place = LAYER if name == "mamba" else LAYER + 1
    target = TargetModel(model, tokenizer, LAYER)
    found = target.activations(IDS, [[len(ids) - 1] for ids in IDS])
    for row, ids in enumerate(IDS):
        with torch.no_grad():
            states = model(
                input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False
            ).hidden_states
        state = states[place][0] if states[place].ndim == 4 else states[place]
        wanted = state[0, -1].numpy()
        np.testing.assert_allclose(found[row], wanted, atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.*keeps more than keys and values")
def test_explanations_of_rows_that_leave_the_batch(family: tuple[str, Any, Any]) -> None:
    _, model, tokenizer = family
    verbalizer = verbalizer_of(model, tokenizer)
    vectors = np.random.default_rng(1).normal(size=(ROWS, WIDTH)).astype(np.float32)
    # A quarter of all tokens end an answer, so that rows end at different times.
    verbalizer.end_ids = frozenset(range(5, len(tokenizer), 4))
    said = verbalizer.generate(vectors, max_new_tokens=NEW_TOKENS, seed=SEED).generated
    assert len(set(said.lengths.tolist())) > 1
    prompt = list(verbalizer.prompt.ids)
    for row, vector in enumerate(vectors):
        tokens = said.token_ids[row, : said.lengths[row]]
        logits = plain_logits(verbalizer, prompt + tokens[:-1].tolist(), vector)[len(prompt) - 1 :]
        wanted = logits.log_softmax(dim=-1)[range(len(tokens)), tokens].numpy()
        found = said.log_probs[row, : len(tokens)]
        np.testing.assert_allclose(found, wanted, atol=1e-3, rtol=1e-3)
        draws = uniforms(SEED, [row], len(tokens))[0]
        below = logits.double().softmax(dim=-1).cumsum(dim=-1)
        chosen = torch.searchsorted(below, draws[:, None]).squeeze(1)
        np.testing.assert_array_equal(tokens, chosen)
        ends = [int(token) in verbalizer.end_ids for token in tokens]
        assert ends == [False] * (len(tokens) - 1) + [bool(said.ended[row])]
        assert said.ended[row] or len(tokens) == NEW_TOKENS


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_explanations_with_shapes_that_stay(
    family: tuple[str, Any, Any], temperature: float
) -> None:
    # Fails with: windows that forget; places counted from elsewhere; heads taken for each other.
    name, model, tokenizer = family
    verbalizer = verbalizer_of(model, tokenizer)
    if FAMILIES[name][1] is not Caching.SHARED:
        with pytest.raises(UserError, match=f"{type(model).__name__} keeps more than keys"):
            verbalizer.compile({"disable": True})
        return
    vectors = np.random.default_rng(1).normal(size=(20, WIDTH)).astype(np.float32)
    verbalizer.end_ids = frozenset(range(5, len(tokenizer), 8))
    how = {"max_new_tokens": 2 * WINDOWS["sliding_window"], "temperature": temperature}
    wanted = verbalizer.generate(vectors, **how).generated
    verbalizer.compile({"disable": True})
    found = verbalizer.generate(vectors, **how).generated
    np.testing.assert_array_equal(found.token_ids, wanted.token_ids)
    np.testing.assert_allclose(found.log_probs, wanted.log_probs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("large", [output_head.LARGE_VOCABULARY, 1], ids=["logits", "chunks"])
def test_log_probs_and_their_gradient(
    family: tuple[str, Any, Any], large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fails with: a family's scale or bound on its logits passed over where none are kept.
    monkeypatch.setattr(output_head, "LARGE_VOCABULARY", large)
    monkeypatch.setattr(output_head, "_known", WeakKeyDictionary())
    name, model, tokenizer = family
    verbalizer = verbalizer_of(model, tokenizer)
    vectors = np.random.default_rng(2).normal(size=(2, WIDTH)).astype(np.float32)
    responses = torch.randint(5, 300, (2, 4), generator=torch.Generator().manual_seed(0))
    found = response_log_probs(verbalizer, torch.from_numpy(vectors), responses)
    if large == 1:
        assert output_head._known[model] == (name not in SCALED)
    found.sum().backward()
    weight = model.get_input_embeddings().weight
    assert weight.grad is not None
    assert bool(torch.isfinite(weight.grad).all())
    model.zero_grad()
    prompt = list(verbalizer.prompt.ids)
    for row in range(len(vectors)):
        logits = plain_logits(verbalizer, prompt + responses[row].tolist(), vectors[row])
        log_probs = logits[len(prompt) - 1 : -1].log_softmax(dim=-1)
        wanted = log_probs.gather(1, responses[row][:, None]).squeeze(1)
        torch.testing.assert_close(found[row].detach(), wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.filterwarnings("ignore:.*keeps more than keys and values")
def test_reading(family: tuple[str, Any, Any]) -> None:
    name, _, tokenizer = family
    config = config_of(name, len(tokenizer))
    if packs_blocks(config):
        model = model_of(config, 1)
        cut_to_first_blocks(model, LAYER + 1)
    else:
        keep_first_blocks(config, LAYER + 1)
        model = model_of(config, 1)
    assert text_config(model.config).num_hidden_layers == LAYER + 1
    head = torch.eye(WIDTH) + 0.1 * nn.init.normal_(torch.empty(WIDTH, WIDTH))
    sidecar = sidecar_of(tokenizer, "ar", Injection("add", block=1))
    reader = Reconstructor(model, head, tokenizer, sidecar)
    found = reader.reconstruct(TEXTS)
    for row, ids in enumerate(reader.prompt_ids(TEXTS)):
        with torch.no_grad():
            state = reader.decoder(
                input_ids=torch.tensor([ids]), use_cache=False
            ).last_hidden_state[0, -1]
        np.testing.assert_allclose(found[row], (head @ state).numpy(), atol=1e-3, rtol=1e-3)
