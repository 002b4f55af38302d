"""Seconds per RL step by phase, against the obvious loop and against bare passes.

    python -m benchmarks.rl_step --out benchmarks/rl_step.md    # on two idle cores, a few minutes

The pair has random weights and the golden pairs' tokenizer, and every one of its responses has
``--tokens`` tokens (:mod:`benchmarks.reciting_pair`), so that all loops do the same work. Three
things are timed on the same activations, in turn in each round, so that whatever else the machine
does falls on all of them:

- *ours*: a step of the trainer;
- *obvious*: one prompt at a time, explanations scored one by one, log-probabilities of two samples
  at a time (:mod:`benchmarks.obvious_step`);
- *bare*: the responses' own tokens through the models, in batches of like length, with nothing
  around them and nothing before them. What looks back at a prompt cannot be as fast.

With a trained pair of one's own (its responses are as long as they are, so that ours and the
obvious loop do the same work on average only)::

    python -m benchmarks.rl_step --pair runs/real/warm-start --lora 16 --prompts 8 --samples 6 \\
        --tokens 96 --activations runs/real/activations/activations.parquet
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest import mock

import numpy as np
import torch
import transformers

from benchmarks.obvious_step import obvious_step
from benchmarks.reciting_pair import reciting_pair
from nla_audit.checkpoint.load import Pair, load
from nla_audit.nla.cache import RowCache, cache_keyword
from nla_audit.record import commit
from nla_audit.runs.activations import read_activations
from nla_audit.train.clock import Clock
from nla_audit.train.dataset import Dataset
from nla_audit.train.policy import Policy
from nla_audit.train.recipe_optimizer import Lora, Optimizer
from nla_audit.train.recipe_rl import Rl
from nla_audit.train.reconstruction import predict
from nla_audit.train.rl import Arms, RlRun
from nla_audit.train.sampling import Draw
from nla_audit.train.update import Trainer

PHASES = ("generate", "score", "reference", "update")
#: A tenth of them is held out.
_ACTIVATIONS = 400
#: Tokens of a bare pass: as many as fit into a core's cache.
_BARE_TOKENS = 2048
#: With a large vocabulary as many as their logits leave memory for.
_BARE_LOGITS = 1 << 28
_CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": time.process_time,
}

#: Seconds by loop and phase, one for each round.
Times = dict[str, dict[str, list[float]]]


def settings_of(given: argparse.Namespace) -> Rl:
    """Of RL, all at their defaults but for the size."""
    return Rl(
        prompts=given.prompts,
        samples=given.samples,
        max_new_tokens=given.tokens,
        lora=None if given.lora is None else Lora(rank=given.lora),
        # So slow that after a few steps the AV still recites.
        optimizer=Optimizer(learning_rate=1e-6),
    )


def random_vectors(rows: int, d_model: int) -> np.ndarray:
    """``[rows, d_model]`` float32."""
    return np.random.default_rng(0).normal(size=(rows, d_model)).astype(np.float32)


def bare_dataset(vectors: np.ndarray) -> Dataset:
    """Activations and nothing else; a tenth of them is held out, for the baseline."""
    rows = len(vectors)
    return Dataset(
        idx=np.arange(rows),
        activations=vectors,
        doc_ids=[f"d{row}" for row in range(rows)],
        positions=[None] * rows,
        source_texts=[None] * rows,
        explanations=[None] * rows,
        is_held_out=np.arange(rows) % 10 == 9,
    )


def bare_passes(run: RlRun, draw: Draw) -> dict[str, float]:
    """Seconds by phase of the passes that no trainer can do without."""
    drawn, model = draw.drawn, run.policy.verbalizer.model
    # The longest first: those that go on are the first rows.
    order = np.argsort(-drawn.lengths, kind="stable")
    ids, lengths = torch.from_numpy(drawn.token_ids[order]).clamp(min=0), drawn.lengths[order]
    clock = Clock(ids.device)
    with clock.phase("generate"), torch.inference_mode():
        cache = RowCache(model.config, int(lengths[0]))
        options = {str(cache_keyword(model)): cache, "use_cache": True}
        before = len(ids)
        for step in range(int(lengths[0])):
            going = int((lengths > step).sum())
            if going < before:
                cache.keep_rows(torch.arange(going))
                before = going
            model(input_ids=ids[:going, step : step + 1], **options)
    reader = run.arms.training
    reading = reader.plan(drawn.samples.explanations)
    texts = [[reading.prompts[row][reading.shared :] for row in batch] for batch in reading.batches]
    with clock.phase("score"), torch.inference_mode():
        for batch in texts:
            predict(reader, batch)
    vocabulary = model.config.get_text_config().vocab_size
    rows = max(1, min(_BARE_TOKENS, _BARE_LOGITS // vocabulary) // int(lengths.mean()))
    batches = [
        ids[start : start + rows, : lengths[start]].contiguous()
        for start in range(0, len(ids), rows)
    ]
    with clock.phase("reference"), torch.no_grad():
        for batch in batches:
            model(input_ids=batch, use_cache=False)
    with clock.phase("update"):
        for batch in batches:
            model(input_ids=batch, use_cache=False).logits.logsumexp(-1).sum().backward()
    run.trainers["av"].zero_grad()
    return clock.seconds


def pair_of(given: argparse.Namespace) -> Pair:
    """A fresh copy of the pair that is measured."""
    if given.pair is not None:
        return load(given.pair / "av", given.pair / "ar")
    return reciting_pair(d_model=given.d_model, blocks=given.blocks, tokens=given.tokens)


def vectors_of(given: argparse.Namespace) -> np.ndarray:
    """``[rows, d_model]`` float32: as many random ones, or the first of the file's."""
    if given.activations is None:
        return random_vectors(_ACTIVATIONS, given.d_model)
    return read_activations(given.activations).vectors[:_ACTIVATIONS]


