"""What the steganography probe's reading costs, beside one bare pass over the same texts.

Run from the repository root, on one core::

    OMP_WAIT_POLICY=passive taskset -c 0 .venv/bin/python -m benchmarks.probe_reading \\
        --out benchmarks/probe_reading.md

Two ARs read every transform of every explanation, own and reference texts alike (random weights,
made on the spot; what a text says does not change what reading it costs). The probe's time is that
of everything between the texts and their scores: finding the distinct ones, tokenising, batching,
the forward passes, the comparison with the activations. It stands beside two passes over the same
distinct texts, tokenised, sorted and batched beforehand:

- *bare*: the model's forward passes and nothing else, in full batches of the best of several sizes;
- *planned*: the AR's own reading, which computes the beginning that all prompts share only once, at
  the best of several token budgets.

The arms take turns, so that they meet the same load of the machine, and each turn gives one ratio,
of processor time and of time on the clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from nla_audit.checkpoint.save import new_sidecar
from nla_audit.llm.interface import Account, Answer, Closing, Progress, Request, silent
from nla_audit.nla.injection import Injection
from nla_audit.nla.reconstructor import ReadingPlan, Reconstructor
from nla_audit.nla.scoring import score_rows
from nla_audit.probes.stego import reading as probe_reading
from nla_audit.probes.stego.reading import ProbeSettings, probe
from nla_audit.runs.activations import Activations, read_activations
from nla_audit.runs.score import UnscoredTable, read_unscored
from tests.pairs import tiny

D_MODEL, BLOCKS = 192, 4
EXPLANATIONS = 16
BARE_BATCH_SIZES = (2, 4, 8, 16, 32, 64, 128)
TOKEN_BUDGETS = (256, 512, 1024, 2048, 4096, 8192)
#: The bound on the probe's time as a multiple of the bare passes'.
BOUND = 1.2

_SUBJECTS = "harbour report, sports column, travel diary, court ruling, recipe, obituary".split(
    ", "
)
_TONES = "formal, celebratory, hedged, terse, nostalgic, technical, ironic".split(", ")
_WORDS = "before, winter, the ribbon, in order to, ships, a register, because, spring".split(", ")
_KINDS = "noun phrase, time clause, list item, quotation, relative clause, citation".split(", ")


@dataclass(frozen=True)
class Seconds:
    """What a piece of work took: on the clock, and of the processor (all threads)."""

    clock: float = 0.0
    processor: float = 0.0

    @staticmethod
    def now() -> Seconds:
        """Readings of both clocks."""
        return Seconds(time.perf_counter(), time.process_time())

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.clock + other.clock, self.processor + other.processor)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.clock - other.clock, self.processor - other.processor)


@dataclass(frozen=True)
class Turn:
    """One turn of all arms.

    Attributes:
        probe: time of the probe between texts and scores, both ARs.
        in_models: the part of it inside the ARs' blocks.
        whole: time of the whole probe, changing the texts included.
        bare: time of the bare passes at the best batch size, both ARs.
        planned: time of the AR's own reading at the best token budget, both ARs.
    """

    probe: Seconds
    in_models: Seconds
    whole: Seconds
    bare: Seconds = Seconds()
    planned: Seconds = Seconds()


class Rewording(Closing):
    """A writer that costs nothing: every task gives other words of about the same number."""

    name = "rewording"

    def __init__(self) -> None:
        self.account = Account()

    def write(self, requests: Sequence[Request], *, progress: Progress = silent) -> list[Answer]:
        """``[n]`` answers."""
        return [
            Answer(tuple(f"{request.task}: presumably {line}" for line in request.lines))
            for request in requests
        ]


def write_tables(folder: Path) -> tuple[UnscoredTable, UnscoredTable, Activations]:
    """Own explanations, reference ones, and random activations."""
    generator = np.random.default_rng(0)

    def explanation() -> str:
        subject, tone, word, kind = (
            generator.choice(names) for names in (_SUBJECTS, _TONES, _WORDS, _KINDS)
        )
        lines = [
            f"Likely a {subject} in a {tone} tone, with a list of places that goes on",
            f'The phrase "{word}" suggests that a {kind} begins and is about to be continued',
            f'Final token "{generator.choice(_WORDS)}" opens a {generator.choice(_KINDS)}',
        ]
        return "\n".join(lines[: generator.integers(2, 4)])

    tables = []
    for name in ("own", "reference"):
        pl.DataFrame(
            {
                "model": [name] * EXPLANATIONS,
                "idx": range(EXPLANATIONS),
                "explanation": [explanation() for _ in range(EXPLANATIONS)],
                "extracted": [True] * EXPLANATIONS,
            }
        ).write_parquet(folder / f"{name}.parquet")
        tables.append(read_unscored([str(folder / f"{name}.parquet")]))
    vectors = generator.normal(size=(EXPLANATIONS, D_MODEL)).astype(np.float32)
    pl.DataFrame({"idx": range(EXPLANATIONS), "activation_vector": vectors.tolist()}).write_parquet(
        folder / "activations.parquet"
    )
    return tables[0], tables[1], read_activations(folder / "activations.parquet")


def random_reader(seed: int) -> Reconstructor:
    """An AR with random weights."""
    tokenizer = tiny.make_tokenizer(bos=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=3 * D_MODEL,
        num_hidden_layers=BLOCKS,
        num_attention_heads=D_MODEL // 32,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    sidecar = new_sidecar(
        tokenizer,
        role="ar",
        d_model=D_MODEL,
        layer_index=BLOCKS - 1,
        injection_char=tiny.MARKER,
        injection=Injection("replace", scale=1.0),
        av_template=tiny.AV_TEMPLATE,
        ar_template=tiny.AR_TEMPLATE,
        base_model="tiny/random",
        stage="rl",
    )
    head = nn.init.orthogonal_(torch.empty(D_MODEL, D_MODEL))
    return Reconstructor(model, head, tokenizer, sidecar, name=f"ar{seed}")


class Stopwatch:
    """Seconds inside the calls that it is put around."""

    def __init__(self) -> None:
        self.seconds = Seconds()
        self._began = Seconds()

    def start(self, *_: Any) -> None:
        """Before a call."""
        self._began = Seconds.now()

    def stop(self, *_: Any) -> None:
        """After it."""
        self.seconds += Seconds.now() - self._began

    def around(self, function: Any) -> Any:
        """``function``, timed."""

        def timed(*args: Any, **options: Any) -> Any:
            self.start()
            try:
                return function(*args, **options)
            finally:
                self.stop()

        return timed


def run_probe(
    readers: dict[str, Reconstructor],
    own: UnscoredTable,
    reference: UnscoredTable,
    activations: Activations,
) -> tuple[pl.DataFrame, Turn]:
    """The whole probe: its table, and what it took."""
    scoring, inside = Stopwatch(), Stopwatch()
    handles = []
    for reader in readers.values():
        handles.append(reader.decoder.register_forward_pre_hook(inside.start))
        handles.append(reader.decoder.register_forward_hook(inside.stop))
    start = Seconds.now()
    try:
        with (
            mock.patch.object(probe_reading, "score_rows", scoring.around(score_rows)),
            Rewording() as writer,
        ):
            frame = probe(
                readers, own, activations, ProbeSettings(), writer=writer, reference=reference
            )
    finally:
        for handle in handles:
            handle.remove()
    return frame, Turn(scoring.seconds, inside.seconds, Seconds.now() - start)


def padded_batches(reader: Reconstructor, texts: list[str], size: int) -> list[torch.Tensor]:
    """``[size, tokens]`` ids, longest texts first."""
    ordered = sorted(reader.prompt_ids(texts), key=len, reverse=True)
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [
        torch.tensor([ids + [0] * (len(group[0]) - len(ids)) for ids in group]) for group in groups
    ]


@torch.inference_mode()
def time_bare(reader: Reconstructor, batches: list[torch.Tensor]) -> Seconds:
    """Forward passes and nothing else."""
    start = Seconds.now()
    for ids in batches:
        reader.decoder(input_ids=ids, use_cache=False)
    return Seconds.now() - start


def time_planned(reader: Reconstructor, reading: ReadingPlan) -> Seconds:
    """The AR's own reading, planned beforehand."""
    reading.prefix = None  # computed again in every turn, as in the probe
    start = Seconds.now()
    for batch in reading.batches:
        reader.read(reading, batch)
    return Seconds.now() - start


