"""A tiny chat model that answers as planned: what it says depends on a keyword of the text.

One block whose attention looks at all tokens alike. Only keywords have a value, each along an axis
of its own, and each answer is one token whose logit is the keyword's axis; the answer's own
embedding calls for the end token. Without a keyword it refuses. It is a model like any other to
whatever loads and serves it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tests.pairs import tiny

REFUSAL = "I'm sorry, but I can't help with that."
#: Beside the sum of many values this is nothing; beside nothing it is all.
_FAINT = 1e-4


def save_answering_model(folder: Path, answers: Mapping[str, Sequence[str]]) -> Path:
    """Write a model that answers a text that holds a keyword with the lines of that keyword.

    Args:
        answers: keyword → lines. A text must hold one keyword, the prompt around it none.
    """
    tokenizer = tiny.make_tokenizer(bos=False)
    # Without spaces: were an answer asked about in its turn, the prompt must not hold its token.
    said = [json.dumps({"lines": list(lines)}, separators=(",", ":")) for lines in answers.values()]
    tokenizer.add_tokens([*answers, *said, REFUSAL])
    width = 2 * len(answers) + 4
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=width // 2,
        max_position_embeddings=8192,
        rms_norm_eps=1e-12,
        pad_token_id=0,
        eos_token_id=[2, 4],
        tie_word_embeddings=False,
    )
    model: Any = AutoModelForCausalLM.from_config(config).float().eval()
    attention = model.model.layers[0].self_attn
    axis = torch.eye(width)
    faint, done = axis[-2], axis[-1]
    last = tokenizer(_prompt_end(tokenizer), add_special_tokens=False)["input_ids"][-1]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.zero_()
        values = torch.eye(width)
        values[-2:] = 0  # only keywords are carried from one token to another
        attention.v_proj.weight.copy_(values)
        attention.o_proj.weight.copy_(torch.eye(width))
        table, output = model.get_input_embeddings().weight, model.lm_head.weight
        for number, (keyword, text) in enumerate(zip(answers, said, strict=True)):
            table[tokenizer.convert_tokens_to_ids(keyword)] = axis[number]
            answer = tokenizer.convert_tokens_to_ids(text)
            output[answer] += axis[number]  # several keywords may have one answer
            table[answer] = done
        refusal = tokenizer.convert_tokens_to_ids(REFUSAL)
        table[last] = _FAINT * faint
        output[refusal] = faint
        table[refusal] = done
        output[tokenizer.convert_tokens_to_ids("<end>")] = done
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_rubbish_model(folder: Path) -> Path:
    """Write a chat model with random weights."""
    tokenizer = tiny.make_tokenizer(bos=False)
    model = tiny.random_model(tiny.make_config("qwen3", len(tokenizer)), 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _prompt_end(tokenizer: Any) -> str:
    """What the model last reads before it answers."""
    chat = [{"role": "user", "content": "a"}]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