def measure(given: argparse.Namespace) -> tuple[Times, str]:
    """Seconds of all rounds, and a sentence on what was run."""
    settings, dataset = settings_of(given), bare_dataset(vectors_of(given))
    pair, other = pair_of(given), pair_of(given)
    assert pair.verbalizer is not None
    assert pair.reconstructor is not None
    assert other.verbalizer is not None
    run = RlRun(
        pair.verbalizer,
        Arms(pair.reconstructor, pair.reconstructor),
        dataset,
        settings,
        length_penalty=0.01,
        seed=0,
        folder=Path("unused"),
        key="unused",
    )
    plain = Policy(other.verbalizer, settings.lora, seed=0)
    trainer = Trainer(plain.parameters, settings.optimizer, steps=settings.steps)
    times: Times = {name: defaultdict(list) for name in ("ours", "obvious", "bare")}
    tokens: dict[str, list[float]] = {"ours": [], "obvious": []}
    for step in range(given.rounds + 1):
        record, _ = run._step(step)
        draw = run.sampler.draw(step, Clock(run.policy.verbalizer.device))
        obvious, drawn = obvious_step(
            plain,
            trainer,
            pair.reconstructor,
            vectors=draw.drawn.activations[:: settings.samples],
            settings=settings,
            step=step,
        )
        found = {"ours": record["time"], "obvious": obvious}
        if given.pair is None:
            assert (draw.drawn.lengths == given.tokens).all()
        found["bare"] = bare_passes(run, draw)
        if step == 0:  # warms up
            continue
        tokens["ours"].append(float(draw.drawn.lengths.mean()))
        tokens["obvious"].append(drawn)
        for name, seconds in found.items():
            for phase in PHASES:
                times[name][phase].append(seconds[phase])
    prompt, config = pair.verbalizer.prompt, pair.verbalizer.model.config.get_text_config()
    trained = "all weights" if given.lora is None else f"adapters of rank {given.lora}"
    length = f"{given.tokens} tokens"
    if given.pair is not None:
        ours, obvious_length = (np.mean(tokens[name]) for name in ("ours", "obvious"))
        length = f"{ours:.0f} tokens on average (obvious: {obvious_length:.0f})"
    return times, (
        f"d_model {pair.verbalizer.d_model}, {config.num_hidden_layers} blocks (AR: "
        f"{pair.reconstructor.layer_index + 1}), vocabulary {config.vocab_size:,}, "
        f"{str(pair.verbalizer.model.dtype).removeprefix('torch.')}, {trained} trained; a prompt "
        f"of {len(prompt.ids)} tokens, its marker at {prompt.marker}; {settings.prompts} × "
        f"{settings.samples} samples of {length}"
    )


