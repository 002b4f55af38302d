"""A pair with random weights whose AV nevertheless writes explanations.

The AV's embedding and output matrices are built so that each token names its successors: the
prompt's end is followed by the opening tag, that by words or by the closing tag (an empty
explanation), words by words, by the closing tag, or by the end token (a failed one). The blocks
are random and small beside that, so that the injected vector still moves every probability.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from nla_audit.checkpoint.save import new_sidecar, save_ar, save_av
from nla_audit.nla.architecture import blocks_of, decoder_of, keep_first_blocks
from nla_audit.nla.injection import Injection
from nla_audit.nla.prompts import chat_ids
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from tests.pairs import tiny

TAGS = ("<explanation>", "</explanation>")
WORDS = (" fair", " quoted", " story", " formal", " register", " phrase", " noun", " opens")
INJECTION = Injection("replace", scale=20.0)

#: Odds of a transition are e to the power of its logit; everything else has a logit near 0.
_CERTAIN = 16.0
#: Norm of what all blocks together add to a hidden state of norm 1, about.
_SHARE_OF_BLOCKS = 0.1


def save_pair(
    root: Path,
    *,
    d_model: int = 32,
    blocks: int = 4,
    layer: int = 2,
    words: float = 6.0,
    empty: float = 0.1,
    lost: float = 0.02,
    seed: int = 0,
    injection: Injection = INJECTION,
) -> Path:
    """Write ``root/av`` and ``root/ar``.

    Args:
        words: words of an explanation on average.
        empty: share of explanations without a word.
        lost: chance after each word to end without the closing tag.
    """
    tokenizer = tiny.make_tokenizer(bos=True)
    tokenizer.add_tokens([*TAGS, *WORDS])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        intermediate_size=3 * d_model,
        num_hidden_layers=blocks,
        num_attention_heads=max(2, d_model // 32),
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=[2, 4],
        tie_word_embeddings=False,
    )
    options: dict[str, Any] = {
        "d_model": d_model,
        "layer_index": layer,
        "injection_char": tiny.MARKER,
        "injection": injection,
        "av_template": tiny.AV_TEMPLATE,
        "ar_template": tiny.AR_TEMPLATE,
        "base_model": "tiny/talking",
        "stage": "rl",
    }
    torch.manual_seed(seed)
    av: Any = AutoModelForCausalLM.from_config(config).float().eval()
    _quieten(av)
    teach(av, tokenizer, words=words, empty=empty, lost=lost)
    save_av(Verbalizer(av, tokenizer, new_sidecar(tokenizer, role="av", **options)), root / "av")
    keep_first_blocks(config, layer + 1)
    ar: Any = AutoModelForCausalLM.from_config(config).float().eval()
    head = torch.eye(d_model) + 0.05 * torch.randn(d_model, d_model)
    sidecar = new_sidecar(tokenizer, role="ar", ar_trained_in_rl=False, **options)
    save_ar(Reconstructor(ar, head, tokenizer, sidecar), root / "ar")
    return root


def _quieten(av: Any) -> None:
    """Make what the blocks add small beside the embeddings."""
    width = av.config.hidden_size
    blocks = blocks_of(decoder_of(av))
    with torch.no_grad():
        for block in blocks:
            for projection in (block.self_attn.o_proj, block.mlp.down_proj):
                # Orthogonal rows at most keep a norm, and the inputs here are of norm √width.
                nn.init.orthogonal_(projection.weight)
                projection.weight *= _SHARE_OF_BLOCKS / (2 * len(blocks) * width) ** 0.5


def teach(av: Any, tokenizer: Any, *, words: float, empty: float, lost: float) -> None:
    """Write the transitions into embeddings and output matrix of a model whose blocks are quiet."""
    last = chat_ids(tokenizer, "x")[-1]
    opening, closing, *word_ids = tokenizer.convert_tokens_to_ids([*TAGS, *WORDS])
    (end,) = tokenizer.convert_tokens_to_ids(["<end>"])
    close = 1 / words
    go_on = dict.fromkeys(word_ids, (1 - close - lost) / len(word_ids))
    following = {
        last: {opening: 1.0},
        opening: {**dict.fromkeys(word_ids, (1 - empty) / len(word_ids)), closing: empty},
        closing: {end: 1.0},
        **{word: {**go_on, closing: close, end: lost} for word in word_ids},
    }
    width = av.config.hidden_size
    with torch.no_grad():
        table = av.get_input_embeddings().weight
        nn.init.normal_(table, std=1 / width**0.5)
        directions = torch.linalg.qr(torch.randn(width, width)).Q[: len(following)].to(table)
        table[list(following)] = directions
        output = torch.zeros_like(av.lm_head.weight)
        for token, direction in zip(following, directions, strict=True):
            for successor, chance in following[token].items():
                # The final norm scales the hidden state to √width.
                logit = _CERTAIN + torch.tensor(chance).log().item()
                output[successor] += direction * logit / width**0.5
        av.lm_head.weight.copy_(output)
