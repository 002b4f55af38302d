"""A pair of a real language model. Run where ``NLA_AUDIT_REAL_MODEL`` names a folder with one.

Any causal language model does; ``google/gemma-3-270m`` is small, with a large vocabulary.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nla_audit.checkpoint.backbone import Placement
from nla_audit.checkpoint.load import load
from nla_audit.nla.generation import NO_TOKEN, padded
from nla_audit.nla.output_head import LARGE_VOCABULARY, may_go_without_logits
from nla_audit.nla.responses import response_log_probs
from nla_audit.runs.target import load_target
from nla_audit.train.log_probs import micro_batches
from nla_audit.train.pair import (
    default_layer,
    load_config,
    new_reconstructor,
    new_verbalizer,
    save_trained_ar,
    save_trained_av,
)
from nla_audit.train.policy import Policy
from nla_audit.train.recipe import PairSettings
from nla_audit.train.recipe_data import Target
from nla_audit.train.recipe_optimizer import Lora
from nla_audit.train.warm_start import gold_ids

FOLDER = os.environ.get("NLA_AUDIT_REAL_MODEL", "")
MARKER = os.environ.get("NLA_AUDIT_REAL_MARKER", "㈜")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FOLDER, reason="NLA_AUDIT_REAL_MODEL names no folder with a language model"
    ),
]

TEXTS = [
    "The tide came in over the flats, and the two boats that had lain on their sides since noon "
    "stood up again one after the other.",
    "To install the package, run the command below; it needs no rights of an administrator.",
    "There was once a miller who had three sons, a mill, a donkey and a cat.",
]
#: Relative distance (L2) of two states, of one computation in another order: a bf16 number has
#: eight binary digits, and its errors add up over the blocks.
ROUNDING = {"bfloat16": 2**-5, "float32": 1e-4}
SETTINGS = PairSettings(chat_template="plain", marker=MARKER)


@pytest.fixture(scope="module")
def layer() -> int:
    return default_layer(load_config(FOLDER).get_text_config().num_hidden_layers)


def distance(found: Any, wanted: Any) -> float:
    found, wanted = (torch.as_tensor(one).double() for one in (found, wanted))
    return float(((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vectors_are_those_of_plain_transformers(layer: int, dtype: str) -> None:
    target = load_target(FOLDER, layer_index=layer, placement=Placement(dtype, device="cpu"))
    ids = target.token_ids(TEXTS, max_tokens=64)
    found = target.activations(ids, [[3, len(one) - 1] for one in ids])
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    wanted = []
    for text in TEXTS:
        read = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            states = model(**read, output_hidden_states=True).hidden_states[layer + 1][0]
        wanted += [states[3], states[-1]]
    assert distance(found, torch.stack(wanted)) < ROUNDING[dtype]


def test_the_pair_is_saved_as_plain_transformers_loads_it(layer: int, tmp_path: Path) -> None:
    target = Target(model=FOLDER, device="cpu", dtype="float32")
    reader = new_reconstructor(FOLDER, layer, target, SETTINGS)
    save_trained_ar(reader, tmp_path / "ar", {"stage": "warm_start"})
    av = new_verbalizer(FOLDER, layer, target, SETTINGS)
    policy = Policy(av, Lora(rank=2, alpha=4.0), seed=0)
    with torch.no_grad():
        for parameter in policy.parameters.values():
            parameter.add_(0.01)  # B = 0 would leave nothing to merge
    save_trained_av(av, tmp_path / "av", {"stage": "warm_start"})
    pair = load(tmp_path / "av", tmp_path / "ar", placement=Placement("float32", device="cpu"))
    vectors = np.random.default_rng(0).normal(size=(2, av.d_model)).astype(np.float32)
    ours = pair.verbalizer.first_logits(vectors)
    assert distance(ours, av.first_logits(vectors)) < ROUNDING["float32"]

    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "av", dtype=torch.float32).eval()
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "av").chat_template == av.tokenizer.chat_template
    )
    prompt = av.prompt

    def add(_block: Any, _inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        vector = torch.from_numpy(vectors)
        at = states[:, prompt.marker]
        norms = at.norm(dim=-1, keepdim=True) / vector.norm(dim=-1, keepdim=True)
        states[:, prompt.marker] = at + norms * vector

    plain.get_decoder().layers[1].register_forward_hook(add)
    with torch.inference_mode():
        logits = plain(input_ids=torch.tensor([prompt.ids, prompt.ids])).logits[:, -1]
    assert distance(ours, logits) < ROUNDING["float32"]

    read = pair.reconstructor.reconstruct(TEXTS)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "ar", dtype=torch.float32).eval()
    (head,) = load_file(tmp_path / "ar" / "value_head.safetensors").values()
    outputs: list[Any] = []
    plain.get_decoder().layers[-1].register_forward_hook(lambda *_: outputs.append(_[2]))
    for text, vector in zip(TEXTS, read, strict=True):
        with torch.inference_mode():
            plain(input_ids=torch.tensor(pair.reconstructor.prompt_ids([text])))
        output = outputs.pop()
        states = output[0] if isinstance(output, tuple) else output
        assert distance(vector, states[0, -1] @ head.float().T) < ROUNDING["float32"]


def test_log_probs_and_sampling_agree_without_logits(layer: int) -> None:
    # Fails with: a scale or bound on this model's logits passed over.
    av = new_verbalizer(FOLDER, layer, Target(model=FOLDER, device="cpu"), SETTINGS)
    ids = gold_ids(av, TEXTS)
    lengths = np.array([len(one) for one in ids], dtype=np.int64)
    (batch,) = micro_batches(padded(ids), lengths, len(av.prompt.ids), None, av.device)
    vectors = torch.from_numpy(
        np.random.default_rng(0).normal(size=(len(ids), av.d_model)).astype(np.float32)
    )
    prompt = torch.tensor(av.prompt.ids).expand(len(ids), -1)
    read = torch.cat([prompt, batch.token_ids[:, :-1]], dim=1)
    is_large = av.model.get_output_embeddings().out_features >= LARGE_VOCABULARY
    assert may_go_without_logits(av.model, read, batch.token_ids) == is_large
    with torch.inference_mode():
        found = response_log_probs(av, vectors, batch.token_ids, batch.is_token)
        with av.injecting(vectors):
            logits = av.model(input_ids=read, use_cache=False).logits[:, len(av.prompt.ids) - 1 :]
    wanted = logits.float().log_softmax(dim=-1).gather(-1, batch.token_ids[..., None]).squeeze(-1)
    assert distance(found[batch.is_token], wanted[batch.is_token]) < ROUNDING["bfloat16"]
    said = av.generate(vectors.numpy(), max_new_tokens=4).generated
    assert said.token_ids.shape[0] == len(ids)
    taken = torch.from_numpy(said.token_ids)
    with torch.inference_mode():
        again = response_log_probs(av, vectors, taken.clamp_min(0), taken != NO_TOKEN)
    old = torch.from_numpy(said.log_probs)[taken != NO_TOKEN]
    assert distance(again[taken != NO_TOKEN], old) < ROUNDING["bfloat16"]