def table(times: Times) -> list[str]:
    """A row for each phase and the whole step: medians, and medians of ratios within a round."""
    lines = [
        "| phase | ours: s | obvious: s | **obvious ÷ ours** | bare: s | ours ÷ bare "
        "| obvious ÷ bare |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for phase in (*PHASES, "step"):
        summed = PHASES if phase == "step" else (phase,)
        ours, obvious = (
            np.sum([times[name][one] for one in summed], axis=0) for name in ("ours", "obvious")
        )
        least = np.sum([times["bare"][one] for one in summed], axis=0)
        lines.append(
            f"| {phase} | {median(ours):.3f} | {median(obvious):.3f} | "
            f"**{median(obvious / ours):.1f}** | {median(least):.3f} | "
            f"{median(ours / least):.2f} | {median(obvious / least):.1f} |"
        )
    return lines


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--pair", type=Path, metavar="FOLDER", help="with av/ and ar/, instead of a random one"
    )
    parser.add_argument("--activations", type=Path, metavar="FILE", help="those of the pair")
    parser.add_argument("--d-model", type=int, default=128, help="width of both models")
    parser.add_argument("--blocks", type=int, default=6, help="of the AV")
    parser.add_argument("--prompts", type=int, default=16, help="activations of a step")
    parser.add_argument("--samples", type=int, default=8, help="responses to each")
    parser.add_argument("--tokens", type=int, default=48, help="of each response")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train adapters, not all weights")
    parser.add_argument("--rounds", type=int, default=7, help="after one that warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock",
        choices=list(_CLOCKS),
        default="wall",
        help="processor: seconds of the process, for one thread on a machine that others share",
    )
    parser.add_argument("--out", type=Path, help="write the table here too")
    given = parser.parse_args(arguments)
    if (given.pair is None) != (given.activations is None):
        parser.error("--pair and --activations go together")
    return given


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the table."""
    given = arguments_of(arguments)
    torch.set_num_threads(given.threads)
    load_before = os.getloadavg()[0]
    with mock.patch.object(Clock, "_now", staticmethod(_CLOCKS[given.clock])):
        times, what = measure(given)
    options = f" --threads {given.threads} --clock {given.clock} --rounds {given.rounds}"
    options += "" if given.lora is None else f" --lora {given.lora}"
    if given.pair is not None:
        options += (
            f" --prompts {given.prompts} --samples {given.samples} --tokens {given.tokens}"
            " --pair FOLDER --activations FILE"
        )
    text = "\n".join(
        [
            "# A step of RL on a CPU",
            "",
            f"{what}. {given.threads} thread(s), torch {torch.__version__}, transformers "
            f"{transformers.__version__}, Python {platform.python_version()}, commit {commit()}. "
            f"{given.clock.title()} time, medians of {given.rounds} rounds in one process:",
            "",
            f"    OMP_WAIT_POLICY=passive python -m benchmarks.rl_step{options}",
            "",
            *table(times),
            "",
            "Obvious: one prompt at a time by transformers' generate, one explanation at a time, "
            "log-probabilities two samples at a time. Bare: the responses' own tokens through the "
            "models with nothing before them.",
            "",
            f"Load average of the machine ({os.cpu_count()} cores): {load_before:.1f} before, "
            f"{os.getloadavg()[0]:.1f} after; above {given.threads}, others shared it.",
            "",
        ]
    )
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
