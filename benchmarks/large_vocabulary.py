"""What a large vocabulary costs, on a real model: before, now, and the bare passes.

Run from the repository root on a folder with a causal language model, for example a copy of
``google/gemma-3-270m`` (vocabulary 262,144, 270 million weights)::

    .venv/bin/python -m benchmarks.large_vocabulary FOLDER --out benchmarks/large_vocabulary.md

Three things in turn in every round, so that whatever else the machine does falls on all of them:

- *before*: as a trainer does that asks the model for its logits: all of a response in float32, a
  loss that keeps them for the backward pass, and sampling in float64 over the vocabulary;
- *now*: this package's own functions;
- *bare*: the matrix products that nothing can do without, on the same shapes: the decoder, the
  output matrix where a token is predicted (a few rows at a time), and their backward passes. No
  loss, no sampling, no optimiser.

Times are of the processor (all threads): other processes lengthen these least. What each way keeps
in memory is told by the bytes that autograd saved in the forward pass.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import transformers
from torch.nn.functional import linear

from nla_audit.nla import generation, output_head
from nla_audit.nla.cache import RowCache, cache_from, cache_keyword, prefix_cache
from nla_audit.nla.generation import padded
from nla_audit.nla.output_head import last_logits
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.responses import response_log_probs
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.train.adapters import add_lora
from nla_audit.train.kept_memory import kept_bytes
from nla_audit.train.log_probs import micro_batches
from nla_audit.train.pair import default_layer, load_config, new_reconstructor, new_verbalizer
from nla_audit.train.recipe import PairSettings
from nla_audit.train.recipe_data import Target
from nla_audit.train.recipe_optimizer import Lora, Optimizer
from nla_audit.train.update import Trainer

#: An AV step: rows, and tokens of the shortest and the longest response.
STEP_ROWS, SHORTEST, LONGEST = 8, 30, 80
#: Decoding: rows and tokens.
ROWS, NEW_TOKENS = 16, 12
#: Reading: texts and the longest of them in words.
TEXTS, MOST_WORDS = 64, 60
WORDS = "a story about the fair that opens with formal words and names of several towns".split()
#: Tokens whose logits the bare passes hold at once.
CHUNK = 128

Way = Callable[[], Any]


class AvStep:
    """One warm-start step of the AV with adapters on all linear layers: loss, gradient, AdamW."""

    name = f"AV step, {STEP_ROWS} responses of {SHORTEST} to {LONGEST} tokens"

    def __init__(self, verbalizer: Verbalizer, rng: np.random.Generator) -> None:
        self.verbalizer = verbalizer
        lengths = np.linspace(SHORTEST, LONGEST, STEP_ROWS).astype(np.int64)
        vocabulary = verbalizer.model.config.get_text_config().vocab_size
        ids = [rng.integers(100, vocabulary, length).tolist() for length in lengths]
        (self.batch,) = micro_batches(
            padded(ids), lengths, len(verbalizer.prompt.ids), None, verbalizer.device
        )
        width = verbalizer.d_model
        self.vectors = torch.from_numpy(rng.normal(size=(STEP_ROWS, width)).astype(np.float32))
        parameters = add_lora(verbalizer.model, Lora(), "benchmark", seed=0)
        self.trainer = Trainer(parameters, Optimizer(learning_rate=1e-4), steps=1000)

    def now(self) -> None:
        found = response_log_probs(
            self.verbalizer, self.vectors, self.batch.token_ids, self.batch.is_token
        )
        torch.where(self.batch.is_token, found, 0.0).sum().neg().backward()
        self.trainer.step(1)

    def before(self) -> None:
        with patch.dict(output_head._known, {self.verbalizer.model: False}):
            self.now()

    def bare(self) -> None:
        model, batch = self.verbalizer.model, self.batch
        prompt = torch.tensor(self.verbalizer.prompt.ids).expand(STEP_ROWS, -1)
        ids = torch.cat([prompt, batch.token_ids[:, :-1]], dim=1)
        weight = model.get_output_embeddings().weight
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        states = hidden[:, -batch.token_ids.shape[1] :][batch.is_token]
        with torch.no_grad():
            gradient = torch.cat([linear(part, weight) @ weight for part in states.split(CHUNK)])
        states.backward(gradient)
        self.trainer.zero_grad()


class Decoding:
    """Sampling a dozen tokens for each of some rows that share a prompt."""

    name = f"decoding, {ROWS} rows of {NEW_TOKENS} tokens"

    def __init__(self, verbalizer: Verbalizer, rng: np.random.Generator) -> None:
        self.verbalizer = verbalizer
        shape = (ROWS, verbalizer.d_model)
        self.vectors = rng.normal(size=shape).astype(np.float32)
        verbalizer.end_ids = frozenset()  # every row to its last token

    def now(self) -> None:
        self.verbalizer.generate(self.vectors, max_new_tokens=NEW_TOKENS, batch_size=ROWS)

    def before(self) -> None:
        with patch.object(generation, "next_tokens", _sampled_in_float64):
            self.now()

    @torch.inference_mode()
    def bare(self) -> None:
        model, prompt = self.verbalizer.model, self.verbalizer.prompt
        ids, name = torch.tensor(prompt.ids), str(cache_keyword(model))
        prefix = prefix_cache(model, model.config, ids[: prompt.marker])
        cache = cache_from(prefix, model.config, ROWS, capacity=len(ids) + NEW_TOKENS)
        ids = ids[prompt.marker :].expand(ROWS, -1)
        for _ in range(NEW_TOKENS):
            model(input_ids=ids, use_cache=True, **{name: cache}, **last_logits(model, 1))
            ids = ids[:, -1:]


def _sampled_in_float64(
    logits: torch.Tensor, temperature: float, draws: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    assert draws is not None
    scaled = logits.float() / temperature
    cumulative = scaled.double().softmax(dim=-1).cumsum(dim=-1)
    targets = (draws * cumulative[:, -1]).unsqueeze(1)
    tokens = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    chosen = scaled.gather(1, tokens[:, None]).squeeze(1) - scaled.logsumexp(dim=-1)
    return tokens, chosen


class Reading:
    """The AR's reconstructions of distinct texts. There is no output matrix in it."""

    name = f"AR reading, {TEXTS} texts of up to {MOST_WORDS} words"

    def __init__(self, reconstructor: Reconstructor, rng: np.random.Generator) -> None:
        self.reconstructor = reconstructor
        lengths = rng.integers(MOST_WORDS // 4, MOST_WORDS, TEXTS)
        self.texts = [" ".join(rng.choice(WORDS, length)) for length in lengths]

    def now(self) -> None:
        self.reconstructor.reconstruct(self.texts)

    before = None

    @torch.inference_mode()
    def bare(self) -> None:
        reading = self.reconstructor.plan(self.texts)
        decoder, shared = self.reconstructor.decoder, reading.shared
        config, name = self.reconstructor.model.config, str(cache_keyword(decoder))
        prefix = prefix_cache(decoder, config, torch.tensor(reading.prompts[0][:shared]))
        for batch in reading.batches:
            rests = padded([reading.prompts[row][shared:] for row in batch])
            capacity = shared + rests.shape[1]
            cache: RowCache = cache_from(prefix, config, len(batch), capacity=capacity)
            ids = torch.from_numpy(rests).clamp_min(0)
            decoder(input_ids=ids, use_cache=True, **{name: cache})


def processor_seconds(way: Way) -> float:
    began = time.process_time()
    way()
    return time.process_time() - began


def measure(folder: Path, rounds: int, threads: int, dtype: str, marker: str) -> str:
    rng = np.random.default_rng(0)
    target = Target(model=str(folder), device="cpu", dtype=dtype)
    prompts = PairSettings(chat_template="plain", marker=marker)
    layer = default_layer(load_config(folder).get_text_config().num_hidden_layers)
    load_before = os.getloadavg()[0]
    verbalizer = new_verbalizer(folder, layer, target, prompts)
    size = sum(one.numel() for one in verbalizer.model.parameters()) / 1e6
    decoding = Decoding(verbalizer, rng)
    reading = Reading(new_reconstructor(folder, layer, target, prompts), rng)
    # Decoded without adapters, as after the warm start, and before these are added.
    rows = [timed(one, rounds) for one in (decoding, reading)]
    step = AvStep(verbalizer, rng)
    rows.insert(0, timed(step, rounds))
    kept = [kept_bytes(verbalizer.model, way) / 1e6 for way in (step.before, step.now)]
    return "\n".join(
        [
            "# A large vocabulary",
            "",
            f"`{folder.name}`: {size:.0f} million weights, vocabulary "
            f"{verbalizer.model.config.get_text_config().vocab_size:,}, "
            f"{str(verbalizer.model.dtype).removeprefix('torch.')}; AR of {layer + 1} blocks; "
            f"{threads} thread(s), torch {torch.__version__}, transformers "
            f"{transformers.__version__}, Python {platform.python_version()}. Median processor "
            f"seconds of {rounds} rounds, and the median ratio within a round:",
            "",
            "    .venv/bin/python -m benchmarks.large_vocabulary FOLDER "
            "--out benchmarks/large_vocabulary.md",
            "",
            "| what | before | now | bare | before ÷ now | **now ÷ bare** |",
            "|---|--:|--:|--:|--:|--:|",
            *rows,
            "",
            f"An AV step's forward pass keeps {kept[0]:,.0f} MB for the backward pass before, "
            f"{kept[1]:,.0f} MB now.",
            "",
            f"Load average of the machine ({os.cpu_count()} cores): {load_before:.1f} before, "
            f"{os.getloadavg()[0]:.1f} after; above {threads}, others shared it.",
            "",
        ]
    )


def timed(what: AvStep | Decoding | Reading, rounds: int) -> str:
    ways = {"before": what.before, "now": what.now, "bare": what.bare}
    ways = {name: way for name, way in ways.items() if way is not None}
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(processor_seconds(way))
    now, bare = seconds["now"], seconds["bare"]
    before = seconds.get("before")
    return (
        f"| {what.name} | {'–' if before is None else f'{median(before):.2f}'} | "
        f"{median(now):.2f} | {median(bare):.2f} | "
        f"{'–' if before is None else f'{_ratio(before, now):.1f} ×'} | "
        f"**{_ratio(now, bare):.2f}** |"
    )


def _ratio(above: list[float], below: list[float]) -> float:
    return median(one / other for one, other in zip(above, below, strict=True))


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="folder of a causal language model")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--marker", default="㈜", help="one token of the model's tokenizer")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = measure(
        arguments.model, arguments.rounds, arguments.threads, arguments.dtype, arguments.marker
    )
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
