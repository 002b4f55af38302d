"""The target model: a small transformer trained on the synthetic language from scratch.

It is an ordinary Llama checkpoint with an ordinary tokenizer (one token a word), so everything
above it treats it like any other model. Llama, because transformers 5 loads the tokenizer of a
Qwen2 checkpoint as byte-level BPE whatever ``tokenizer.json`` says, and would silently read other
tokens than those that were written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from nla_audit.nla.adamw import adamw
from nla_audit.world.toy.explanations import FILLERS, WORDINGS, write_explanation
from nla_audit.world.toy.language import FACTS, WORDS, Language

#: Called with the step and the loss in nats per word.
Progress = Callable[[int, float], None]

_HEADS = 4
_WARMUP_STEPS = 20
#: About 1/√d_model. The usual 0.02 is for models a hundred times as wide; here it would leave
#: attention uniform for hundreds of steps.
_INITIALIZER_RANGE = 0.1
#: Long enough for prompt and explanation.
_MAX_POSITIONS = 512
#: Shares of training texts with a description before and behind the document.
_DESCRIBED_BEFORE, _DESCRIBED_AFTER = 0.4, 0.2
#: Marks padding among the words to predict.
_IGNORED = -100
_SPECIAL = ("<pad>", "<eos>", "<start>", "<end>")
_CHAT = (
    "{% for m in messages %}<start> {{ m['role'] }} {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<start> model {% endif %}"
)


def make_tokenizer(marker: str, templates: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """One token for each word of the language, its explanations and the prompt ``templates``.

    Tags such as ``<explanation>`` and the marker are single tokens too.
    """
    texts = [*WORDS, *FILLERS, 'user model assistant . "']
    texts += [wording for wordings in WORDINGS.values() for wording in wordings]
    texts += [value for values in FACTS.values() for value in values]
    pieces = [piece for text in (*texts, *templates) for piece in text.split()]
    tags = {"<explanation>", "</explanation>", marker}
    tags |= {piece for piece in pieces if piece.startswith("<") and piece.endswith(">")}
    plain = {piece for piece in pieces if not piece.startswith("<") and "{" not in piece}
    names = [*_SPECIAL, "<unk>", *sorted(plain)]
    core = Tokenizer(
        models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="<unk>")
    )
    # Marks apart from words, as in real tokenizers: "dusk." is no unknown word.
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<start>", "<end>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(tag, special=False) for tag in sorted(tags)])
    tokenizer.chat_template = _CHAT
    return tokenizer


def untrained_model(tokenizer: Any, *, d_model: int, blocks: int, seed: int) -> Any:
    """A Llama model of that size with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=blocks,
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.convert_tokens_to_ids("<pad>"),
        bos_token_id=None,
        initializer_range=_INITIALIZER_RANGE,
        eos_token_id=[tokenizer.convert_tokens_to_ids(name) for name in ("<eos>", "<end>")],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).float().eval()


def train_target(
    model: Any,
    tokenizer: Any,
    language: Language,
    *,
    seed: int,
    steps: int,
    batch_size: int,
    length: int,
    learning_rate: float,
    progress: Progress,
) -> float:
    """Next-word prediction on texts that are fresh in every step; trains in place.

    Returns:
        Mean loss of the last tenth of the steps, in nats per word.
    """
    optimizer = adamw(model.parameters(), learning_rate=learning_rate, weight_decay=0.01)
    losses = []
    for step in range(steps):
        rng = np.random.default_rng([seed, 2, step])
        texts = training_texts(language, rng, batch_size, length)
        batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        ids = batch["input_ids"].to(model.device)
        wanted = torch.where(batch["attention_mask"].to(model.device) == 1, ids, _IGNORED)[:, 1:]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _rate(step, steps)
        # Padding is on the right, where it reaches nothing in a causal model.
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=_IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        progress(step + 1, losses[-1])
    return float(np.mean(losses[-max(1, steps // 10) :]))


def training_texts(
    language: Language, rng: np.random.Generator, texts: int, length: int
) -> list[str]:
    """What the target reads: bare documents, and shorter ones described before or after.

    A language model that NLAs are made from knows what descriptions of texts mean. This one
    learns it here, so that AV and AR need not learn to read and write from nothing.
    """
    documents = language.write(rng, texts, length)
    out = []
    for document in range(texts):
        kind = rng.random()
        if kind < _DESCRIBED_BEFORE + _DESCRIBED_AFTER:
            words = documents.text(document, length // 2)
            is_before = kind < _DESCRIBED_BEFORE
            facts = documents.named_facts(document)
            description = write_explanation(rng, facts, [] if is_before else words.split())
            out.append(f"{description} {words}" if is_before else f"{words} {description}")
        else:
            out.append(documents.text(document))
    return out


def _rate(step: int, steps: int) -> float:
    """Share of the peak rate: linear warm-up, then a cosine to zero."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    return warmup * 0.5 * (1 + np.cos(np.pi * step / steps))
