"""Tiny pairs with random weights in several architectures, made on the spot.

The tokenizer is trained on a few sentences; Llama and Gemma have a BOS that the chat template
writes itself, as theirs do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3TextConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from nla_audit.checkpoint.save import new_sidecar, save_ar, save_av
from nla_audit.nla.architecture import keep_first_blocks
from nla_audit.nla.injection import Injection
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer

MARKER = "㈎"
AV_TEMPLATE = "Describe the vector.\n<concept>{injection_char}</concept>\nUse <explanation> tags."
AR_TEMPLATE = "Summary of the following text: <text>{explanation}</text> <summary>"
D_MODEL = 32
BLOCKS = 4
LAYER = 2

_SENTENCES = [
    AV_TEMPLATE,
    AR_TEMPLATE,
    "<explanation>a story about a fair, with a quoted word</explanation>",
    "formal register; the final token opens a noun phrase",
]
_CHAT = (
    "{{ bos_token if bos_token else '' }}{% for m in messages %}<start>{{ m['role'] }}\n"
    "{{ m['content'] }}<end>\n{% endfor %}{% if add_generation_prompt %}<start>model\n{% endif %}"
)


def make_tokenizer(*, bos: bool, extra: str = "") -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; ``extra`` text shifts its merges, so that ids differ."""
    core = Tokenizer(models.BPE())
    # transformers gives a Qwen2 checkpoint this normaliser whatever its tokenizer.json says.
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<bos>", "<eos>", "<start>", "<end>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([*_SENTENCES, extra], trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", core.token_to_id("<bos>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>" if bos else None,
        additional_special_tokens=["<start>", "<end>"],
    )
    tokenizer.add_tokens([MARKER])
    tokenizer.chat_template = _CHAT
    return tokenizer


def make_config(architecture: str, vocabulary: int) -> Any:
    """A tiny config of one of the architectures that NLAs were published for."""
    common = {
        "vocab_size": vocabulary,
        "hidden_size": D_MODEL,
        "intermediate_size": 48,
        "num_hidden_layers": BLOCKS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": [2, 4],
    }
    if architecture == "qwen2":
        return Qwen2Config(**{key: value for key, value in common.items() if key != "head_dim"})
    if architecture == "qwen3":
        return Qwen3Config(**common)
    if architecture == "llama":
        return LlamaConfig(**common)
    # A window shorter than the prompts, so that sliding attention matters.
    text = {**common, "sliding_window": 8, "query_pre_attn_scalar": 8}
    layers = ["sliding_attention", "full_attention"] * (BLOCKS // 2)
    if architecture == "gemma3":
        return Gemma3TextConfig(**text, layer_types=layers)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    return Gemma3Config(
        text_config={**text, "layer_types": layers},
        vision_config=vision,
        mm_tokens_per_image=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=[2, 4],
    )


def has_bos(architecture: str) -> bool:
    """Whether the architecture's tokenizers put a BOS."""
    return architecture.startswith(("llama", "gemma"))


def random_model(config: Any, seed: int) -> Any:
    """A causal language model with random weights, norms included."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def sidecar_options(injection: Injection) -> dict[str, Any]:
    """Of :func:`nla_audit.checkpoint.save.new_sidecar`, but for the role."""
    return {
        "d_model": D_MODEL,
        "layer_index": LAYER,
        "injection_char": MARKER,
        "injection": injection,
        "av_template": AV_TEMPLATE,
        "ar_template": AR_TEMPLATE,
        "base_model": "tiny/random",
        "stage": "rl",
    }


def save_pair(root: Path, architecture: str, injection: Injection, *, seed: int = 0) -> Path:
    """Write ``root/av``, ``root/ar`` and ``root/base`` (the AR before truncation)."""
    tokenizer = make_tokenizer(bos=has_bos(architecture))
    config = make_config(architecture, len(tokenizer))
    options = sidecar_options(injection)
    av = random_model(config, seed)
    save_av(Verbalizer(av, tokenizer, new_sidecar(tokenizer, role="av", **options)), root / "av")
    base = random_model(config, seed + 1)
    base.save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    shortened = make_config(architecture, len(tokenizer))
    keep_first_blocks(shortened, LAYER + 1)
    ar = AutoModelForCausalLM.from_pretrained(root / "base", config=shortened).float().eval()
    head = torch.eye(D_MODEL) + 0.1 * nn.init.normal_(torch.empty(D_MODEL, D_MODEL))
    save_ar(
        Reconstructor(ar, head, tokenizer, new_sidecar(tokenizer, role="ar", **options)),
        root / "ar",
    )
    return root