def best_budget(reader: Reconstructor, texts: list[str]) -> tuple[int, dict[int, float]]:
    """The token budget at which planned reading takes the least, and the seconds at each."""
    seconds = {}
    for budget in TOKEN_BUDGETS:
        reading = reader.plan(texts, token_budget=budget)
        seconds[budget] = min(time_planned(reader, reading).processor for _ in range(2))
    return min(seconds, key=lambda budget: seconds[budget]), seconds


def best_size(reader: Reconstructor, texts: list[str]) -> tuple[int, dict[int, float]]:
    """The batch size at which bare passes take the least, and processor seconds at each size."""
    seconds = {}
    for size in BARE_BATCH_SIZES:
        batches = padded_batches(reader, texts, size)
        seconds[size] = min(time_bare(reader, batches).processor for _ in range(2))
    return min(seconds, key=lambda size: seconds[size]), seconds


def take_turns(folder: Path, repeats: int) -> tuple[list[Turn], str]:
    """Both arms ``repeats`` times, and what was read in words."""
    own, reference, activations = write_tables(folder)
    readers = {"own": random_reader(0), "second": random_reader(1)}
    frame, _ = run_probe(readers, own, reference, activations)
    one = frame.filter(pl.col("ar") == "own")
    texts = one["text"].drop_nulls().str.strip_chars()
    distinct = texts.unique().sort().to_list()
    sample = distinct[:: max(1, len(distinct) // 256)]
    size, sizes = best_size(readers["own"], sample)
    budget, budgets = best_budget(readers["own"], sample)
    batches = {name: padded_batches(reader, distinct, size) for name, reader in readers.items()}
    plans = {name: reader.plan(distinct, token_budget=budget) for name, reader in readers.items()}
    turns = []
    for number in range(repeats):
        turn, bare, planned = None, Seconds(), Seconds()
        for arm in np.roll(("probe", "bare", "planned"), number):
            if arm == "probe":
                _, turn = run_probe(readers, own, reference, activations)
            elif arm == "bare":
                for name, reader in readers.items():
                    bare += time_bare(reader, batches[name])
            else:
                for name, reader in readers.items():
                    planned += time_planned(reader, plans[name])
        assert turn is not None
        turns.append(replace(turn, bare=bare, planned=planned))
    tokens = sum(map(len, readers["own"].prompt_ids(distinct))) / len(distinct)
    return turns, (
        f"{EXPLANATIONS} own and {EXPLANATIONS} reference explanations, "
        f"{one['variant'].n_unique()} variants: {len(texts):,} texts, of which {len(distinct):,} "
        f"are distinct, read by each of 2 ARs ({tokens:.0f} tokens on average, prompt included). "
        f"Bare batch size {size}, planned at {budget} tokens, the best on {len(sample)} of them; "
        f"texts a second at each size: {rates(sizes, len(sample))}; at each budget: "
        f"{rates(budgets, len(sample))}."
    )


def rates(seconds: dict[int, float], texts: int) -> str:
    """Texts a second at each setting, in words."""
    return ", ".join(f"{setting}: {texts / took:.0f}" for setting, took in seconds.items())


def table(turns: list[Turn]) -> list[str]:
    """The rows of the Markdown table."""
    rows = [
        "| turn | probe, s | in the models, s | bare, s | planned, s | probe / bare "
        "| probe / planned | on the clock: probe / bare | probe / planned | whole probe, s |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for number, turn in enumerate(turns, 1):
        cells = [
            turn.probe.processor,
            turn.in_models.processor,
            turn.bare.processor,
            turn.planned.processor,
            turn.probe.processor / turn.bare.processor,
            turn.probe.processor / turn.planned.processor,
            turn.probe.clock / turn.bare.clock,
            turn.probe.clock / turn.planned.clock,
            turn.whole.clock,
        ]
        rows.append(f"| {number} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return rows


def spread(values: Sequence[float]) -> str:
    """Number and range in words."""
    return f"median of {len(values)} turns, from {min(values):.2f} to {max(values):.2f}"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        turns, read = take_turns(Path(name), arguments.repeats)
    load.append(os.getloadavg()[0])
    bare = [turn.probe.processor / turn.bare.processor for turn in turns]
    planned = [turn.probe.processor / turn.planned.processor for turn in turns]
    worse = max(np.median(bare), np.median(planned))
    outside = float(np.median([1 - t.in_models.processor / t.probe.processor for t in turns]))
    text = "\n".join(
        [
            "# What the probe's reading costs",
            "",
            f"d_model {D_MODEL}, {BLOCKS} blocks, float32, {arguments.threads} thread, torch "
            f"{torch.__version__}, transformers {transformers.__version__}, Python "
            f"{platform.python_version()}. {read}",
            "",
            "    OMP_WAIT_POLICY=passive taskset -c 0 .venv/bin/python -m benchmarks.probe_reading "
            "--out benchmarks/probe_reading.md",
            "",
            f"In processor time the probe takes **{np.median(bare):.2f} ×** the bare passes "
            f"({spread(bare)}) and **{np.median(planned):.2f} ×** the planned reading "
            f"({spread(planned)}); at most {BOUND} wanted: "
            f"{'kept' if worse <= BOUND else 'NOT KEPT'}. {outside:.0%} of its time is outside of "
            "the models. Beside bare passes less than 1 is possible: the tokens that all prompts "
            "begin with are computed once.",
            "",
            *table(turns),
            "",
            f"Load average of the machine ({os.cpu_count()} cores): {load[0]:.1f} before, "
            f"{load[1]:.1f} after; above 1, others shared it; processor time does not count "
            "their turns, though it does grow with what they take of the caches.",
            "",
        ]
    )
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
