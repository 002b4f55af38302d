"""A pair with random weights whose explanations all have the same number of tokens.

What a step of RL costs depends on how long responses are. Here every one is the opening tag,
words, the closing tag and the end token, whatever is drawn and whatever has been trained for a few
steps: so two loops that draw differently still do the same work. Which of a place's words is drawn
is as good as random.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen3Config

from nla_audit.checkpoint.load import Pair, load
from nla_audit.checkpoint.save import new_sidecar
from nla_audit.nla.architecture import blocks_of, decoder_of, keep_first_blocks
from nla_audit.nla.prompts import chat_ids
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from tests.pairs import talking
from tests.pairs.golden import GOLDEN

#: Words that may stand at each place.
_CHOICES = 8
#: What blocks add is multiplied by this, so that the embeddings decide what place comes next.
_QUIET = 1e-2
#: Logit of the tokens that may come next; that of all others is near 0.
_CERTAIN = 20.0


def reciting_pair(*, d_model: int, blocks: int, tokens: int, seed: int = 0) -> Pair:
    """A fresh pair, always the same for a seed; every response has ``tokens`` tokens.

    The tokenizer is that of the golden pairs, with the two tags as words of their own.
    """
    golden = load(GOLDEN / "released_qwen2" / "av").verbalizer
    assert golden is not None
    tokenizer = golden.tokenizer
    tokenizer.add_tokens(list(talking.TAGS))
    layer = 2 * blocks // 3

    def config() -> Qwen3Config:
        return Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=d_model,
            intermediate_size=5 * d_model // 2,
            num_hidden_layers=blocks,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=d_model // 4,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )

    options: dict[str, Any] = {
        "d_model": d_model,
        "layer_index": layer,
        "injection_char": golden.sidecar.tokens.injection_char,
        "injection": talking.INJECTION,
        "av_template": golden.sidecar.av_template,
        "ar_template": golden.sidecar.ar_template,
        "base_model": "random",
        "stage": "rl",
    }
    torch.manual_seed(seed)
    av: Any = AutoModelForCausalLM.from_config(config()).float().eval()
    _teach(av, tokenizer, tokens)
    shortened = config()
    keep_first_blocks(shortened, layer + 1)
    ar: Any = AutoModelForCausalLM.from_config(shortened).float().eval()
    return Pair(
        Verbalizer(av, tokenizer, new_sidecar(tokenizer, role="av", **options)),
        Reconstructor(
            ar,
            torch.eye(d_model),
            tokenizer,
            new_sidecar(tokenizer, role="ar", ar_trained_in_rl=False, **options),
        ),
    )


def quieten(model: Any, by: float) -> None:
    """Multiply what blocks add, so that the embeddings decide what is said."""
    for block in blocks_of(decoder_of(model)):
        for projection in (block.self_attn.o_proj, block.mlp.down_proj):
            projection.weight *= by


def _teach(av: Any, tokenizer: Any, tokens: int) -> None:
    """Give each place of a response a direction, and let each place name the words of the next."""
    opening, closing = tokenizer.convert_tokens_to_ids(list(talking.TAGS))
    words = _words(tokenizer)
    between = [words[place::tokens][:_CHOICES] for place in range(tokens - 3)]
    places = [
        [chat_ids(tokenizer, "x")[-1]],
        [opening],
        *between,
        [closing],
        [tokenizer.eos_token_id],
    ]
    width = av.config.hidden_size
    with torch.no_grad():
        quieten(av, _QUIET)
        table, output = av.get_input_embeddings().weight, av.lm_head.weight
        nn.init.normal_(table, std=1 / width**0.5)
        directions = torch.linalg.qr(torch.randn(width, width)).Q[: len(places)]
        nn.init.zeros_(output)
        for place, members in enumerate(places):
            table[members] = directions[place]
            if place > 0:
                # The final norm scales the hidden state to √width.
                output[members] = directions[place - 1] * _CERTAIN / width**0.5


def _words(tokenizer: Any) -> list[int]:
    """Tokens that are a word with the space before it, so that texts of them are read as them."""
    found = tokenizer.get_vocab()
    return sorted(found[piece] for piece in found if re.fullmatch("Ġ[a-z]{3,}", piece))
