"""How fast ``explain`` and ``score`` are, beside the loop that anybody would write.

Run from the repository root, on two cores (threads that wait without spinning are disturbed
less by whatever else the machine does)::

    OMP_WAIT_POLICY=passive taskset -c 0,1 .venv/bin/python -m benchmarks.pair_throughput \\
        --out benchmarks/pair_throughput.md

Everything is measured side by side in one run, on a pair made on the spot (random weights,
d_model 256, 8 blocks) whose AV writes explanations of very different lengths:

- *explain* against a loop that calls transformers' ``generate`` and one forward pass of the AR
  for each activation;
- *score* against bare forward passes over the same distinct texts, tokenised beforehand and
  sorted by length, at the best of several batch sizes, and against one text at a time.

The times of ours are of the whole function: batches kept on disk, tables and record written.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import transformers

from nla_audit.checkpoint.load import Placement, load
from nla_audit.nla.prompts import read_explanation
from nla_audit.nla.reconstructor import Reconstructor
from nla_audit.nla.verbalizer import Verbalizer
from nla_audit.runs.activations import Activations, read_activations
from nla_audit.runs.explain import ExplainSettings, explain
from nla_audit.runs.score import ScoreSettings, read_unscored, score
from tests.pairs import talking

D_MODEL, BLOCKS, LAYER = 256, 8, 5
ACTIVATIONS = 512
MAX_NEW_TOKENS = 160
MEAN_WORDS = 60
BARE_BATCH_SIZES = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Timed:
    """Seconds in all, seconds of these inside the models, and what was done in them."""

    seconds: float
    in_models: float
    rows: int
    tokens: int


@contextmanager
def stopwatch(*models: Any) -> Iterator[Callable[[], tuple[float, float]]]:
    """Yields a function that gives the seconds since, and those inside ``models``' forwards."""
    inside = [0.0]
    began: list[float] = []

    def before(*_: Any) -> None:
        began.append(time.perf_counter())

    def after(*_: Any) -> None:
        inside[0] += time.perf_counter() - began.pop()

    handles = [
        handle
        for model in models
        for handle in (
            model.register_forward_pre_hook(before),
            model.register_forward_hook(after),
        )
    ]
    start = time.perf_counter()
    try:
        yield lambda: (time.perf_counter() - start, inside[0])
    finally:
        for handle in handles:
            handle.remove()


def time_explain(
    verbalizer: Verbalizer,
    reconstructor: Reconstructor,
    given: Activations,
    folder: Path,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> tuple[Timed, pl.DataFrame]:
    """Our ``explain``, whole."""
    from nla_audit.checkpoint.load import Pair

    settings = ExplainSettings("ours", "ruler", max_new_tokens=max_new_tokens)
    with stopwatch(verbalizer.model, reconstructor.decoder) as elapsed:
        table = explain(Pair(verbalizer, reconstructor), given, folder / "ours.parquet", settings)
        seconds, inside = elapsed()
    return Timed(seconds, inside, table.height, int(table["n_tokens"].sum())), table


@torch.inference_mode()
def time_loop(
    verbalizer: Verbalizer,
    reconstructor: Reconstructor,
    vectors: np.ndarray,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Timed:
    """The obvious loop: generate, cut out, reconstruct, compare, one activation at a time."""
    model, tokenizer = verbalizer.model, verbalizer.tokenizer
    device = verbalizer.device
    prompt = torch.tensor([verbalizer.prompt.ids], device=device)
    settings = transformers.GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(verbalizer.end_ids),
        pad_token_id=0,
    )
    marker = verbalizer.prompt.marker
    tokens = 0
    torch.manual_seed(0)
    with stopwatch(model, reconstructor.decoder) as elapsed:
        for vector in torch.from_numpy(vectors).to(device):
            with first_pass_injecting(verbalizer, vector[None], marker):
                ids = model.generate(
                    prompt, attention_mask=torch.ones_like(prompt), generation_config=settings
                )[0, prompt.shape[1] :]
            tokens += len(ids)
            response = tokenizer.decode(ids, skip_special_tokens=True)
            text = read_explanation(response, ended=int(ids[-1]) in verbalizer.end_ids)
            if text is not None:
                (read,) = reconstructor.prompt_ids([text])
                ids = torch.tensor([read], device=device)
                hidden = reconstructor.decoder(input_ids=ids).last_hidden_state
                predicted = hidden[0, -1].float() @ reconstructor.head.T
                float(torch.cosine_similarity(predicted, vector, dim=0))
        seconds, inside = elapsed()
    return Timed(seconds, inside, len(vectors), tokens)


@contextmanager
def first_pass_injecting(
    verbalizer: Verbalizer, vector: torch.Tensor, marker: int
) -> Iterator[None]:
    """Inject in the pass over the prompt only; the passes over single tokens have no marker."""
    embedding = verbalizer.model.get_input_embeddings()
    forward = embedding.forward

    def once(ids: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] == 1:
            return forward(ids)
        hidden = forward(ids).clone()
        scaled = vector[0] / vector.norm() * (verbalizer.injection.scale or 1.0)
        hidden[0, marker] = scaled.to(hidden)
        return hidden

    embedding.forward = once
    try:
        yield
    finally:
        del embedding.forward


def time_score(
    reconstructor: Reconstructor, given: Activations, table: Path, folder: Path, number: int
) -> Timed:
    """Our ``score``, whole: reading the table included."""
    with stopwatch(reconstructor.decoder) as elapsed:
        texts = read_unscored([str(table)])
        scored = score(
            reconstructor, texts, given, folder / f"scored{number}.parquet", ScoreSettings("ruler")
        )
        seconds, inside = elapsed()
    return Timed(seconds, inside, scored.completions.height, 0)


@torch.inference_mode()
def time_bare(reconstructor: Reconstructor, prompts: list[list[int]], batch_size: int) -> Timed:
    """Forward passes and nothing else, over padded batches made beforehand."""
    ordered = sorted(prompts, key=len, reverse=True)
    batches = []
    for start in range(0, len(ordered), batch_size):
        group = ordered[start : start + batch_size]
        batches.append(torch.tensor([ids + [0] * (len(group[0]) - len(ids)) for ids in group]))
    start_time = time.perf_counter()
    for ids in batches:
        reconstructor.decoder(input_ids=ids, use_cache=False)
    seconds = time.perf_counter() - start_time
    return Timed(seconds, seconds, len(prompts), sum(map(len, prompts)))


def best(runs: list[Timed]) -> Timed:
    """The fastest of several runs: what else the machine does can only make them slower."""
    return min(runs, key=lambda run: run.seconds / run.rows)


def line(name: str, run: Timed, *, note: str = "") -> str:
    """One row of the table."""
    tokens = f"{run.tokens / run.seconds:,.0f}" if run.tokens else "–"
    return (
        f"| {name} | {run.rows:,} | {run.seconds:.2f} | {run.rows / run.seconds:,.1f} | {tokens} | "
        f"{run.in_models / run.seconds:.1%} | {note} |"
    )


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--loop-rows", type=int, default=96)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        text = measure(Path(name), arguments.repeats, arguments.loop_rows, arguments.threads)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


def measure(folder: Path, repeats: int, loop_rows: int, threads: int) -> str:
    """Run everything in turn, ``repeats`` times, and tell the best of each."""
    load_before = os.getloadavg()[0]
    talking.save_pair(
        folder / "pair", d_model=D_MODEL, blocks=BLOCKS, layer=LAYER, words=MEAN_WORDS, lost=0.001
    )
    placement = Placement(dtype="float32", device="cpu")
    pair = load(av=folder / "pair/av", ar=folder / "pair/ar", placement=placement)
    verbalizer, reconstructor = pair.verbalizer, pair.reconstructor
    assert verbalizer is not None
    assert reconstructor is not None
    vectors = np.random.default_rng(0).normal(size=(ACTIVATIONS, D_MODEL)).astype(np.float32)
    pl.DataFrame({"activation_vector": vectors.tolist()}).write_parquet(folder / "a.parquet")
    given = read_activations(folder / "a.parquet")

    explained, loops, scored, single = [], [], [], []
    bare: dict[int, list[Timed]] = {size: [] for size in BARE_BATCH_SIZES}
    for number in range(repeats):
        run = folder / str(number)
        run.mkdir()
        ours, table = time_explain(verbalizer, reconstructor, given, run)
        explained.append(ours)
        loops.append(time_loop(verbalizer, reconstructor, vectors[:loop_rows]))
        distinct = table["explanation"].drop_nulls().unique().sort().to_list()
        prompts = reconstructor.prompt_ids(distinct)
        scored.append(time_score(reconstructor, given, run / "ours.parquet", run, number))
        for size in BARE_BATCH_SIZES:
            bare[size].append(time_bare(reconstructor, prompts, size))
        single.append(time_bare(reconstructor, prompts, 1))

    ours, loop = best(explained), best(loops)
    our_score, one = best(scored), best(single)
    size = min(bare, key=lambda each: best(bare[each]).seconds)
    bare_best = best(bare[size])
    speed = (loop.seconds / loop.rows) / (ours.seconds / ours.rows)
    token_speed = (ours.tokens / ours.seconds) / (loop.tokens / loop.seconds)
    return "\n".join(
        [
            "# Throughput of a pair",
            "",
            f"d_model {D_MODEL}, {BLOCKS} blocks (AR: {LAYER + 1}), {ACTIVATIONS} activations, "
            f"float32, {threads} threads, torch {torch.__version__}, transformers "
            f"{transformers.__version__}, Python {platform.python_version()}. Best of {repeats} "
            "runs, all measured in turn in one process:",
            "",
            "    OMP_WAIT_POLICY=passive taskset -c 0,1 .venv/bin/python -m "
            "benchmarks.pair_throughput --out benchmarks/pair_throughput.md",
            "",
            "| what | rows | seconds | rows/s | tokens/s | in the models | |",
            "|---|--:|--:|--:|--:|--:|---|",
            line("explain (AV and AR)", ours, note=f"**{speed:.1f} ×** the loop"),
            line("one row at a time", loop, note="transformers' generate, one AR pass a row"),
            line(
                "score",
                our_score,
                note=f"**{our_score.seconds / bare_best.seconds:.2f} ×** the bare passes' time",
            ),
            line("bare forward passes", bare_best, note=f"best batch size: {size}"),
            line("bare, one text at a time", one),
            "",
            f"Per token, explain is {token_speed:.1f} × the loop (both sample at temperature 1 "
            "from the same AV, but not the same tokens).",
            "",
            f"Load average of the machine ({os.cpu_count()} cores): {load_before:.1f} before, "
            f"{os.getloadavg()[0]:.1f} after; above {threads}, others shared it.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
